package authkit_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/authkit-go/authkit"
)

func sound() authkit.Options {
	return authkit.Options{
		APIKey: "sk_test_secret", ClientID: "client_123", RedirectURI: "https://app.example.com/callback", CookiePassword: next,
	}
}

func TestNewNamesEveryFaultAtOnce(t *testing.T) {
	_, err := authkit.New(authkit.Options{CookiePassword: "short secret", BaseURL: "ftp://x", LoginPath: "login"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"APIKey (WORKOS_API_KEY) is missing", "ClientID (WORKOS_CLIENT_ID) is missing", "RedirectURI (WORKOS_REDIRECT_URI) is missing",
		"CookiePassword (WORKOS_COOKIE_PASSWORD) has 12 characters, want at least 32", "BaseURL", "WORKOS_API_HOSTNAME", "LoginPath",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "short secret") || strings.Count(err.Error(), "authkit:") != 1 {
		t.Errorf("%q", err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, c := range []struct {
		promise string
		change  func(*authkit.Options)
		fault   string // empty: accepted
	}{
		{"sound options", func(*authkit.Options) {}, ""},
		{"31 characters", func(o *authkit.Options) { o.CookiePassword = next[:31] }, "has 31 characters"},
		{"32 characters", func(o *authkit.Options) { o.CookiePassword = next[:32] }, ""},
		{"nine distinct characters", func(o *authkit.Options) { o.CookiePassword = strings.Repeat("abcdefghi", 4) }, "9 distinct characters"},
		{"ten distinct characters", func(o *authkit.Options) { o.CookiePassword = strings.Repeat("badcfehgji", 4) }, ""},
		{"a placeholder in brackets", func(o *authkit.Options) { o.CookiePassword = "<" + next + ">" }, "placeholder"},
		{"a README's placeholder", func(o *authkit.Options) { o.CookiePassword = "your-secure-password-here-at-least-32-chars" }, "placeholder"},
		{"the command in place of its output", func(o *authkit.Options) { o.CookiePassword = "$(openssl rand -base64 32) # 1234567" }, "placeholder"},
		{"the alphabet", func(o *authkit.Options) { o.CookiePassword = "abcdefghijklmnopqrstuvwxyz0123456789" }, "placeholder"},
		{"an API key with a line break", func(o *authkit.Options) { o.APIKey = "sk_test_secret\n" }, "APIKey (WORKOS_API_KEY) has blanks"},
		{"a client id in quotes", func(o *authkit.Options) { o.ClientID = `"client_123"` }, "ClientID (WORKOS_CLIENT_ID) has blanks, quotes"},
		{"a weak old password", func(o *authkit.Options) { o.OldCookiePasswords = []string{next, "old"} }, "OldCookiePasswords[1] has 3 characters"},

		{"a relative redirect URI", func(o *authkit.Options) { o.RedirectURI = "/callback" }, "want an absolute URL"},
		{"a redirect URI without a path", func(o *authkit.Options) { o.RedirectURI = "https://app.example.com" }, "no path"},
		{"a redirect URI with a fragment", func(o *authkit.Options) { o.RedirectURI = "https://app.example.com/callback#x" }, "want an absolute URL"},
		{"a redirect URI with a user", func(o *authkit.Options) { o.RedirectURI = "https://u@app.example.com/callback" }, "want an absolute URL"},
		{"a redirect URI of another scheme", func(o *authkit.Options) { o.RedirectURI = "app://callback/x" }, "want an absolute URL"},
		{"http on the internet", func(o *authkit.Options) { o.RedirectURI = "http://app.example.com/callback" }, "want https"},
		{"http on a private address", func(o *authkit.Options) { o.RedirectURI = "http://192.168.1.2/callback" }, "want https"},
		{"http on a lookalike", func(o *authkit.Options) { o.RedirectURI = "http://localhost.evil.test/callback" }, "want https"},
		{"http on localhost", func(o *authkit.Options) { o.RedirectURI = "http://localhost:3000/callback" }, ""},
		{"http on a name under localhost", func(o *authkit.Options) { o.RedirectURI = "http://app.localhost/callback" }, ""},
		{"http on 127.0.0.2", func(o *authkit.Options) { o.RedirectURI = "http://127.0.0.2:3000/callback" }, ""},
		{"http on ::1", func(o *authkit.Options) { o.RedirectURI = "http://[::1]:3000/callback" }, ""},

		{"a login path with a query", func(o *authkit.Options) { o.LoginPath = "/login?x" }, "LoginPath"},
		{"a login path elsewhere", func(o *authkit.Options) { o.LoginPath = "//evil.test" }, "LoginPath"},
		{"a login path that is the callback", func(o *authkit.Options) { o.LoginPath = "/callback" }, "two different handlers"},
		{"the default login path as callback", func(o *authkit.Options) { o.RedirectURI = "https://app.example.com/login" }, "two different handlers"},
		{"a default return path elsewhere", func(o *authkit.Options) { o.LoginReturnTo = "https://x.test" }, "LoginReturnTo"},
		{"a default return path that is the login", func(o *authkit.Options) { o.LoginReturnTo = "/login" }, "LoginReturnTo"},
		{"a relative logout redirect", func(o *authkit.Options) { o.LogoutReturnTo = "/bye" }, "LogoutReturnTo"},

		{"a cookie name with a blank", func(o *authkit.Options) { o.CookieName = "my session" }, "CookieName"},
		{"the name of another cookie of ours", func(o *authkit.Options) { o.CookieName = "wos-auth-marker" }, "CookieName"},
		{"__Host- with a domain", func(o *authkit.Options) { o.CookieName, o.CookieDomain = "__Host-s", "example.com" }, "__Host-"},
		{"__Host- over http", func(o *authkit.Options) { o.CookieName, o.RedirectURI = "__host-s", "http://localhost/callback" }, "__Host-"},
		{"__Host- over https", func(o *authkit.Options) { o.CookieName = "__Host-s" }, ""},
		{"__Secure- over http", func(o *authkit.Options) { o.CookieName, o.RedirectURI = "__Secure-s", "http://localhost/callback" }, "__Secure-"},
		{"a domain above the host", func(o *authkit.Options) { o.CookieDomain = ".example.com" }, ""},
		{"another domain", func(o *authkit.Options) { o.CookieDomain = "example.org" }, "CookieDomain"},
		{"a domain below the host", func(o *authkit.Options) { o.CookieDomain = "x.app.example.com" }, "CookieDomain"},
		{"half a label", func(o *authkit.Options) { o.CookieDomain = "ample.com" }, "CookieDomain"},
		{"a top-level domain", func(o *authkit.Options) { o.CookieDomain = "com" }, "CookieDomain"},
		{"SameSite=Strict", func(o *authkit.Options) { o.CookieSameSite = http.SameSiteStrictMode }, "Strict"},
		{"no SameSite that exists", func(o *authkit.Options) { o.CookieSameSite = 9 }, "CookieSameSite"},
		{"a max-age below a minute", func(o *authkit.Options) { o.CookieMaxAge = time.Second }, "CookieMaxAge"},
		{"a max-age that no browser grants", func(o *authkit.Options) { o.CookieMaxAge = 401 * 24 * time.Hour }, "CookieMaxAge"},

		{"http to WorkOS", func(o *authkit.Options) { o.BaseURL = "http://api.workos.com" }, "BaseURL"},
		{"http to this machine", func(o *authkit.Options) { o.BaseURL = "http://localhost:4100/" }, ""},
		{"a custom authentication domain", func(o *authkit.Options) { o.BaseURL = "https://auth.example.com" }, ""},
	} {
		t.Run(c.promise, func(t *testing.T) {
			o := sound()
			c.change(&o)
			_, err := authkit.New(o)
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("error %v, want one with %q", err, c.fault)
			}
			if err != nil {
				expectNoSecrets(t, "the error", err.Error(), o)
			}
		})
	}
}

func TestNoFaultRepeatsAPasswordInAURL(t *testing.T) {
	o := sound()
	o.RedirectURI, o.BaseURL, o.LogoutReturnTo = "https://u:hunter2@app.test/callback", "https://u:hunter2@x.test", "//u:hunter2@x"
	if _, err := authkit.New(o); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

// clearEnv unsets what this machine may have set.
func clearEnv(t *testing.T) {
	for _, name := range []string{
		"API_KEY", "CLIENT_ID", "REDIRECT_URI", "COOKIE_PASSWORD", "COOKIE_NAME", "COOKIE_MAX_AGE",
		"COOKIE_DOMAIN", "COOKIE_SAMESITE", "ISSUER", "API_HOSTNAME", "API_HTTPS", "API_PORT",
	} {
		t.Setenv("WORKOS_"+name, "")
	}
}

func TestOptionsFromEnv(t *testing.T) {
	clearEnv(t)
	if o, err := authkit.OptionsFromEnv(); err != nil || o.BaseURL != "" || o.CookieMaxAge != 0 || o.Issuers != nil {
		t.Errorf("an empty environment: %+v, %v", o, err)
	}

	for name, value := range map[string]string{
		"WORKOS_API_KEY": "sk_1", "WORKOS_CLIENT_ID": "client_1", "WORKOS_REDIRECT_URI": "http://localhost:3000/callback",
		"WORKOS_COOKIE_PASSWORD": next, "WORKOS_COOKIE_NAME": "s", "WORKOS_COOKIE_MAX_AGE": "3600", "WORKOS_COOKIE_DOMAIN": "example.com",
		"WORKOS_COOKIE_SAMESITE": "None", "WORKOS_ISSUER": "https://a.test, https://b.test", "WORKOS_API_HOSTNAME": "localhost",
		"WORKOS_API_HTTPS": "false", "WORKOS_API_PORT": "4100",
	} {
		t.Setenv(name, value)
	}
	o, err := authkit.OptionsFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if o.APIKey != "sk_1" || o.ClientID != "client_1" || o.RedirectURI != "http://localhost:3000/callback" || o.CookiePassword != next ||
		o.CookieName != "s" || o.CookieMaxAge != time.Hour || o.CookieDomain != "example.com" || o.CookieSameSite != http.SameSiteNoneMode ||
		strings.Join(o.Issuers, "|") != "https://a.test|https://b.test" || o.BaseURL != "http://localhost:4100" {
		t.Errorf("%+v", o)
	}
}

func TestBaseURLFromEnv(t *testing.T) {
	for _, c := range []struct{ host, https, port, want string }{
		{"auth.example.com", "", "", "https://auth.example.com"},
		{"", "", "8443", "https://api.workos.com:8443"},
		{"localhost", "false", "", "http://localhost"},
		{"[::1]", "0", "4100", "http://[::1]:4100"},
		{"::1", "false", "4100", "http://[::1]:4100"},
	} {
		clearEnv(t)
		t.Setenv("WORKOS_API_HOSTNAME", c.host)
		t.Setenv("WORKOS_API_HTTPS", c.https)
		t.Setenv("WORKOS_API_PORT", c.port)
		if o, err := authkit.OptionsFromEnv(); err != nil || o.BaseURL != c.want {
			t.Errorf("%+v: %q, %v", c, o.BaseURL, err)
		}
	}
}

func TestOptionsFromEnvNamesEveryVariableThatIsJunk(t *testing.T) {
	clearEnv(t)
	junk := map[string]string{
		"WORKOS_COOKIE_MAX_AGE": "a week", "WORKOS_COOKIE_SAMESITE": "sometimes", "WORKOS_API_HTTPS": "maybe",
		"WORKOS_API_PORT": "70000", "WORKOS_API_HOSTNAME": "https://api.workos.com",
	}
	for name, value := range junk {
		t.Setenv(name, value)
	}
	_, err := authkit.OptionsFromEnv()
	for name := range junk {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v lacks %s", err, name)
		}
	}
}

// New makes no network call: a kit starts while WorkOS is down.
func TestNewCallsNobody(t *testing.T) {
	o := sound()
	o.HTTPClient = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		t.Error("New calls WorkOS")
		return nil, http.ErrServerClosed
	})}
	if _, err := authkit.New(o); err != nil {
		t.Fatal(err)
	}
}
