package authkit

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"
)

const (
	flowVersion = 1
	// flowMaxAge is how long a login may take; WorkOS's codes live as long.
	flowMaxAge = 10 * time.Minute
	// maxFlows is how many logins of one browser may be under way.
	maxFlows = 5
	// maxFlowBytes bounds their cookies together: with the session they must fit
	// the 8 KB that many servers accept as one header line.
	maxFlowBytes = 5 << 10
	// maxCallerState bounds LoginParams.State, in bytes.
	maxCallerState = 2048
)

// flow is a login under way: what the callback needs and the browser keeps, in
// the login cookie.
type flow struct {
	state       [32]byte // names the login to WorkOS and back (RFC 6749, section 10.12)
	verifier    [32]byte // proves that we began it (RFC 7636)
	startedAt   time.Time
	returnTo    string
	callerState string // LoginParams.State
}

func newFlow(returnTo, callerState string) *flow {
	f := &flow{startedAt: time.Now(), returnTo: returnTo, callerState: callerState}
	rand.Read(f.state[:])
	rand.Read(f.verifier[:])
	return f
}

// stateParam returns the state as the URL carries it, 43 characters.
func (f *flow) stateParam() string { return base64.RawURLEncoding.EncodeToString(f.state[:]) }

// hasState compares in constant time.
func (f *flow) hasState(param string) bool {
	return subtle.ConstantTimeCompare([]byte(f.stateParam()), []byte(param)) == 1
}

// codeVerifier returns 32 octets in base64url, 43 characters (RFC 7636, section
// 4.1).
func (f *flow) codeVerifier() string { return base64.RawURLEncoding.EncodeToString(f.verifier[:]) }

// codeChallenge returns BASE64URL(SHA256(code_verifier)) (RFC 7636, section 4.2).
func (f *flow) codeChallenge() string {
	sum := sha256.Sum256([]byte(f.codeVerifier()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// timely reports whether the login began within the last ten minutes, or is at
// most one in the future by the clock of the replica that began it.
func (f *flow) timely() bool {
	age := time.Since(f.startedAt)
	return -time.Minute <= age && age <= flowMaxAge
}

func (f *flow) pack() []byte {
	b := []byte{flowVersion}
	b = append(b, f.state[:]...)
	b = append(b, f.verifier[:]...)
	b = binary.AppendUvarint(b, uint64(f.startedAt.Unix()))
	b = appendSized(b, []byte(f.returnTo))
	return appendSized(b, []byte(f.callerState))
}

func unpackFlow(b []byte) (*flow, bool) {
	if len(b) < 1+32+32 || b[0] != flowVersion {
		return nil, false
	}
	f := &flow{state: [32]byte(b[1:33]), verifier: [32]byte(b[33:65])}
	started, n := binary.Uvarint(b[65:])
	if n <= 0 {
		return nil, false
	}
	returnTo, rest, ok := cutSized(b[65+n:])
	if !ok {
		return nil, false
	}
	callerState, rest, ok := cutSized(rest)
	if !ok || len(rest) > 0 {
		return nil, false
	}
	f.startedAt = time.Unix(int64(started), 0)
	f.returnTo, f.callerState = string(returnTo), string(callerState)
	return f, true
}
