package authkit_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// accepts has WorkOS answer an exchange with a token and reports whether the
// login succeeded.
func (a *application) accepts(t *testing.T, token string) bool {
	t.Helper()
	b := a.visitor()
	callback := a.authorize(begin(t, b, "/login"))
	body, err := json.Marshal(map[string]any{
		"user": map[string]any{"id": "user_01ADA", "email": ada}, "access_token": token, "refresh_token": "ref",
	})
	if err != nil {
		t.Fatal(err)
	}
	a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Status: 200, Body: string(body)})
	p := b.stay().get(callback)
	switch p.StatusCode {
	case http.StatusFound:
		return true
	case http.StatusServiceUnavailable, http.StatusInternalServerError:
		if b.cookies()["wos-session"] != "" {
			t.Error("a refused token is sealed")
		}
		return false
	}
	t.Fatalf("status %s", p.Status)
	return false
}

type object map[string]any

// goodClaims are those of a token that is accepted, changed by more.
func (a *application) goodClaims(more object) object {
	now := time.Now().Unix()
	c := object{
		"iss": a.workos.URL(), "sub": "user_01ADA", "sid": "session_01X",
		"client_id": a.opts.ClientID, "iat": now, "exp": now + 300,
	}
	for name, value := range more {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

func TestTokenClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		now := time.Now().Unix()
		for _, c := range []struct {
			promise string
			claims  object
			accept  bool
		}{
			{"a good token", nil, true},
			{"claims that nobody knows", object{"urn:x": object{"a": []any{1, "b", nil}}}, true},
			{"no iat", object{"iat": nil}, true},
			{"no client_id, as on an emulator", object{"client_id": nil}, true},
			{"no iss", object{"iss": nil}, true},
			{"any aud", object{"aud": "whoever"}, true},
			{"claims that are null", object{"org_id": json.RawMessage("null"), "roles": json.RawMessage("null")}, true},

			{"no exp", object{"exp": nil}, false},
			{"exp as a string", object{"exp": "1795252631"}, false},
			{"exp with a fraction", object{"exp": json.RawMessage(fmt.Sprintf("%d.5", now+300))}, false},
			{"exp with an exponent", object{"exp": json.RawMessage("1.9e9")}, false},
			{"exp beyond an int64", object{"exp": json.RawMessage("99999999999999999999")}, false},
			{"exp below zero", object{"exp": -1}, false},
			{"exp null", object{"exp": json.RawMessage("null")}, false},
			{"exp now", object{"exp": now}, false},
			{"exp in a second", object{"exp": now + 1}, true},
			{"exp in 400 days", object{"exp": now + 400*86400}, true},
			{"exp in more than 400 days", object{"exp": now + 400*86400 + 1}, false},
			{"expired", object{"iat": now - 600, "exp": now - 300}, false},
			{"iat 30 s ahead", object{"iat": now + 30}, true},
			{"iat 31 s ahead", object{"iat": now + 31}, false},
			{"iat as a string", object{"iat": "now"}, false},
			{"nbf 30 s ahead", object{"nbf": now + 30}, true},
			{"nbf 31 s ahead", object{"nbf": now + 31}, false},
			{"no sub", object{"sub": nil}, false},
			{"an empty sub", object{"sub": ""}, false},
			{"a sub that is a number", object{"sub": 7}, false},
			{"another user's sub", object{"sub": "user_01EVE"}, false},
			{"no sid", object{"sid": nil}, false},
			{"an empty sid", object{"sid": ""}, false},
			{"a sid that is a list", object{"sid": []string{"a"}}, false},
			{"another client", object{"client_id": "client_other"}, false},
			{"a client that is a list", object{"client_id": []string{a.opts.ClientID}}, false},
			{"an issuer that is a number", object{"iss": 1}, false},
			{"permissions that are a string", object{"permissions": "all"}, false},
			{"roles of mixed types", object{"roles": []any{"admin", 1}}, false},
			{"an act that is a string", object{"act": "eve"}, false},
			{"an act", object{"act": object{"sub": "support@example.test"}}, true},
			{"names in capitals are others", object{"sub": nil, "SUB": "user_01ADA"}, false},
		} {
			if got := a.accepts(t, a.workos.Sign(nil, a.goodClaims(c.claims))); got != c.accept {
				t.Errorf("%s: accepted %v", c.promise, got)
			}
		}
	})
}

