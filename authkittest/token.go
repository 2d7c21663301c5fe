package authkittest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"math/big"
	"net/http"
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

	return key.sign(header, claims)
}

// sign writes a JWS in its compact form: RFC 7515, section 7.1, and RFC 7518,
// section 3.3. Its header is as Sign says.
func (k signingKey) sign(header, claims map[string]any) string {
	full := map[string]any{"alg": "RS256", "typ": "JWT", "kid": k.id}
	maps.Copy(full, header)
	maps.DeleteFunc(full, func(_ string, v any) bool { return v == nil })
	if claims == nil {
		claims = map[string]any{}
	}
	input := base64.RawURLEncoding.EncodeToString(encode(full)) + "." + base64.RawURLEncoding.EncodeToString(encode(claims))
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, k.rsa, crypto.SHA256, digest[:])
	if err != nil {
		panic("authkittest: " + err.Error())
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// accessToken signs the claims of a session in an organization, or in none.
func (w *WorkOS) accessToken(s *session, organizationID string) (string, *failure) {
	if len(encode(w.settings.Claims)) > maxTemplate {
		return "", oauthFailure("token_too_big", "The rendered JWT template exceeds 3072 bytes.")
	}
	claims := map[string]any{
		"sid":       s.id,
		"client_id": w.settings.ClientID,
		"auth_time": w.told(s.authTime).Unix(),
	}
	if s.impersonator != nil {
		claims["act"] = map[string]string{"sub": s.impersonator.Email}
	}
	w.addOrganization(claims, s.userID, organizationID)
	maps.Copy(claims, w.settings.Claims)

	// What follows is not the template's to set.
	now := w.told(s.activeAt).Unix()
	delete(claims, "nbf")
	claims["iss"] = w.issuer()
	claims["sub"] = s.userID
	claims["jti"] = newID("")
	claims["iat"] = now
	claims["exp"] = now + int64(w.settings.TokenLifetime.Seconds())
	return w.currentKey().sign(nil, claims), nil
}

// addOrganization adds the claims of a user in an organization.
func (w *WorkOS) addOrganization(claims map[string]any, userID, organizationID string) {
	m, o := w.membership(userID, organizationID), w.organizations[organizationID]
	if m == nil || o == nil {
		return
	}
	claims["org_id"] = o.ID
	claims["role"] = m.Role
	claims["roles"] = m.Roles
	claims["permissions"] = append([]string{}, m.Permissions...) // [] rather than null
	if len(o.Entitlements) > 0 {
		claims["entitlements"] = o.Entitlements
	}
	if len(o.FeatureFlags) > 0 {
		claims["feature_flags"] = o.FeatureFlags
	}
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
