package authkit

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	// maxToken bounds an access token, in bytes; WorkOS's stay below 5 KB.
	maxToken = 16 << 10
	// maxKeyID bounds a key id, in bytes.
	maxKeyID = 256
	// RSA keys, in bits: from what RFC 7518, section 3.3, demands to what a
	// verification should cost at the most.
	minKeyBits, maxKeyBits = 2048, 8192
	// clockSkew is how far WorkOS's clock may be ahead of ours.
	clockSkew = 30 * time.Second
	// maxExpiry is how far ahead a token may expire: the longest session.
	maxExpiry = 400 * 24 * time.Hour
)

// claims are what an access token says
// (https://workos.com/docs/authkit/sessions/session-tokens/access-token).
type claims struct {
	issuer          string    // iss
	subject         string    // sub
	sessionID       string    // sid
	clientID        string    // client_id
	organizationID  string    // org_id
	role            string    // role
	roles           []string  // roles
	permissions     []string  // permissions
	entitlements    []string  // entitlements
	featureFlags    []string  // feature_flags
	actor           string    // act.sub
	issuedAt        time.Time // iat
	notBefore       time.Time // nbf
	expiresAt       time.Time // exp
	authenticatedAt time.Time // auth_time
}

// lifetime returns for how long the token was issued. One without iat counts as
// short-lived, so that it is refreshed late rather than all the time.
func (c *claims) lifetime() time.Duration {
	if c.issuedAt.IsZero() {
		return 5 * time.Minute
	}
	return max(c.expiresAt.Sub(c.issuedAt), 0)
}

// verifier decides whether an access token is WorkOS's, for this client, and
// good now.
type verifier struct {
	clientID string
	issuers  []string // without trailing slashes; empty: any
	keys     *keySet
}

// token is an access token taken apart, not yet verified.
type token struct {
	raw   string
	keyID string
	claims
}

// parseToken takes a JWS in compact serialization apart (RFC 7515, section 7.1).
// Nothing lenient is let through to what verifies.
func parseToken(raw string) (*token, error) {
	if len(raw) > maxToken {
		return nil, refused(fmt.Errorf("%d bytes, want at most %d", len(raw), maxToken))
	}
	header, payload, signature, err := decodeToken(raw)
	if err != nil {
		return nil, refused(err)
	}
	if len(signature) > maxKeyBits/8 {
		return nil, refused(errors.New("signature: longer than any key's"))
	}
	t := &token{raw: raw}
	if t.keyID, err = parseHeader(header); err != nil {
		return nil, refused(fmt.Errorf("header: %w", err))
	}
	if err = t.claims.parse(payload); err != nil {
		return nil, refused(fmt.Errorf("payload: %w", err))
	}
	return t, nil
}

func refused(err error) error { return fmt.Errorf("token refused: %w", err) }

// verify checks a token's signature and claims. The error is errTokenExpired for
// a token that was good until then, ErrUnavailable where that cannot be told,
// and otherwise a reason to refuse it. A key set younger than maxKeySetAge is not
// fetched anew for a key id that it lacks.
func (v *verifier) verify(ctx context.Context, t *token, maxKeySetAge time.Duration) error {
	key, err := v.keys.find(ctx, t.keyID, maxKeySetAge)
	if err != nil {
		return err
	}
	// One key and one algorithm, both of our choosing: what the header asks for
	// is not asked (RFC 8725, section 3.1).
	if _, err := jws.Verify([]byte(t.raw), jws.WithKey(jwa.RS256, key)); err != nil {
		return refused(errors.New("the signature is not the key's"))
	}
	now := time.Now()
	if err := v.accept(&t.claims, now); err != nil {
		return refused(err)
	}
	if !now.Before(t.expiresAt) {
		return errTokenExpired
	}
	return nil
}

// accept checks the claims of a token whose signature holds, its expiry aside.
// There is no aud: WorkOS's key set belongs to one client.
func (v *verifier) accept(c *claims, now time.Time) error {
	switch {
	case c.subject == "":
		return errors.New("sub is missing")
	case c.sessionID == "":
		return errors.New("sid is missing")
	case c.expiresAt.IsZero():
		return errors.New("exp is missing")
	case c.expiresAt.After(now.Add(maxExpiry)):
		return errors.New("exp is more than 400 days ahead")
	case c.issuedAt.After(now.Add(clockSkew)):
		return fmt.Errorf("iat is %v ahead of this machine's clock", c.issuedAt.Sub(now).Round(time.Second))
	case c.notBefore.After(now.Add(clockSkew)):
		return fmt.Errorf("nbf is %v ahead of this machine's clock", c.notBefore.Sub(now).Round(time.Second))
	case c.clientID != "" && c.clientID != v.clientID:
		return fmt.Errorf("client_id is %.80q, want ClientID (WORKOS_CLIENT_ID) %q", c.clientID, v.clientID)
	case len(v.issuers) > 0 && !slices.Contains(v.issuers, strings.TrimSuffix(c.issuer, "/")):
		return fmt.Errorf("iss is %.200q, want one of Issuers (WORKOS_ISSUER) %q", c.issuer, v.issuers)
	}
	return nil
}