func TestTokenHeader(t *testing.T) {
	a := newApplication(t)
	for _, c := range []struct {
		promise string
		header  object
		accept  bool
	}{
		{"as WorkOS sends it", nil, true},
		{"no typ", object{"typ": nil}, true},
		{"members that nobody knows", object{"x": 1}, true},
		{"typ in other letters", object{"typ": "jwt"}, false},
		{"another typ", object{"typ": "at+jwt"}, false},
		{"typ null", object{"typ": json.RawMessage("null")}, false},
		{"alg none", object{"alg": "none"}, false},
		{"alg HS256", object{"alg": "HS256"}, false},
		{"alg RS384", object{"alg": "RS384"}, false},
		{"alg PS256", object{"alg": "PS256"}, false},
		{"alg in small letters", object{"alg": "rs256"}, false},
		{"no alg", object{"alg": nil}, false},
		{"no kid", object{"kid": nil}, false},
		{"an empty kid", object{"kid": ""}, false},
		{"a kid that is a number", object{"kid": 1}, false},
		{"an unknown kid", object{"kid": "other"}, false},
		{"a kid that is too long", object{"kid": strings.Repeat("k", 257)}, false},
		{"crit", object{"crit": []string{"exp"}}, false},
		{"b64", object{"b64": true}, false},
		{"cty", object{"cty": "JWT"}, false},
		{"jku", object{"jku": "https://evil.test/keys"}, false},
		{"x5u", object{"x5u": "https://evil.test/cert"}, false},
		{"jwk", object{"jwk": object{"kty": "RSA"}}, false},
	} {
		t.Run(c.promise, func(t *testing.T) {
			if got := a.accepts(t, a.workos.Sign(c.header, a.goodClaims(nil))); got != c.accept {
				t.Errorf("accepted %v", got)
			}
		})
	}
}

