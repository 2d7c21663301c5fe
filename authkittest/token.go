package authkittest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"sync"
)

// maxTemplate bounds the rendered claims of a JWT template, in bytes.
const maxTemplate = 3072

// signingKey is a key of the key set.
type signingKey struct {
	id  string // kid
	rsa *rsa.PrivateKey
}

// keyPool holds the keys of all fakes in this process, made on demand: the first
// key of each is the same, and so is the one after a rotation, so that a hundred
// fakes cost one key. Their ids differ.
var keyPool struct {
	sync.Mutex
	keys []*rsa.PrivateKey
}

func pooledKey(i int) *rsa.PrivateKey {
	keyPool.Lock()
	defer keyPool.Unlock()

	for len(keyPool.keys) <= i {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic("authkittest: " + err.Error())
		}
		keyPool.keys = append(keyPool.keys, key)
	}
	return keyPool.keys[i]
}

// RotateKeys signs with a new key from now on. The old ones stay in the key set.
func (w *WorkOS) RotateKeys() {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.currentKey() // so that there is one to rotate away from
	w.rotations++
	w.keys = append(w.keys, signingKey{newID("sso_oidc_key_pair_"), pooledKey(w.rotations)})
}

// RetireKeys drops every key but the current one from the key set.
func (w *WorkOS) RetireKeys() {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.keys = []signingKey{w.currentKey()}
}

// currentKey makes the first key when it is first wanted: many tests sign
// nothing.
func (w *WorkOS) currentKey() signingKey {
	if len(w.keys) == 0 {
		w.keys = []signingKey{{newID("sso_oidc_key_pair_"), pooledKey(0)}}
	}
	return w.keys[len(w.keys)-1]
}

// Sign returns a token with any header and any claims, signed with the current
// key by RS256, whatever the header says. The header gets the alg, typ and kid
// that it should have where it does not mention them; a nil value leaves one out.
func (w *WorkOS) Sign(header, claims map[string]any) string {
	w.mu.Lock()
	key := w.currentKey()
	w.mu.Unlock()

	full := map[string]any{"alg": "RS256", "typ": "JWT", "kid": key.id}
	maps.Copy(full, header)
	maps.DeleteFunc(full, func(_ string, v any) bool { return v == nil })
	if claims == nil {
		claims = map[string]any{}
	}
	return key.sign(encode(full), encode(claims))
}

// sign writes a JWS in its compact form: RFC 7515, section 7.1, and RFC 7518,
// section 3.3.
func (k signingKey) sign(header, payload []byte) string {
	input := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, k.rsa, crypto.SHA256, digest[:])
	if err != nil {
		panic("authkittest: " + err.Error())
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// claims are written in the order in which they are listed, as production's are.
type claims []claim

type claim struct {
	name  string
	value any
}

func (c claims) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, claim := range c {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encode(claim.name))
		b.WriteByte(':')
		b.Write(encode(claim.value))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// replace sets a claim where it stands, or adds it at the end.
func (c claims) replace(name string, value any) claims {
	i := slices.IndexFunc(c, func(have claim) bool { return have.name == name })
	if i < 0 {
		return append(c, claim{name, value})
	}
	c[i].value = value
	return c
}

// accessToken signs the claims of a session in an organization, or in none.
func (w *WorkOS) accessToken(s *session, organizationID string) (string, *failure) {
	list, fail := w.claims(s, organizationID)
	if fail != nil {
		return "", fail
	}
	key := w.currentKey()
	header := claims{{"alg", "RS256"}, {"typ", "JWT"}, {"kid", key.id}}
	return key.sign(encode(header), encode(list)), nil
}

func (w *WorkOS) claims(s *session, organizationID string) (claims, *failure) {
	now := w.told(s.activeAt).Unix()
	list := claims{
		{"iss", w.issuer()},
		{"sub", s.userID},
		{"sid", s.id},
		{"jti", newID("")},
	}
	list = append(list, w.organizationClaims(s.userID, organizationID)...)
	list = append(list, claim{"client_id", w.settings.ClientID}, claim{"auth_time", w.told(s.authTime).Unix()})
	if s.impersonator != nil {
		list = append(list, claim{"act", map[string]string{"sub": s.impersonator.Email}})
	}
	list = append(list,
		claim{"exp", now + int64(w.settings.TokenLifetime.Seconds())},
		claim{"iat", now},
	)
	return w.applyTemplate(list)
}

func (w *WorkOS) organizationClaims(userID, organizationID string) claims {
	m, o := w.membership(userID, organizationID), w.organizations[organizationID]
	if m == nil || o == nil {
		return nil
	}
	list := claims{
		{"org_id", o.ID},
		{"role", m.Role},
		{"roles", m.Roles},
		{"permissions", append([]string{}, m.Permissions...)},
	}
	if len(o.Entitlements) > 0 {
		list = append(list, claim{"entitlements", o.Entitlements})
	}
	if len(o.FeatureFlags) > 0 {
		list = append(list, claim{"feature_flags", o.FeatureFlags})
	}
	return list
}

// applyTemplate adds Settings.Claims.
func (w *WorkOS) applyTemplate(list claims) (claims, *failure) {
	if len(w.settings.Claims) == 0 {
		return list, nil
	}
	if n := len(encode(w.settings.Claims)); n > maxTemplate {
		return nil, oauthFailure("token_too_big", "The rendered JWT template exceeds 3072 bytes.")
	}
	for _, name := range slices.Sorted(maps.Keys(w.settings.Claims)) {
		switch name {
		case "iss", "sub", "exp", "iat", "nbf", "jti": // not the template's to set
		default:
			list = list.replace(name, w.settings.Claims[name])
		}
	}
	return list, nil
}

// jwk is a public key: RFC 7517, section 4, and RFC 7518, section 6.3.1.
type jwk struct {
	KeyType   string `json:"kty"`
	Modulus   string `json:"n"`
	Exponent  string `json:"e"`
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

// serveKeySet answers GET /sso/jwks/{client_id}.
func (w *WorkOS) serveKeySet(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if r.PathValue("client_id") != w.settings.ClientID {
		refuse(rw, &failure{status: http.StatusNotFound, body: message{Message: "Could not find a key set for that client ID."}})
		return
	}
	w.currentKey()
	set := make([]jwk, len(w.keys))
	for i, key := range w.keys {
		set[i] = jwk{
			KeyType:   "RSA",
			Modulus:   base64.RawURLEncoding.EncodeToString(key.rsa.N.Bytes()),
			Exponent:  base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.rsa.E)).Bytes()),
			ID:        key.id,
			Algorithm: "RS256",
			Use:       "sig",
		}
	}
	writeJSON(rw, http.StatusOK, map[string]any{"keys": set})
}
