package authkit

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Options configures a Kit. The first four fields are required; the zero value
// of every other field is a safe default.
type Options struct {
	// APIKey is the secret key of the WorkOS environment, "sk_…".
	APIKey string

	// ClientID names the application to WorkOS, "client_…".
	ClientID string

	// RedirectURI is the absolute URL of the Callback handler, as registered in
	// the WorkOS dashboard. Its origin is the application's own: cookies are
	// Secure if it is https, and http is refused unless its host is loopback.
	RedirectURI string

	// CookiePassword is the secret from which the keys of all cookies are
	// derived (HKDF-SHA256, RFC 5869): at least 32 characters, ten of them
	// distinct. "openssl rand -base64 32" makes a good one. Every replica needs
	// the same.
	CookiePassword string

	// OldCookiePasswords open cookies and never seal them. To change the
	// password without signing anyone out, list the next one here on every
	// replica first; then swap the two; then, once the longest session is over,
	// remove the old one.
	OldCookiePasswords []string

	// LoginPath is the path at which Login is mounted and to which WithAuth
	// sends browsers. The default is "/login".
	LoginPath string

	// LoginReturnTo is the local path to which a login leads that began on no
	// page in particular. The default is "/".
	LoginReturnTo string

	// LogoutReturnTo is the absolute URL to which WorkOS sends the browser after
	// a logout. It must be registered as a sign-out redirect in the WorkOS
	// dashboard. The default is the one that the dashboard marks as default.
	LogoutReturnTo string

	// CookieName names the session cookie. The default is "wos-session". The
	// prefixes "__Host-" and "__Secure-" are checked for what they demand.
	CookieName string

	// CookieDomain widens the session to a domain and all its subdomains. The
	// default is the host that set the cookie and no other.
	CookieDomain string

	// CookieSameSite is the SameSite attribute of all cookies. The default is
	// http.SameSiteLaxMode. None forces Secure; Strict is refused, because
	// browsers would withhold the cookies on the way back from WorkOS.
	CookieSameSite http.SameSite

	// CookieMaxAge is how long a browser keeps the session cookie since it was
	// last written. The default, and the most that browsers grant, is 400 days;
	// how long the session itself lives is set in the WorkOS dashboard.
	CookieMaxAge time.Duration

	// RefreshBefore is how long before its expiry an access token is refreshed.
	// The default is 60 seconds, or 30 for tokens that live five minutes or
	// less. It is never more than a quarter of the token's life. A negative
	// value refreshes expired tokens only.
	RefreshBefore time.Duration

	// Issuers lists the acceptable issuers of access tokens, a trailing slash
	// aside. The default is any: the key set is this client's own, and WorkOS
	// uses several shapes of issuer.
	Issuers []string

	// SessionCacheSize is the number of verified sessions kept in memory, so
	// that a request whose cookie was seen before is neither unsealed nor
	// verified again. The default is 10,000, at roughly 4.5 KB each; a negative
	// value keeps none.
	SessionCacheSize int

	// OnLogin is called by Callback when WorkOS has authenticated a user, before
	// the session cookie is written. An error refuses the login with a 403 and reaches
	// OnError. It runs in the request's goroutine.
	OnLogin func(*http.Request, *Login) error

	// OnUnauthenticated answers a request that WithAuth turns away because
	// nobody is signed in. The default redirects a browser to LoginPath and
	// answers 401 to anything else.
	OnUnauthenticated http.Handler

	// OnError answers a request that failed for any other reason. Headers that
	// forbid caching and clear cookies are set already. The errors are
	// ErrUnavailable, ErrStateMismatch, ErrSessionTooLarge, *AuthorizationError,
	// *APIError or what OnLogin returned, perhaps wrapped. The default is a page
	// for a browser and application/problem+json for anything else, without the
	// text of the error.
	OnError func(http.ResponseWriter, *http.Request, error)

	// ClientIP returns the visitor's address, which is passed to WorkOS for its
	// logs and its bot detection. The default is RemoteAddr where that is a
	// public address, else nothing. Behind a proxy, return what that proxy says.
	ClientIP func(*http.Request) string

	// HTTPClient calls WorkOS. Its redirect policy and cookie jar are not used:
	// the client secret follows no redirect. The default has a transport of its
	// own and the environment's proxy.
	HTTPClient *http.Client

	// BaseURL is where WorkOS is reached: by default "https://api.workos.com".
	// A custom authentication domain goes here, or a fake for tests.
	BaseURL string

	// Logger receives what the kit has to say: refusals at debug level, outages
	// as warnings, faults of configuration as errors, each with a "reason".
	// Never a token, code, state, password or key. The default is
	// slog.Default().
	Logger *slog.Logger
}

