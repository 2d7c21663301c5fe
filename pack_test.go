package authkit

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// goldenSession is what testdata/session-v1.golden holds.
func goldenSession() *Authentication {
	segment := base64.RawURLEncoding.EncodeToString
	at := time.Date(2026, 11, 21, 9, 17, 11, 358e6, time.UTC)
	return &Authentication{
		User: User{
			ID: "user_01ADA0000000000000000000", Email: "ada@example.test", EmailVerified: true, FirstName: "Ada", LastName: "Park",
			Name: "Ada Park", ProfilePictureURL: "https://workoscdn.com/images/v1/abc", ExternalID: "cust_1", Locale: "en-GB",
			LastSignInAt: at, CreatedAt: at.AddDate(-1, 0, 0), UpdatedAt: at, metadata: map[string]string{"plan": "pro"},
		},
		AccessToken: segment([]byte(`{"alg":"RS256","typ":"JWT","kid":"sso_oidc_key_pair_01X"}`)) + "." +
			segment([]byte(`{"sub":"user_01ADA0000000000000000000","sid":"session_01M7YPADSYEXQC04YM0HXCKSTN","org_id":"org_01ORCHARD00000000000000","role":"admin","permissions":["reports:read","reports:write"],"iss":"https://api.workos.com","iat":1795252631,"exp":1795252931}`)) + "." +
			segment(bytes.Repeat([]byte{0, 0x5a, 0xff, 0x7f}, 64)),
		RefreshToken:         "ref_01M7YPADT133GBAHPVH6H231Y4",
		AuthenticationMethod: "SSO",
		Impersonator:         &Impersonator{Email: "support@example.test", Reason: "ticket 42"},
	}
}

var updateSession = flag.Bool("update-session", false, "rewrite the golden session of the current version")

// Cookies outlive releases: what version 1 packed must always unpack.
func TestGoldenSession(t *testing.T) {
	const path = "testdata/session-v1.golden"
	if *updateSession {
		packed, err := pack(goldenSession())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(hex.EncodeToString(packed)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	if want := goldenSession(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %s, want %s", asJSON(t, got), asJSON(t, want))
	}
}

// Format hides what a failing test must show.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A change to the dictionary is a new version.
func TestDictionaryBelongsToItsVersion(t *testing.T) {
	const want = "ac6af027134963472d9bd44d3b4de903646716f486f8a248c99a94b6123fbcb6"
	sum := sha256.Sum256([]byte(packDictionary))
	if got := hex.EncodeToString(sum[:]); packVersion == 1 && got != want {
		t.Errorf("the dictionary of version 1 has the SHA-256 %s, want %s", got, want)
	}
}

func TestSecretsStayOutsideTheCompressedPart(t *testing.T) {
	auth := goldenSession()
	packed, err := pack(auth)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(packed, []byte(auth.RefreshToken)) {
		t.Error("the refresh token is not stored as it is")
	}
	length := len(packed)
	auth.RefreshToken = strings.Repeat("a", len(auth.RefreshToken))
	if packed, err = pack(auth); err != nil || len(packed) != length {
		t.Errorf("another refresh token of the same length: %d bytes, then %d; %v", length, len(packed), err)
	}
}

func TestUnpackRefusesWhatPackDidNotMake(t *testing.T) {
	whole, err := pack(goldenSession())
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := unpack(whole[:n]); err == nil {
			t.Errorf("the first %d bytes of %d unpack", n, len(whole))
		}
	}
	for promise, b := range map[string][]byte{
		"nothing":                      nil,
		"another version":              append([]byte{2}, whole[1:]...),
		"a length beyond the end":      {1, 200, 1},
		"a length that never ends":     bytes.Repeat([]byte{1, 0xff}, 20),
		"a bomb":                       bomb(t, 10<<20, ""),
		"just more than the limit":     bomb(t, maxUnpacked+1, ""),
		"blanks without end":           bomb(t, 0, "\x00\x00{}"+strings.Repeat(" ", maxUnpacked)),
		"an identity that is no JSON":  bomb(t, 0, "\x00\x00x"),
		"a header longer than it is":   bomb(t, 0, "\x7f"),
		"a payload longer than it is":  bomb(t, 0, "\x00\x7f"),
		"bytes that are no compressed": {1, 0, 0, 0xff, 0xff},
	} {
		if _, err := unpack(b); err == nil {
			t.Errorf("%s unpacks", promise)
		}
	}
}

// bomb packs zeros and a tail without regard to any limit.
func bomb(t *testing.T, zeros int, tail string) []byte {
	t.Helper()
	var buf bytes.Buffer
	buf.Write([]byte{packVersion, 0, 0})
	w, err := flate.NewWriterDict(&buf, flate.BestCompression, []byte(packDictionary))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(append(make([]byte, zeros), tail...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A cookie of one kind, or of another client, never passes for one of another.
func TestPurposesAndClientsHaveKeysOfTheirOwn(t *testing.T) {
	var sealers []*sealer
	for _, client := range []string{"client_1", "client_2"} {
		c := newCookies(&Options{ClientID: client, CookiePassword: "Zn4kPwq8vRt2LmXc6YbHs1Jd9Gf3Te7u", CookieMaxAge: longestMaxAge}, true)
		sealers = append(sealers, c.session, c.login, c.marker)
	}
	for i, sealing := range sealers {
		value, err := sealing.seal("name", []byte("plain"))
		if err != nil {
			t.Fatal(err)
		}
		for j, opening := range sealers {
			if _, ok := opening.open("name", value); ok != (i == j) {
				t.Errorf("sealer %d opens what %d sealed: %v", j, i, ok)
			}
		}
		if _, ok := sealing.open("another name", value); ok {
			t.Errorf("sealer %d opens another cookie's value", i)
		}
	}
}

func TestStateIsComparedWhole(t *testing.T) {
	f := newFlow("", "")
	state := f.stateParam()
	for _, other := range []string{"", state[:42], state + "A", "A" + state[1:] + "x", newFlow("", "").stateParam()} {
		if f.hasState(other) {
			t.Errorf("%q passes for %q", other, state)
		}
	}
	if !f.hasState(state) {
		t.Error("the state does not pass for itself")
	}
}

func TestPackedFlows(t *testing.T) {
	f := newFlow("/a?b", "state")
	packed := f.pack()
	got, ok := unpackFlow(packed)
	if !ok || got.state != f.state || got.verifier != f.verifier || got.returnTo != "/a?b" || got.callerState != "state" || got.startedAt.Unix() != f.startedAt.Unix() {
		t.Errorf("%+v", got)
	}
	for n := range packed {
		if _, ok := unpackFlow(packed[:n]); ok {
			t.Errorf("the first %d bytes of %d unpack", n, len(packed))
		}
	}
	if _, ok := unpackFlow(append(packed, 0)); ok {
		t.Error("a trailing byte unpacks")
	}
}

// RFC 7636, appendix B.
func TestCodeChallengeOfTheRFC(t *testing.T) {
	verifier, err := base64.RawURLEncoding.DecodeString("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
	if err != nil {
		t.Fatal(err)
	}
	f := flow{verifier: [32]byte(verifier)}
	if got := f.codeChallenge(); got != "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" {
		t.Errorf("challenge %q", got)
	}
}