func TestTokenSpelling(t *testing.T) {
	a := newApplication(t)
	b64 := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(a.goodClaims(nil))
	if err != nil {
		t.Fatal(err)
	}
	own := newSigner(t, a.workos, 2048)
	resign := own.sign
	rawHeader, rawPayload := `{"alg":"RS256","typ":"JWT","kid":"own"}`, string(claims)
	good := own.sign(rawHeader, rawPayload)
	parts := strings.Split(good, ".")
	header, payload, signature := parts[0], parts[1], parts[2]

	for _, c := range []struct {
		promise string
		token   string
		accept  bool
	}{
		{"as it was signed", good, true},
		{"an empty signature", header + "." + payload + ".", false},
		{"no signature", header + "." + payload, false},
		{"four segments", good + ".", false},
		{"five segments, as JWE has", good + "." + payload + "." + header, false},
		{"nothing", ".", false},
		{"dots", "..", false},
		{"JSON serialization", `{"payload":"` + payload + `","signatures":[{"protected":"` + header + `","signature":"` + signature + `"}]}`, false},
		{"padding", good + "=", false},
		{"a line break inside", header + ".\n" + payload + "." + signature, false},
		{"a blank before", " " + good, false},
		{"the other base64 alphabet", header + "." + payload + "." + strings.NewReplacer("-", "+", "_", "/").Replace(signature) + "+", false},
		{"unused bits set in the signature", good[:len(good)-1] + flipUnusedBit(good[len(good)-1]), false},
		{"a changed payload", header + "." + b64([]byte(strings.Replace(rawPayload, "user_01ADA", "user_01EVE", 1))) + "." + signature, false},
		{"a signature of another token", header + "." + payload + "." + strings.Split(own.sign(rawHeader, rawPayload+" "), ".")[2], false},
		{"HMAC with the public key", own.hmac(rawPayload), false},
		{"a duplicate claim", resign(rawHeader, strings.Replace(rawPayload, "{", `{"sub":"user_01EVE",`, 1)), false},
		{"a duplicate claim in escapes", resign(rawHeader, strings.Replace(rawPayload, "{", `{"s\u0075b":"user_01EVE",`, 1)), false},
		{"a duplicate inside another claim", resign(rawHeader, strings.Replace(rawPayload, "{", `{"x":{"a":1,"a":2},`, 1)), false},
		{"a duplicate inside a list", resign(rawHeader, strings.Replace(rawPayload, "{", `{"x":[{"a":1,"a":2}],`, 1)), false},
		{"a duplicate header member", resign(strings.Replace(rawHeader, "{", `{"alg":"none",`, 1), rawPayload), false},
		{"white space", resign(rawHeader, strings.Replace(rawPayload, "{", "{ \t\n", 1)), true},
		{"trailing data", resign(rawHeader, rawPayload+"{}"), false},
		{"a list for a payload", resign(rawHeader, "["+rawPayload+"]"), false},
		{"a string for a payload", resign(rawHeader, `"x"`), false},
		{"an empty payload", header + ".." + signature, false},
		{"invalid UTF-8", resign(rawHeader, strings.Replace(rawPayload, "session_01X", "session_\xff", 1)), false},
		{"a null for a header", resign("null", rawPayload), false},
		{"more than 512 members", resign(rawHeader, "{"+members(513)+strings.TrimPrefix(rawPayload, "{")), false},
		{"more than 16 KiB", resign(rawHeader, strings.Replace(rawPayload, "{", `{"x":"`+strings.Repeat("x", 16<<10)+`",`, 1)), false},
	} {
		t.Run(c.promise, func(t *testing.T) {
			if got := a.accepts(t, c.token); got != c.accept {
				t.Errorf("accepted %v", got)
			}
		})
	}
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":1,`, i)
	}
	return b.String()
}

// flipUnusedBit returns another spelling of the same last byte: 256 bytes leave
// four bits of the last character unused.
func flipUnusedBit(last byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, last)^1])
}

// signer signs headers and payloads as they are, which authkittest does not.
type signer struct{ key *rsa.PrivateKey }