// longestMaxAge is what browsers grant a cookie (draft-ietf-httpbis-rfc6265bis,
// section 5.6.2).
const longestMaxAge = 400 * 24 * time.Hour

// OptionsFromEnv returns the options that the environment sets, under the names
// that WorkOS's own kits use:
//
//	WORKOS_API_KEY          APIKey
//	WORKOS_CLIENT_ID        ClientID
//	WORKOS_REDIRECT_URI     RedirectURI
//	WORKOS_COOKIE_PASSWORD  CookiePassword
//	WORKOS_COOKIE_NAME      CookieName
//	WORKOS_COOKIE_MAX_AGE   CookieMaxAge, in seconds
//	WORKOS_COOKIE_DOMAIN    CookieDomain
//	WORKOS_COOKIE_SAMESITE  CookieSameSite: lax or none
//	WORKOS_ISSUER           Issuers, separated by commas
//	WORKOS_API_HOSTNAME     host of BaseURL; api.workos.com
//	WORKOS_API_HTTPS        false for an http BaseURL; true
//	WORKOS_API_PORT         port of BaseURL; the scheme's own
//
// An empty variable counts as unset. The error names every variable that cannot
// be read; what is missing or contradictory is left to New.
func OptionsFromEnv() (Options, error) {
	opts := Options{
		APIKey:         os.Getenv("WORKOS_API_KEY"),
		ClientID:       os.Getenv("WORKOS_CLIENT_ID"),
		RedirectURI:    os.Getenv("WORKOS_REDIRECT_URI"),
		CookiePassword: os.Getenv("WORKOS_COOKIE_PASSWORD"),
		CookieName:     os.Getenv("WORKOS_COOKIE_NAME"),
		CookieDomain:   os.Getenv("WORKOS_COOKIE_DOMAIN"),
	}
	var found faults

	if v := os.Getenv("WORKOS_COOKIE_MAX_AGE"); v != "" {
		seconds, err := strconv.ParseInt(v, 10, 32)
		if err != nil || seconds <= 0 {
			found.add("WORKOS_COOKIE_MAX_AGE is %q, want a number of seconds", v)
		}
		opts.CookieMaxAge = time.Duration(seconds) * time.Second
	}
	switch v := os.Getenv("WORKOS_COOKIE_SAMESITE"); strings.ToLower(v) {
	case "":
	case "lax":
		opts.CookieSameSite = http.SameSiteLaxMode
	case "none":
		opts.CookieSameSite = http.SameSiteNoneMode
	case "strict":
		opts.CookieSameSite = http.SameSiteStrictMode
	default:
		found.add("WORKOS_COOKIE_SAMESITE is %q, want lax or none", v)
	}
	for issuer := range strings.SplitSeq(os.Getenv("WORKOS_ISSUER"), ",") {
		if issuer = strings.TrimSpace(issuer); issuer != "" {
			opts.Issuers = append(opts.Issuers, issuer)
		}
	}
	opts.BaseURL = baseURLFromEnv(&found)

	return opts, found.err()
}

func baseURLFromEnv(found *faults) string {
	host, https, port := os.Getenv("WORKOS_API_HOSTNAME"), os.Getenv("WORKOS_API_HTTPS"), os.Getenv("WORKOS_API_PORT")
	if host == "" && https == "" && port == "" {
		return ""
	}

	base := url.URL{Scheme: "https", Host: host}
	if host == "" {
		base.Host = "api.workos.com"
	}
	if strings.ContainsAny(host, "/@?# ") {
		found.add("WORKOS_API_HOSTNAME is %q, want a host name without scheme or path", shown(host))
	}
	if https != "" {
		on, err := strconv.ParseBool(https)
		if err != nil {
			found.add("WORKOS_API_HTTPS is %q, want true or false", https)
		} else if !on {
			base.Scheme = "http"
		}
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			found.add("WORKOS_API_PORT is %q, want a port number", port)
		}
		base.Host = net.JoinHostPort(strings.Trim(base.Host, "[]"), port)
	}
	return base.String()
}

