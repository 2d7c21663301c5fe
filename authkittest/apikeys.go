package authkittest

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"time"
)

// APIKey is a key that a customer of the application made, for programs of their
// own. It is not Settings.APIKey, with which the application asks WorkOS about it.
type APIKey struct {
	ID             string // "api_key_…"; the default is a new one
	Value          string // the secret, "sk_…"; the default is a random one
	Name           string
	OrganizationID string // the owner
	UserID         string // who owns it in that organization; the default is nobody, the organization does
	Permissions    []string

	CreatedAt time.Time // the default is now
	ExpiresAt time.Time // the default is never
}

// apiKey is an APIKey and when something was done to it or with it.
type apiKey struct {
	APIKey
	updatedAt, lastUsedAt time.Time
}

// AddAPIKey adds k and returns it with its id, its value and its time filled in.
// A key of the same id is replaced. A program that presents k.Value is the
// owner's until ExpiresAt, or until RevokeAPIKey.
func (w *WorkOS) AddAPIKey(k APIKey) APIKey {
	w.mu.Lock()
	defer w.mu.Unlock()

	added := &apiKey{updatedAt: time.Now()}
	k.ID = cmp.Or(k.ID, newID("api_key_"))
	k.Value = cmp.Or(k.Value, "sk_"+rand.Text())
	k.CreatedAt = cmp.Or(k.CreatedAt, added.updatedAt)
	if old := w.apiKeys[k.ID]; old != nil {
		added.lastUsedAt = old.lastUsedAt
	}
	added.APIKey = k
	added.Permissions = append([]string{}, k.Permissions...) // [] rather than null
	w.apiKeys[k.ID] = added
	return k
}

// RevokeAPIKey ends the API key with an id, as its owner would in the settings of
// the application, and tells whether there was one to end.
func (w *WorkOS) RevokeAPIKey(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()

	_, found := w.apiKeys[id]
	delete(w.apiKeys, id)
	return found
}

// apiKeyByValue returns nil where no key has the value, or none that is good.
func (w *WorkOS) apiKeyByValue(value string) *apiKey {
	for _, k := range w.apiKeys {
		if k.Value == value && (k.ExpiresAt.IsZero() || time.Now().Before(k.ExpiresAt)) {
			return k
		}
	}
	return nil
}

// apiKeyJSON is an API key as the API tells one.
type apiKeyJSON struct {
	Object          string      `json:"object"`
	ID              string      `json:"id"`
	Owner           apiKeyOwner `json:"owner"`
	Name            string      `json:"name"`
	ObfuscatedValue string      `json:"obfuscated_value"`
	LastUsedAt      *string     `json:"last_used_at"`
	ExpiresAt       *string     `json:"expires_at"`
	Permissions     []string    `json:"permissions"`
	CreatedAt       *string     `json:"created_at"`
	UpdatedAt       *string     `json:"updated_at"`
}

type apiKeyOwner struct {
	Type           string `json:"type"` // organization or user
	ID             string `json:"id"`
	OrganizationID string `json:"organization_id,omitempty"` // of a user
}

func (w *WorkOS) apiKeyJSON(k *apiKey) *apiKeyJSON {
	owner := apiKeyOwner{Type: "organization", ID: k.OrganizationID}
	if k.UserID != "" {
		owner = apiKeyOwner{"user", k.UserID, k.OrganizationID}
	}
	return &apiKeyJSON{
		Object:          "api_key",
		ID:              k.ID,
		Owner:           owner,
		Name:            k.Name,
		ObfuscatedValue: "sk_..." + k.Value[max(0, len(k.Value)-4):],
		LastUsedAt:      w.timestamp(k.lastUsedAt),
		ExpiresAt:       w.timestamp(k.ExpiresAt),
		Permissions:     k.Permissions,
		CreatedAt:       w.timestamp(k.CreatedAt),
		UpdatedAt:       w.timestamp(k.updatedAt),
	}
}

// serveValidateAPIKey answers POST /api_keys/validations: with null for a key
// that is unknown, expired or revoked. last_used_at tells of the use before.
func (w *WorkOS) serveValidateAPIKey(rw http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	value, ok := body["value"].(string)
	if err != nil || !ok {
		refuse(rw, &failure{status: http.StatusUnprocessableEntity, body: message{Message: "value must be a string"}})
		return
	}

	var reply struct {
		APIKey *apiKeyJSON `json:"api_key"`
	}
	if k := w.apiKeyByValue(value); k != nil {
		reply.APIKey = w.apiKeyJSON(k)
		k.lastUsedAt = time.Now()
	}
	writeJSON(rw, http.StatusOK, reply)
}
