package authkittest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The providers that an authorization request may name besides authkit.
var providers = []string{
	"AppleOAuth", "BitbucketOAuth", "GitHubOAuth", "GitLabOAuth", "GoogleOAuth", "IntuitOAuth", "LinkedInOAuth",
	"MicrosoftOAuth", "SalesforceOAuth", "SlackOAuth", "VercelMarketplaceOAuth", "VercelOAuth", "XeroOAuth",
}

// codeChallenge is base64url(SHA-256(verifier)): RFC 7636, section 4.2.
var codeChallenge = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// authorization is an authorization request that may be answered to its
// redirect URI.
type authorization struct {
	redirectURI    string
	state          []string // as sent; none where it was not
	provider       string
	connectionID   string
	organizationID string
	challenge      string
	signUp         bool
	loginHint      string
	prompt         string
	maxAge         *time.Duration

	method string // authentication_method of a sign-in that it leads to

	page         string // the transaction of its page, once there is one
	openedAt     time.Time
	browser      *hostedSession // of who signed in on the page and has an organization to choose
	impersonator *impersonator  // and who they really are
}

// serveAuthorize answers GET /user_management/authorize: with a redirect where
// the browser is signed in to WorkOS already, with the sign-in page otherwise.
func (w *WorkOS) serveAuthorize(rw http.ResponseWriter, r *http.Request) {
	a, fail := w.readAuthorization(r.URL.Query())
	if fail != nil {
		w.refusePage(rw, r, fail)
		return
	}
	if code, description := w.resolve(a); code != "" {
		a.redirectError(rw, code, description)
		return
	}
	if browser := w.browser(r); browser != nil && browser.answers(a) {
		w.signIn(rw, a, w.users[browser.userID], browser)
		return
	}
	w.openPage(rw, a, "")
}

// readAuthorization checks what is the developer's to get right. WorkOS shows
// these errors itself: where to send them is in doubt, or they would reach users.
func (w *WorkOS) readAuthorization(query url.Values) (*authorization, *failure) {
	invalid := func(text string) (*authorization, *failure) {
		return nil, plainFailure(http.StatusBadRequest, "invalid_request", text)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		// RFC 6749, section 3.1: parameters MUST NOT be included more than once.
		if len(query[name]) > 1 && name != "provider_scopes" {
			return invalid(name + " is given more than once")
		}
	}

	redirectURI := query.Get("redirect_uri")
	switch {
	case query.Get("client_id") == "":
		return invalid("client_id is required")
	case query.Get("client_id") != w.settings.ClientID:
		return nil, plainFailure(http.StatusBadRequest, "invalid_client_id", "client_id is not known: "+query.Get("client_id"))
	case redirectURI == "":
		return invalid("redirect_uri is required")
	case !allowed(redirectURI, w.settings.RedirectURIs):
		return nil, plainFailure(http.StatusBadRequest, "invalid_redirect_uri", "redirect_uri is not registered: "+redirectURI)
	case query.Get("response_type") != "code":
		return invalid("response_type must be code")
	}

	a := &authorization{
		redirectURI:    redirectURI,
		state:          query["state"],
		provider:       query.Get("provider"),
		connectionID:   query.Get("connection_id"),
		organizationID: query.Get("organization_id"),
		challenge:      query.Get("code_challenge"),
		loginHint:      query.Get("login_hint"),
		prompt:         query.Get("prompt"),
	}
	method, hint := query.Get("code_challenge_method"), query.Get("screen_hint")
	switch {
	case (a.challenge != "" || method != "") && method != "S256":
		return invalid("code_challenge_method must be S256")
	case method != "" && !codeChallenge.MatchString(a.challenge):
		return invalid("code_challenge must be 43 characters of base64url")
	case hint != "" && hint != "sign-in" && hint != "sign-up":
		return invalid("screen_hint must be sign-in or sign-up")
	case a.provider != "authkit" && (hint != "" || query.Get("max_age") != ""):
		return invalid("screen_hint and max_age are for provider=authkit")
	}
	a.signUp = hint == "sign-up"
	if v := query.Get("max_age"); v != "" {
		seconds, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return invalid("max_age must be a number of seconds")
		}
		maxAge := time.Duration(seconds) * time.Second
		a.maxAge = &maxAge
	}
	return a, nil
}