// setDefaults fills what was left empty, so that nothing after it asks whether it
// was.
func (o *Options) setDefaults() {
	setDefault(&o.LoginPath, "/login")
	setDefault(&o.LoginReturnTo, "/")
	setDefault(&o.CookieName, "wos-session")
	setDefault(&o.CookieMaxAge, longestMaxAge)
	setDefault(&o.SessionCacheSize, 10_000)
	setDefault(&o.BaseURL, "https://api.workos.com")
	if o.CookieSameSite == 0 || o.CookieSameSite == http.SameSiteDefaultMode {
		o.CookieSameSite = http.SameSiteLaxMode
	}
	if o.ClientIP == nil {
		o.ClientIP = remoteIP
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check reports every fault of the options at once. No fault repeats a secret.
func (o *Options) check() error {
	var found faults

	found.checkCredential("APIKey (WORKOS_API_KEY)", o.APIKey)
	found.checkCredential("ClientID (WORKOS_CLIENT_ID)", o.ClientID)
	o.checkRedirectURI(&found)
	found.checkPassword("CookiePassword (WORKOS_COOKIE_PASSWORD)", o.CookiePassword)
	for i, password := range o.OldCookiePasswords {
		found.checkPassword(fmt.Sprintf("OldCookiePasswords[%d]", i), password)
	}
	o.checkPaths(&found)
	o.checkCookie(&found)
	o.checkBaseURL(&found)

	return found.err()
}

func (o *Options) checkRedirectURI(found *faults) {
	const field = "RedirectURI (WORKOS_REDIRECT_URI)"
	if o.RedirectURI == "" {
		found.require("", field)
		return
	}
	u, ok := absoluteURL(o.RedirectURI)
	switch {
	case !ok:
		found.add("%s is %q, want an absolute URL such as https://app.example.com/callback", field, shown(o.RedirectURI))
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		found.add("%s is http on %s, want https: http is for loopback hosts only", field, u.Hostname())
	case u.Path == "" || u.Path == "/":
		found.add("%s has no path, want that of the Callback handler, such as /callback", field)
	}
}

func (o *Options) checkPaths(found *faults) {
	callback := pathOf(o.RedirectURI)
	if !localPath(o.LoginPath) || strings.ContainsAny(o.LoginPath, "?#%") {
		found.add("LoginPath is %q, want a local path without a query, such as /login", o.LoginPath)
	}
	if o.LoginPath == callback {
		found.add("LoginPath and the path of RedirectURI are both %q, want two different handlers", callback)
	}
	if path := pathOf(o.LoginReturnTo); !localPath(o.LoginReturnTo) || path == o.LoginPath || path == callback {
		found.add("LoginReturnTo is %q, want a local path other than those of Login and Callback", o.LoginReturnTo)
	}
	if o.LogoutReturnTo == "" {
		return
	}
	if _, ok := absoluteURL(o.LogoutReturnTo); !ok {
		found.add("LogoutReturnTo is %q, want an absolute URL registered as a sign-out redirect", shown(o.LogoutReturnTo))
	}
}

func (o *Options) checkCookie(found *faults) {
	const nameField, domainField = "CookieName (WORKOS_COOKIE_NAME)", "CookieDomain (WORKOS_COOKIE_DOMAIN)"
	redirectURI, _ := absoluteURL(o.RedirectURI)
	https := redirectURI != nil && redirectURI.Scheme == "https"
	secure := https || o.CookieSameSite == http.SameSiteNoneMode

	if plainCode(o.CookieName, "") == "" || strings.Contains(o.CookieName, "wos-auth-") {
		found.add("%s is %q, want at most 64 letters, digits or any of \"-_.\", and nothing with wos-auth-", nameField, o.CookieName)
	}
	if hasPrefixFold(o.CookieName, "__Host-") && (!secure || o.CookieDomain != "") {
		found.add("%s begins with __Host-, which demands https and no CookieDomain", nameField)
	}
	if hasPrefixFold(o.CookieName, "__Secure-") && !secure {
		found.add("%s begins with __Secure-, which demands https", nameField)
	}
	if o.CookieDomain != "" && redirectURI != nil && !withinDomain(redirectURI.Hostname(), o.CookieDomain) {
		found.add("%s is %q, want the host of RedirectURI or a domain above it", domainField, o.CookieDomain)
	}
	switch o.CookieSameSite {
	case http.SameSiteLaxMode, http.SameSiteNoneMode:
	case http.SameSiteStrictMode:
		found.add("CookieSameSite (WORKOS_COOKIE_SAMESITE) is Strict, which browsers withhold on the way back from WorkOS; want Lax or None")
	default:
		found.add("CookieSameSite (WORKOS_COOKIE_SAMESITE) is %d, want Lax or None", o.CookieSameSite)
	}
	if o.CookieMaxAge < time.Minute || o.CookieMaxAge > longestMaxAge {
		found.add("CookieMaxAge (WORKOS_COOKIE_MAX_AGE) is %v, want a minute to 400 days", o.CookieMaxAge)
	}
}

func (o *Options) checkBaseURL(found *faults) {
	const field = "BaseURL (WORKOS_API_HOSTNAME, WORKOS_API_HTTPS, WORKOS_API_PORT)"
	u, ok := absoluteURL(o.BaseURL)
	switch {
	case !ok || u.RawQuery != "":
		found.add("%s is %q, want a URL such as https://api.workos.com", field, shown(o.BaseURL))
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		found.add("%s is http on %s, want https: the API key would travel in the clear", field, u.Hostname())
	}
}

// faults collects what is wrong with a configuration.
type faults []string

func (f *faults) add(format string, args ...any) {
	*f = append(*f, fmt.Sprintf(format, args...))
}

func (f *faults) require(value, field string) {
	if value == "" {
		f.add("%s is missing", field)
	}
}

func (f *faults) err() error {
	if len(*f) == 0 {
		return nil
	}
	return errors.New("authkit: " + strings.Join(*f, "; "))
}

// checkCredential refuses what a .env file can do to a value.
func (f *faults) checkCredential(field, value string) {
	f.require(value, field)
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"'<>", r) }) {
		f.add("%s has blanks, quotes or other characters that no credential of WorkOS has", field)
	}
}

