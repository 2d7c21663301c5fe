package authkittest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

// validate asks whether an API key is good, and returns the raw answer.
func (f *fixture) validate(value string) string {
	f.Helper()
	return string(f.validation(`{"value":"`+value+`"}`, f.bearer()...).expectStatus(f.T, 200).body)
}

func (f *fixture) validation(body string, header ...string) response {
	f.Helper()
	return f.do(f.request("POST", "/api_keys/validations", strings.NewReader(body), header...))
}

func TestValidateAPIKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // from 2000-01-01 on
		f := newFixture(t)
		f.AddAPIKey(authkittest.APIKey{
			ID: "api_key_1", Value: "sk_ci_key", Name: "CI Key", OrganizationID: "org_1", Permissions: []string{"reports:read"},
		})
		f.AddAPIKey(authkittest.APIKey{
			ID: "api_key_2", Value: "sk_hers", OrganizationID: "org_1", UserID: "user_1", ExpiresAt: time.Now().Add(time.Hour),
		})

		const none = `{"api_key":null}`
		ci := `{"api_key":{"object":"api_key","id":"api_key_1","owner":{"type":"organization","id":"org_1"},"name":"CI Key",` +
			`"obfuscated_value":"sk_..._key","last_used_at":null,"expires_at":null,"permissions":["reports:read"],` +
			`"created_at":"2000-01-01T00:00:00.000Z","updated_at":"2000-01-01T00:00:00.000Z"}}`
		hers := `{"api_key":{"object":"api_key","id":"api_key_2","owner":{"type":"user","id":"user_1","organization_id":"org_1"},"name":"",` +
			`"obfuscated_value":"sk_...hers","last_used_at":null,"expires_at":"2000-01-01T01:00:00.000Z","permissions":[],` +
			`"created_at":"2000-01-01T00:00:00.000Z","updated_at":"2000-01-01T00:00:00.000Z"}}`
		for value, want := range map[string]string{"sk_ci_key": ci, "sk_hers": hers, "sk_unknown": none, "": none} {
			if got := f.validate(value); got != want {
				t.Errorf("got\n%s, want\n%s", got, want)
			}
		}

		time.Sleep(time.Minute)
		f.validate("sk_ci_key")
		time.Sleep(time.Minute)
		if got, want := f.validate("sk_ci_key"), strings.Replace(ci, `"last_used_at":null`, `"last_used_at":"2000-01-01T00:01:00.000Z"`, 1); got != want {
			t.Errorf("got\n%s, want\n%s", got, want)
		}
	})
}

func TestAPIKeyThatIsNotGood(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*fixture, authkittest.APIKey)
	}{
		{"expired", func(f *fixture, k authkittest.APIKey) { time.Sleep(time.Hour) }},
		{"revoked", func(f *fixture, k authkittest.APIKey) { f.RevokeAPIKey(k.ID) }},
		{"replaced", func(f *fixture, k authkittest.APIKey) { f.AddAPIKey(authkittest.APIKey{ID: k.ID}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				other := f.AddAPIKey(authkittest.APIKey{Name: "other"})
				k := f.AddAPIKey(authkittest.APIKey{ExpiresAt: time.Now().Add(time.Hour)})
				c.end(f, k)
				if got := f.validate(k.Value); got != `{"api_key":null}` {
					t.Errorf("got %s", got)
				}
				if got := f.validate(other.Value); !strings.Contains(got, other.ID) {
					t.Errorf("the other key: %s", got)
				}
			})
		})
	}
}

func TestAddAPIKeyFillsIn(t *testing.T) {
	f := newFixture(t)
	k, other := f.AddAPIKey(authkittest.APIKey{Name: "CI"}), f.AddAPIKey(authkittest.APIKey{})
	if !strings.HasPrefix(k.ID, "api_key_") || !strings.HasPrefix(k.Value, "sk_") || k.CreatedAt.IsZero() || k.Name != "CI" || !k.ExpiresAt.IsZero() {
		t.Errorf("got %+v", k)
	}
	if k.ID == other.ID || k.Value == other.Value {
		t.Errorf("two keys are %+v and %+v", k, other)
	}
	if !f.RevokeAPIKey(k.ID) || f.RevokeAPIKey(k.ID) || f.RevokeAPIKey("api_key_x") {
		t.Error("RevokeAPIKey ends what is over, or not what is there")
	}
}

func TestValidationErrors(t *testing.T) {
	f := newFixture(t)
	k := f.AddAPIKey(authkittest.APIKey{})
	body := `{"value":"` + k.Value + `"}`
	f.validation(body).expectPlain(t, 401, "unauthorized")
	f.validation(body, "Authorization", "Bearer "+k.Value).expectPlain(t, 401, "unauthorized")
	for _, malformed := range []string{"", "{", "{}", `{"value":1}`, `{"value":null}`, `{"key":"` + k.Value + `"}`} {
		if r := f.validation(malformed, f.bearer()...).expectStatus(t, 422).decode(t); len(r) != 1 || r["message"] == "" {
			t.Errorf("%s: got %v", malformed, r)
		}
	}

	f.Fail(authkittest.ValidateAPIKey, 1, authkittest.Fault{Status: 503})
	f.validation(body, f.bearer()...).expectStatus(t, 503)
	if n := f.Calls(authkittest.ValidateAPIKey); n != 9 {
		t.Errorf("%d calls are counted", n)
	}
}
