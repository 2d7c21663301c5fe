package authkittest_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

// keySet fetches the public keys by id, by hand: it is the fake that is on trial.
func (f *fixture) keySet() map[string]*rsa.PublicKey {
	f.Helper()
	var set struct {
		Keys []struct{ Kty, N, E, Kid, Alg, Use string }
	}
	r := f.get("/sso/jwks/"+f.clientID).expectStatus(f.T, 200)
	if err := json.Unmarshal(r.body, &set); err != nil {
		f.Fatal(err)
	}
	keys := map[string]*rsa.PublicKey{}
	for _, k := range set.Keys {
		if k.Kty != "RSA" || k.Alg != "RS256" || k.Use != "sig" || k.E != "AQAB" || k.Kid == "" {
			f.Fatalf("the key is %+v", k)
		}
		keys[k.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(f.base64url(k.N)), E: 65537}
	}
	return keys
}

func (f *fixture) base64url(s string) []byte {
	f.Helper()
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// header decodes the header of a token, without a look at the signature.
func (f *fixture) header(token string) map[string]any {
	f.Helper()
	var header map[string]any
	if err := json.Unmarshal(f.base64url(strings.Split(token, ".")[0]), &header); err != nil {
		f.Fatal(err)
	}
	return header
}

// signed tells whether a token is signed by a key of the key set.
func (f *fixture) signed(token string) bool {
	f.Helper()
	kid, _ := f.header(token)["kid"].(string)
	key := f.keySet()[kid]
	if key == nil {
		return false
	}
	dot := strings.LastIndex(token, ".")
	digest := sha256.Sum256([]byte(token[:dot]))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], f.base64url(token[dot+1:])) == nil
}

// verify returns the claims of a token that is signed by the key set.
func (f *fixture) verify(token string) map[string]any {
	f.Helper()
	if !f.signed(token) {
		f.Fatalf("the token is not signed by the key set: %s", token)
	}
	var claims map[string]any
	if err := json.Unmarshal(f.base64url(strings.Split(token, ".")[1]), &claims); err != nil {
		f.Fatal(err)
	}
	return claims
}

// session starts a session of Ada's and returns its claims and refresh token.
func (f *fixture) session(organizationID string) (claims map[string]any, refreshToken string) {
	f.Helper()
	auth, err := f.NewSession(f.ada.Email, organizationID)
	if err != nil {
		f.Fatal(err)
	}
	return f.verify(auth.AccessToken), auth.RefreshToken
}

func TestAccessToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		auth, err := f.NewSession(f.ada.Email, "")
		if err != nil {
			t.Fatal(err)
		}
		if h := f.header(auth.AccessToken); len(h) != 3 || h["alg"] != "RS256" || h["typ"] != "JWT" || h["kid"] == "" {
			t.Errorf("the header is %v", h)
		}

		claims := f.verify(auth.AccessToken)
		if sid := claims["sid"].(string); !strings.HasPrefix(sid, "session_") {
			t.Errorf("sid is %s", sid)
		}
		if jti := claims["jti"].(string); len(jti) != 26 {
			t.Errorf("jti is %s", jti)
		}
		delete(claims, "sid")
		delete(claims, "jti")
		now := float64(time.Now().Unix())
		want := map[string]any{
			"iss": "https://api.workos.test", "sub": f.ada.ID, "client_id": f.clientID,
			"auth_time": now, "iat": now, "exp": now + 300,
		}
		if !reflect.DeepEqual(claims, want) {
			t.Errorf("the claims are %v, want %v", claims, want)
		}
	})
}

func TestAccessTokenInAnOrganization(t *testing.T) {
	f := newFixture(t)
	orchard, quarry := f.twoOrganizations()
	for _, c := range []struct {
		organization string
		want         map[string]any
	}{
		{orchard.ID, map[string]any{
			"org_id": orchard.ID, "role": "admin", "roles": []any{"admin"},
			"permissions": []any{"reports:read", "reports:write"}, "entitlements": []any{"audit-logs"},
		}},
		{quarry.ID, map[string]any{
			"org_id": quarry.ID, "role": "member", "roles": []any{"member"},
			"permissions": []any{}, "feature_flags": []any{"beta"},
		}},
	} {
		claims, _ := f.session(c.organization)
		for _, name := range []string{"iss", "sub", "sid", "jti", "client_id", "auth_time", "iat", "exp"} {
			delete(claims, name)
		}
		if !reflect.DeepEqual(claims, c.want) {
			t.Errorf("the claims are %v, want %v", claims, c.want)
		}
	}
}