// decodeToken decodes the three segments of a token.
func decodeToken(raw string) (header, payload, signature []byte, err error) {
	segments := strings.Split(raw, ".")
	if len(segments) != 3 {
		return nil, nil, nil, fmt.Errorf("%d segments, want 3", len(segments))
	}
	if header, err = decodeSegment(segments[0]); err != nil {
		return nil, nil, nil, fmt.Errorf("header: %w", err)
	}
	if payload, err = decodeSegment(segments[1]); err != nil {
		return nil, nil, nil, fmt.Errorf("payload: %w", err)
	}
	if signature, err = decodeSegment(segments[2]); err != nil {
		return nil, nil, nil, fmt.Errorf("signature: %w", err)
	}
	return header, payload, signature, nil
}

// decodeSegment decodes base64url without padding (RFC 7515, section 2), in its
// one canonical spelling.
func decodeSegment(s string) ([]byte, error) {
	// encoding/base64 skips CR and LF even when strict.
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not base64url")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	return b, nil
}

// parseHeader returns the key id of a token's header, which must ask for nothing
// but RS256 (RFC 7515, section 4.1).
func parseHeader(header []byte) (keyID string, err error) {
	var algorithm string
	err = eachMember(header, func(name string, value []byte) error {
		switch name {
		case "alg":
			return decodeString(value, &algorithm)
		case "kid":
			return decodeString(value, &keyID)
		case "typ":
			var typ string
			if err := decodeString(value, &typ); err != nil || typ != "JWT" {
				return errors.New("typ is not JWT")
			}
		case "crit", "b64", "cty", "jku", "x5u", "jwk":
			return errors.New(name + " is not supported")
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case algorithm != "RS256":
		return "", errors.New("alg is not RS256")
	case keyID == "" || len(keyID) > maxKeyID:
		return "", errors.New("kid is missing or too long")
	}
	return keyID, nil
}

// parse decodes a token's payload. A claim that we read and that has the wrong
// type spoils the token; one that is null counts as absent.
func (c *claims) parse(payload []byte) error {
	return eachMember(payload, func(name string, value []byte) error {
		if string(value) == "null" {
			return nil
		}
		if err := c.set(name, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

func (c *claims) set(name string, value []byte) error {
	switch name {
	case "iss":
		return decodeString(value, &c.issuer)
	case "sub":
		return decodeString(value, &c.subject)
	case "sid":
		return decodeString(value, &c.sessionID)
	case "client_id":
		return decodeString(value, &c.clientID)
	case "org_id":
		return decodeString(value, &c.organizationID)
	case "role":
		return decodeString(value, &c.role)
	case "roles":
		return decodeStrings(value, &c.roles)
	case "permissions":
		return decodeStrings(value, &c.permissions)
	case "entitlements":
		return decodeStrings(value, &c.entitlements)
	case "feature_flags":
		return decodeStrings(value, &c.featureFlags)
	case "iat":
		return decodeTime(value, &c.issuedAt)
	case "nbf":
		return decodeTime(value, &c.notBefore)
	case "exp":
		return decodeTime(value, &c.expiresAt)
	case "auth_time":
		return decodeTime(value, &c.authenticatedAt)
	case "act":
		return eachMember(value, func(name string, value []byte) error {
			if name == "sub" {
				return decodeString(value, &c.actor)
			}
			return nil
		})
	}
	return nil
}

func decodeString(value []byte, dst *string) error {
	if value[0] != '"' {
		return errors.New("not a string")
	}
	return json.Unmarshal(value, dst)
}

func decodeStrings(value []byte, dst *[]string) error {
	if err := json.Unmarshal(value, dst); err != nil {
		return errors.New("not a list of strings")
	}
	// Sessions are shared: an append must copy.
	*dst = slices.Clip(*dst)
	return nil
}

// decodeTime decodes a NumericDate (RFC 7519, section 2), whole seconds only.
func decodeTime(value []byte, dst *time.Time) error {
	var seconds int64
	if err := json.Unmarshal(value, &seconds); err != nil || seconds < 0 || seconds > math.MaxUint32 {
		return errors.New("not a number of seconds since 1970")
	}
	*dst = time.Unix(seconds, 0)
	return nil
}

// parseKeySet returns the usable keys of a JWK set by their ids: RSA of 2,048 to
// 8,192 bits, for signatures with RS256. A key that is none of that is passed
// over, since WorkOS may add others; a set without any is an error.
func parseKeySet(b []byte) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, errors.New("the key set is not a JWK set")
	}

	keys := make(map[string]*rsa.PublicKey)
	for _, raw := range set.Keys {
		if id, key, ok := parseKey(raw); ok {
			keys[id] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no RSA key for signatures")
	}
	return keys, nil
}

func parseKey(raw []byte) (string, *rsa.PublicKey, bool) {
	key, err := jwk.ParseKey(raw)
	if err != nil || key.KeyID() == "" || len(key.KeyID()) > maxKeyID {
		return "", nil, false
	}
	if use := key.KeyUsage(); use != "" && use != "sig" {
		return "", nil, false
	}
	if alg := key.Algorithm().String(); alg != "" && alg != "RS256" {
		return "", nil, false
	}
	public, ok := key.(jwk.RSAPublicKey)
	if !ok {
		return "", nil, false
	}
	var rsaKey rsa.PublicKey
	if err := public.Raw(&rsaKey); err != nil {
		return "", nil, false
	}
	bits := rsaKey.N.BitLen()
	return key.KeyID(), &rsaKey, minKeyBits <= bits && bits <= maxKeyBits
}