// resolve settles how the user is to sign in, and where to. Its errors go back to
// the application.
func (w *WorkOS) resolve(a *authorization) (code, description string) {
	switch {
	case a.provider == "" && a.connectionID == "" && a.organizationID == "":
		return "invalid_connection_selector", "One of provider, connection_id and organization_id is required."
	case a.provider != "" && a.provider != "authkit" && !slices.Contains(providers, a.provider):
		return "invalid_connection_selector", "The provider is not known: " + a.provider
	case a.connectionID != "" && (a.provider != "" || a.organizationID != ""):
		return "ambiguous_connection_selector", "connection_id does not go with provider or organization_id."
	}

	a.method = a.provider
	switch a.provider {
	case "authkit":
		a.method = "Password"
	case "":
		a.method = "SSO"
	}
	if a.connectionID != "" {
		o := w.organizationByConnection(a.connectionID)
		if o == nil {
			return "connection_invalid", "The connection does not exist: " + a.connectionID
		}
		a.organizationID = o.ID
	}
	if a.organizationID != "" && w.organizations[a.organizationID] == nil {
		return "organization_invalid", "The organization does not exist: " + a.organizationID
	}
	return "", ""
}

// allowed tells whether WorkOS may send a browser to an address: a registered
// one, or one of the developer's own machine or of a test.
func allowed(address string, registered []string) bool {
	if slices.Contains(registered, address) {
		return true
	}
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	return origin(u) == AppURL || isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// redirectCode sends the browser back with a new authorization code.
func (w *WorkOS) redirectCode(rw http.ResponseWriter, a *authorization, c *code) {
	maps.DeleteFunc(w.codes, func(_ string, c *code) bool { return c.expired() })
	c.challenge, c.issuedAt = a.challenge, time.Now()
	id := newID("auth_code_")
	w.codes[id] = c
	a.redirect(rw, url.Values{"code": {id}})
}

// redirectError sends the browser back with an error: RFC 6749, section 4.1.2.1.
func (a *authorization) redirectError(rw http.ResponseWriter, code, description string) {
	a.redirect(rw, url.Values{"error": {code}, "error_description": {description}})
}

// redirect keeps the query and the fragment that the redirect URI has, and gives
// back the state that came with the request.
func (a *authorization) redirect(rw http.ResponseWriter, query url.Values) {
	if a.state != nil {
		query["state"] = a.state
	}
	address, fragment, hasFragment := strings.Cut(a.redirectURI, "#")
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	address += separator + query.Encode()
	if hasFragment {
		address += "#" + fragment
	}
	redirect(rw, address)
}

// redirect writes Location as it is: http.Redirect would clean its path.
func redirect(rw http.ResponseWriter, address string) {
	rw.Header().Set("Location", address)
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(http.StatusFound)
}

// signIn sends a user back to the application who has shown who they are, or
// asks for their organization.
func (w *WorkOS) signIn(rw http.ResponseWriter, a *authorization, user *User, browser *hostedSession) {
	organizationID, choose, problem := w.organizationFor(a, user, browser)
	if choose && a.provider == "authkit" {
		a.browser = browser
	}
	switch {
	case problem == "" && a.browser == nil:
		w.finishSignIn(rw, a, browser, &code{organizationID: organizationID, choose: choose})
	case a.page == "":
		w.openPage(rw, a, problem)
	default:
		w.showPage(rw, a, problem)
	}
}

// finishSignIn completes c and sends it. In a browser of their own the user stays
// signed in.
func (w *WorkOS) finishSignIn(rw http.ResponseWriter, a *authorization, browser *hostedSession, c *code) {
	if browser.fresh {
		browser.fresh, browser.authTime = false, time.Now()
	}
	browser.organizationID = c.organizationID
	c.userID, c.authTime = browser.userID, browser.authTime
	c.method = w.methodIn(c.organizationID, a.method)

	by := a.impersonator
	if by == nil {
		c.browser = w.keepBrowser(rw, browser)
		by = w.takeImpersonator(w.users[c.userID])
	}
	w.impersonated(c, by)
	delete(w.pages, a.page)
	w.redirectCode(rw, a, c)
}

// organizationFor returns the organization of a sign-in, whether it is yet to be
// chosen, or why the user cannot enter.
func (w *WorkOS) organizationFor(a *authorization, user *User, browser *hostedSession) (id string, choose bool, problem string) {
	if a.organizationID != "" {
		if w.membership(user.ID, a.organizationID) == nil {
			return "", false, fmt.Sprintf("%s is not a member of %s.", user.Email, cmp.Or(w.organizations[a.organizationID].Name, a.organizationID))
		}
		return a.organizationID, false, ""
	}
	all := w.organizationsOf(user.ID)
	switch {
	case len(all) == 0:
		return "", false, ""
	case len(all) == 1:
		return all[0].ID, false, ""
	case w.membership(user.ID, browser.organizationID) != nil:
		return browser.organizationID, false, "" // what this browser chose before
	}
	return "", true, ""
}