func TestIssuerLifetimeAndTemplate(t *testing.T) {
	f := newFixture(t)
	f.Configure(func(s *authkittest.Settings) {
		s.Issuer = "https://auth.example.com/"
		s.TokenLifetime = time.Hour
		s.Claims = map[string]any{
			"plan": "gold", "role": "captain", "client_id": "mine", // may be set
			"iss": "x", "sub": "x", "exp": 1, "iat": 1, "nbf": 1, "jti": "x", // may not
		}
	})
	claims, _ := f.session("")
	if claims["iss"] != "https://auth.example.com/" || claims["exp"].(float64)-claims["iat"].(float64) != 3600 {
		t.Errorf("the claims are %v", claims)
	}
	if claims["plan"] != "gold" || claims["role"] != "captain" || claims["client_id"] != "mine" {
		t.Errorf("the template is not applied: %v", claims)
	}
	if claims["sub"] != f.ada.ID || claims["jti"] == "x" || claims["nbf"] != nil {
		t.Errorf("the template has the last word: %v", claims)
	}
}

func TestTemplateIsBounded(t *testing.T) {
	f := newFixture(t)
	_, token := f.session("")
	fill := func(n int) {
		f.Configure(func(s *authkittest.Settings) { s.Claims = map[string]any{"x": strings.Repeat("x", n-len(`{"x":""}`))} })
	}
	fill(3073)
	f.refresh(token).expectOAuth(t, 400, "token_too_big")
	if _, err := f.NewSession(f.ada.Email, ""); err == nil || !strings.Contains(err.Error(), "token_too_big") {
		t.Errorf("got %v", err)
	}
	fill(3072)
	f.refresh(token).expectStatus(t, 200) // a failure does not use it up
}

func TestKeySetBelongsToItsClient(t *testing.T) {
	f := newFixture(t)
	body := f.get("/sso/jwks/client_other").expectStatus(t, 404).decode(t)
	if body["message"] == "" || body["keys"] != nil {
		t.Errorf("got %v", body)
	}
	if h := f.get("/sso/jwks/" + f.clientID).Header.Get("Content-Type"); !strings.HasPrefix(h, "application/json") {
		t.Errorf("Content-Type is %s", h)
	}
}

func TestRotation(t *testing.T) {
	f := newFixture(t)
	before := f.Sign(nil, nil)
	f.RotateKeys()
	after := f.Sign(nil, nil)
	if len(f.keySet()) != 2 || !f.signed(before) || !f.signed(after) || f.header(before)["kid"] == f.header(after)["kid"] {
		t.Error("a rotation does not keep the old key")
	}
	f.RetireKeys()
	if len(f.keySet()) != 1 || f.signed(before) || !f.signed(after) {
		t.Error("the old key outlives its retirement")
	}
}

func TestKeyIDsAreUnique(t *testing.T) {
	one, two := newFixture(t), newFixture(t)
	if one.header(one.Sign(nil, nil))["kid"] == two.header(two.Sign(nil, nil))["kid"] {
		t.Error("two environments share a key id")
	}
}

func TestSignAnything(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		header map[string]any
		want   map[string]any // without kid
		kid    bool
	}{
		{nil, map[string]any{"alg": "RS256", "typ": "JWT"}, true},
		{map[string]any{"alg": "none", "crit": []any{"x"}}, map[string]any{"alg": "none", "typ": "JWT", "crit": []any{"x"}}, true},
		{map[string]any{"kid": nil, "typ": nil}, map[string]any{"alg": "RS256"}, false},
	} {
		token := f.Sign(c.header, map[string]any{"sub": "<&>"})
		got := f.header(token)
		if _, ok := got["kid"]; ok != c.kid {
			t.Errorf("the header is %v", got)
		}
		delete(got, "kid")
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("the header is %v, want %v", got, c.want)
		}
		if c.kid && f.verify(token)["sub"] != "<&>" {
			t.Errorf("the claims are %v", f.verify(token))
		}
	}
	if payload := string(f.base64url(strings.Split(f.Sign(nil, nil), ".")[1])); payload != "{}" {
		t.Errorf("no claims are %s", payload)
	}
}