// checkPassword refuses what is short, monotonous or copied from documentation.
func (f *faults) checkPassword(field, password string) {
	if password == "" {
		f.require(password, field)
		return
	}

	runes := []rune(password)
	distinct := make(map[rune]bool)
	for _, r := range runes {
		distinct[r] = true
	}
	switch {
	case len(runes) < 32:
		f.add("%s has %d characters, want at least 32 (openssl rand -base64 32)", field, len(runes))
	case len(distinct) < 10:
		f.add("%s has %d distinct characters, want at least 10 (openssl rand -base64 32)", field, len(distinct))
	case isPlaceholder(password):
		f.add("%s is a placeholder, want a random one (openssl rand -base64 32)", field)
	}
}

// isPlaceholder recognises passwords that READMEs and .env templates print.
func isPlaceholder(password string) bool {
	letters := strings.Map(func(r rune) rune {
		if r < 0x80 && isAlphanumeric(byte(r)) {
			return r
		}
		return -1
	}, strings.ToLower(password))
	for _, phrase := range []string{
		"yourpassword", "yoursecure", "yourcookie", "yoursecret", "cookiepassword",
		"securepassword", "secretpassword", "changeme", "replaceme", "replacethis",
		"placeholder", "atleast32", "32character", "32char", "passwordhere", "opensslrand",
		"0123456789abcdef0123456789abcdef", "abcdefghijklmnopqrstuvwxyz",
	} {
		if strings.Contains(letters, phrase) {
			return true
		}
	}
	return strings.HasPrefix(password, "<") && strings.HasSuffix(password, ">")
}

// shown returns what an error may repeat of a URL: nothing if it may hold a
// password.
func shown(s string) string {
	if strings.Contains(s, "@") {
		return "…@…"
	}
	return s
}

// absoluteURL parses an http or https URL that has a host and neither user nor
// fragment (RFC 6749, section 3.1.2, forbids one in a redirect URI).
func absoluteURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || strings.Contains(s, "#") {
		return nil, false
	}
	return u, u.Scheme == "https" || u.Scheme == "http"
}

// isLoopback reports whether a host is this machine (RFC 6761, section 6.3, for
// the names).
func isLoopback(host string) bool {
	host = strings.ToLower(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// withinDomain reports whether a cookie for domain reaches host (RFC 6265,
// section 5.1.3). A leading dot of the domain is ignored, as browsers do.
func withinDomain(host, domain string) bool {
	host, domain = strings.ToLower(host), strings.ToLower(strings.TrimPrefix(domain, "."))
	if domain == "" || strings.ContainsAny(domain, "/:; ,") {
		return false
	}
	if host == domain {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err != nil && strings.Contains(domain, ".") && strings.HasSuffix(host, "."+domain)
}