// newSigner returns one whose key is the only one that WorkOS publishes.
func newSigner(t *testing.T, w *authkittest.WorkOS, bits int) signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	set := fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"own","e":"AQAB","n":"%s"}]}`, base64.RawURLEncoding.EncodeToString(key.N.Bytes()))
	w.Fail(authkittest.KeySet, -1, authkittest.Fault{Status: 200, Body: set})
	return signer{key}
}

func (s signer) sign(header, payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, s.key, crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return input + "." + b64(signature)
}

// hmac returns a token whose secret is the public key.
func (s signer) hmac(payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(`{"alg":"HS256","kid":"own"}`)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, x509.MarshalPKCS1PublicKey(&s.key.PublicKey))
	mac.Write([]byte(input))
	return input + "." + b64(mac.Sum(nil))
}

func TestIssuers(t *testing.T) {
	for issuer, accepted := range map[string]bool{
		"https://api.workos.com":                            true,
		"https://api.workos.com/":                           true,
		"https://auth.example.test":                         true,
		"https://api.workos.com/user_management/client_123": false,
		"https://api.workos.com//":                          false,
		"https://API.workos.com":                            false,
		"https://api.workos.com.evil.test":                  false,
		"":                                                  false,
	} {
		a := newApplication(t, func(o *authkit.Options) {
			o.Issuers = []string{"https://api.workos.com", "https://auth.example.test/"}
		})
		if got := a.accepts(t, a.workos.Sign(nil, a.goodClaims(object{"iss": issuer}))); got != accepted {
			t.Errorf("issuer %q: accepted %v", issuer, got)
		}
	}
}

func TestKeySets(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	point, err := curve.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	strange := []string{
		`{"kty":"RSA","e":"AQAB","kid":"small","n":"` + b64(small.N.Bytes()) + `"}`,
		`{"kty":"EC","crv":"P-256","kid":"curve","x":"` + b64(point[1:33]) + `","y":"` + b64(point[33:]) + `"}`,
		`{"kty":"oct","kid":"secret","k":"c2VjcmV0"}`,
		`{"kty":"new"}`, `"key"`, `null`, `7`,
	}

	for _, c := range []struct {
		promise string
		change  func(own string) string
		accept  bool
	}{
		{"WorkOS's own", func(own string) string { return `{"keys":[` + own + `]}` }, true},
		{"without alg and use", func(own string) string {
			return `{"keys":[` + strings.NewReplacer(`"alg":"RS256",`, "", `,"alg":"RS256"`, "", `"use":"sig",`, "", `,"use":"sig"`, "").Replace(own) + `]}`
		}, true},
		{"among keys of other kinds", func(own string) string { return `{"keys":[` + strings.Join(strange, ",") + "," + own + `]}` }, true},
		{"only keys of other kinds", func(string) string { return `{"keys":[` + strings.Join(strange, ",") + `]}` }, false},
		{"for encryption", func(own string) string {
			return `{"keys":[` + strings.Replace(own, `"use":"sig"`, `"use":"enc"`, 1) + `]}`
		}, false},
		{"for another algorithm", func(own string) string {
			return `{"keys":[` + strings.Replace(own, "RS256", "RS512", 1) + `]}`
		}, false},
		{"without a kid", func(own string) string {
			return `{"keys":[` + strings.Replace(own, `"kid"`, `"kjd"`, 1) + `]}`
		}, false},
		{"empty", func(string) string { return `{"keys":[]}` }, false},
		{"no set", func(string) string { return `{}` }, false},
		{"a list", func(own string) string { return `[` + own + `]` }, false},
		{"HTML", func(string) string { return `<html>` }, false},
		{"nothing", func(string) string { return `` }, false},
	} {
		t.Run(c.promise, func(t *testing.T) {
			a := newApplication(t)
			set := answer(a.workos, request("GET", "/sso/jwks/"+a.opts.ClientID)).body
			own := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(set), `{"keys":[`), `]}`)
			a.workos.Fail(authkittest.KeySet, -1, authkittest.Fault{Status: 200, Body: c.change(own)})
			if got := a.accepts(t, a.workos.Sign(nil, a.goodClaims(nil))); got != c.accept {
				t.Errorf("accepted %v; key set %.200s", got, c.change(own))
			}
		})
	}
}

func TestKeysMustBeStrongEnough(t *testing.T) {
	for bits, accepted := range map[int]bool{1024: false, 2040: false, 2048: true} {
		a := newApplication(t)
		claims, err := json.Marshal(a.goodClaims(nil))
		if err != nil {
			t.Fatal(err)
		}
		token := newSigner(t, a.workos, bits).sign(`{"alg":"RS256","kid":"own"}`, string(claims))
		if got := a.accepts(t, token); got != accepted {
			t.Errorf("a key of %d bits: accepted %v", bits, got)
		}
	}
}

func TestUnknownKeyIDsCauseAtMostTwoFetchesAMinute(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = time.Hour })
		var browsers []*browser
		for range 59 {
			browsers = append(browsers, a.signIn())
		}
		a.workos.RotateKeys()
		a.workos.RetireKeys()
		a.restart()
		before := a.workos.Calls(authkittest.KeySet)
		for _, b := range browsers {
			b.get("/dashboard").expectSession(t)
			time.Sleep(time.Second)
		}
		if n := a.workos.Calls(authkittest.KeySet) - before; n > 2 {
			t.Errorf("%d fetches in a minute", n)
		}
	})
}
