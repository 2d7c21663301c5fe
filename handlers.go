package authkit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// LoginParams are what a login can be told beforehand. The zero value is a plain
// login. Field by field they are parameters of WorkOS's authorization request
// (https://workos.com/docs/reference/authkit/authentication/get-authorization-url);
// empty ones are not sent.
type LoginParams struct {
	// ReturnTo is the local path to which the login leads. One that is not
	// local becomes LoginReturnTo.
	ReturnTo string

	// State is the application's own, at most 2,048 bytes. It stays in the
	// browser, sealed, and comes back in Login.State; WorkOS never sees it.
	State string

	OrganizationID  string        // sign in to this organization
	ScreenHint      string        // "sign-in", the default, or "sign-up"
	LoginHint       string        // the e-mail address to begin with
	DomainHint      string        // the domain of the organization's identity provider
	ConnectionID    string        // an SSO connection, in the place of the hosted page
	Provider        string        // "GoogleOAuth" and the like; "authkit", the hosted page, by default
	Prompt          string        // "login" asks for credentials again
	MaxAge          time.Duration // credentials are asked for if that old, in whole seconds; negative: always
	InvitationToken string        // from the link in an invitation
}

// Login is what OnLogin is told of a login that is about to succeed. Printing or
// logging it shows no token.
type Login struct {
	Session     *Session
	OAuthTokens *OAuthTokens // of the identity provider; nil unless the dashboard asks for them
	State       string       // LoginParams.State

	// ReturnTo is where the browser goes next. OnLogin may change it to another
	// local path.
	ReturnTo string
}

// Format prints who logs in, and no token, for every verb.
func (l Login) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "login to %v", l.Session) }

// LogValue logs who logs in, and no token.
func (l Login) LogValue() slog.Value { return slog.GroupValue(slog.Any("session", l.Session)) }

// Login sends the browser to WorkOS to sign in.
//
// Method GET or POST; query parameter return_to, a local path to come back to.
// It sets a login cookie for ten minutes and answers 302, or 303 to a POST. Mount
// it at LoginPath, and register its URL as the sign-in URL in the WorkOS
// dashboard: it always begins a login of its own. A prefetch or a background
// request gets 401 and begins nothing; HEAD gets 204.
func (k *Kit) Login(w http.ResponseWriter, r *http.Request) {
	k.StartLogin(w, r, LoginParams{ReturnTo: singleParam(r.URL.Query(), "return_to", maxReturnTo)})
}

// SignUp is Login with WorkOS's page to create an account.
func (k *Kit) SignUp(w http.ResponseWriter, r *http.Request) {
	k.StartLogin(w, r, LoginParams{
		ReturnTo:   singleParam(r.URL.Query(), "return_to", maxReturnTo),
		ScreenHint: "sign-up",
	})
}

// StartLogin is Login with parameters: for a handler of your own that knows the
// organization, the e-mail address or where to go next. It writes the response.
//
// Every login has a state and a PKCE challenge of its own, 32 random bytes each
// (RFC 6749, section 10.12; RFC 7636), so that any number of tabs may log in at
// once and finish in any order. The verifier never leaves the sealed cookie. Of
// logins that were not finished, a browser keeps the last five.
func (k *Kit) StartLogin(w http.ResponseWriter, r *http.Request, p LoginParams) {
	keepPrivate(w.Header(), new([2]string))
	switch {
	case r.Method == http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, HEAD, POST")
		k.fail(w, r, errMethod)
		return
	case isBackground(r):
		k.fail(w, r, errNotPage)
		return
	}

	f := newFlow(k.returnPath(p.ReturnTo), p.State)
	if err := k.cookies.setLogin(w, r, f); err != nil {
		k.fail(w, r, err)
		return
	}
	redirect(w, r, k.client.AuthorizationURL(AuthorizationParams{
		RedirectURI:     k.redirectURI,
		State:           f.stateParam(),
		CodeChallenge:   f.codeChallenge(),
		Provider:        p.Provider,
		ConnectionID:    p.ConnectionID,
		OrganizationID:  p.OrganizationID,
		ScreenHint:      p.ScreenHint,
		LoginHint:       p.LoginHint,
		DomainHint:      p.DomainHint,
		Prompt:          p.Prompt,
		MaxAge:          maxAgeParam(p.MaxAge),
		InvitationToken: p.InvitationToken,
	}))
}

// isBackground reports whether a request cannot show a page, as far as the
// browser says: what says nothing may be a person with curl, and htmx leaves the
// page when it is told to.
func isBackground(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return isPrefetch(r) || mode != "" && mode != "navigate" && !isHTMX(r)
}

// maxAgeParam returns max_age: 0 asks for credentials in any case.
func maxAgeParam(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return strconv.FormatInt(int64(max(d, 0)/time.Second), 10)
}

// Callback completes a login: WorkOS sends the browser here.
//
// Method GET; parameters code and state, or error. It reads the login cookie of
// that state, redeems the code, verifies the access token, calls OnLogin, sets
// the session cookie and answers 302 to the page that the login began on. On
// every way out it deletes the login cookie.
//
// A callback that belongs to no login of this browser is answered with 400 and a
// link to log in, or, where the browser has a session already, as after a click
// on "back", with 302 to LoginReturnTo. A code without a state, as WorkOS sends
// for impersonation and for links in e-mails, begins a login at LoginPath. An
// error from WorkOS is a page with our own words for it. While WorkOS cannot be
// reached, the answer is 503. Options.OnError replaces the pages.
func (k *Kit) Callback(w http.ResponseWriter, r *http.Request) {
	keepPrivate(w.Header(), new([2]string))
	switch {
	case r.Method == http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET, HEAD")
		k.fail(w, r, errMethod)
		return
	case isPrefetch(r):
		k.fail(w, r, errNotPage)
		return
	}

	query := r.URL.Query()
	code := singleParam(query, "code", maxParam)
	state := singleParam(query, "state", maxParam)
	f, found := k.cookies.findLogin(r, state)
	if found {
		// A login cookie works once, however the callback ends.
		k.cookies.clear(w, k.cookies.loginCookieName(state))
	}

	switch {
	case query.Has("error"):
		k.failTowards(w, r, authorizationError(query), returnToOf(f))
	case code != "" && !query.Has("state"):
		k.logger.InfoContext(r.Context(), "authkit: a callback without state begins a login; set the sign-in URL in the WorkOS dashboard", "reason", "callback_without_state")
		redirect(w, r, k.loginPath)
	case code == "" || state == "":
		k.fail(w, r, errBadCallback)
	case !found || !f.timely():
		k.callbackOfNoLogin(w, r, f)
	default:
		k.finishLogin(w, r, f, code)
	}
}

// callbackOfNoLogin answers a callback whose login this browser did not begin,
// has finished, or has left alone for too long.
func (k *Kit) callbackOfNoLogin(w http.ResponseWriter, r *http.Request, f *flow) {
	for _, c := range k.carried(k.cookies.sessionValues(r)) {
		if !k.refreshes.hasEnded(c.Session) {
			redirect(w, r, k.loginReturnTo)
			return
		}
	}
	k.failTowards(w, r, ErrStateMismatch, returnToOf(f))
}

// finishLogin redeems the code of a login that this browser began.
func (k *Kit) finishLogin(w http.ResponseWriter, r *http.Request, f *flow, code string) {
	// A browser that leaves does not break off what WorkOS has begun.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), requestTimeout)
	defer cancel()

	login, parts, err := k.completeLogin(ctx, r, f, code)
	if err != nil {
		k.failTowards(w, r, err, f.returnTo)
		return
	}
	if err := k.cookies.setMarker(w); err != nil {
		k.failTowards(w, r, err, f.returnTo)
		return
	}
	k.cookies.setSession(w, r, parts)

	returnTo := k.returnPath(login.ReturnTo)
	if returnTo == "" {
		returnTo = k.loginReturnTo
	}
	redirect(w, r, returnTo)
}

// completeLogin returns the login and its sealed session, which is no one's
// before the token is verified and OnLogin agrees.
func (k *Kit) completeLogin(ctx context.Context, r *http.Request, f *flow, code string) (*Login, []string, error) {
	auth, err := k.client.exchange(ctx, code, f.codeVerifier(), k.visitorOf(r))
	if err != nil {
		return nil, nil, exchangeError(err)
	}
	s, err := k.admit(ctx, auth)
	if err != nil {
		return nil, nil, err
	}
	login := &Login{Session: s, OAuthTokens: auth.OAuthTokens, State: f.callerState, ReturnTo: f.returnTo}
	if k.onLogin != nil {
		if err := k.onLogin(r, login); err != nil {
			k.revoke(ctx, s)
			return nil, nil, fmt.Errorf("%w: %w", errLoginRefused, err)
		}
	}
	// WorkOS may go on with a session whose logout it never heard of.
	k.refreshes.revive(s)
	parts, err := k.cookies.sealSession(auth)
	return login, parts, err
}

// revoke ends a session that nobody will have. Otherwise WorkOS would sign the
// same user in again without asking, and who was refused could not try another
// account.
func (k *Kit) revoke(ctx context.Context, s *Session) {
	if err := k.client.RevokeSession(ctx, s.ID); err != nil {
		k.logger.WarnContext(ctx, "authkit: cannot end the session of a refused login", "reason", "revoke_failed", "error", err)
	}
}

// exchangeError tells a code that WorkOS refuses from a set-up that it refuses
// and from WorkOS being down.
func exchangeError(err error) error {
	diagnosed := diagnose(err)
	var apiErr *APIError
	if errors.Is(diagnosed, errMisconfigured) || !errors.As(err, &apiErr) || transient(apiErr.StatusCode) {
		return diagnosed
	}
	return fmt.Errorf("%w: %w", errCodeRefused, err)
}

// admit verifies what WorkOS has just issued and makes it a session. A token
// that is not acceptable now will not be after another login either, so that is
// a fault of the configuration.
func (k *Kit) admit(ctx context.Context, auth *Authentication) (*Session, error) {
	if size := len(auth.AccessToken); size > maxToken {
		return nil, tooLarge(auth, fmt.Sprintf("an access token of %d bytes, want at most %d", size, maxToken))
	}
	t, err := parseToken(auth.AccessToken)
	if err != nil {
		return nil, misconfigured(err, "what BaseURL (WORKOS_API_HOSTNAME) points at issues tokens that are none of WorkOS's")
	}
	switch err := k.tokens.verify(ctx, t, maxKeySetAgeIssued); {
	case errors.Is(err, ErrUnavailable):
		return nil, err
	case errors.Is(err, errUnknownKey):
		// WorkOS signs with a key that it does not publish yet.
		return nil, unavailable(err)
	case errors.Is(err, errTokenExpired):
		return nil, misconfigured(err, "WorkOS has just issued this token, so this machine's clock is wrong")
	case err != nil:
		return nil, misconfigured(err, "WorkOS has just issued this token")
	case t.subject != auth.User.ID:
		return nil, unavailable(fmt.Errorf("WorkOS answered with a token of %.64q for user %.64q", t.subject, auth.User.ID))
	}
	return k.newSession(auth, t), nil
}

// Logout ends the session, here and at WorkOS.
//
// It deletes every cookie of the kit, whatever the state of the access token,
// and sends the browser to WorkOS's logout, which leads on to LogoutReturnTo;
// without a session it leads to "/". From then on this process refuses the
// session; other replicas do once its access token has expired.
//
// Method POST from the application's own pages is answered with 303. GET is
// answered with 302 if the user clicked a link on the application's own pages
// or typed the address; any other page, such as one that a link on another site
// leads to, asks, and changes nothing. What is no page, such as an image, a
// prefetch or fetch, gets 405; HEAD gets 204.
func (k *Kit) Logout(w http.ResponseWriter, r *http.Request) {
	keepPrivate(w.Header(), new([2]string))
	switch r.Method {
	case http.MethodPost:
		if !k.isSameOrigin(r) {
			k.fail(w, r, errCrossOrigin)
			return
		}
	case http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodGet:
		if !isNavigation(r) {
			w.Header().Set("Allow", "POST")
			k.fail(w, r, errMethod)
			return
		}
		if !k.isOwnClick(r) {
			askToLogOut.writePage(w)
			return
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		k.fail(w, r, errMethod)
		return
	}

	destination := "/"
	if s := k.endSession(r); s != nil && s.ID != "" {
		destination = k.client.LogoutURL(s.ID, k.logoutReturnTo)
	}
	k.cookies.clearAll(w, r)
	redirect(w, r, destination)
}

// endSession has this process refuse the sessions that the request carries, and
// what they were refreshed to, and returns the newest.
func (k *Kit) endSession(r *http.Request) *Session {
	var newest *Session
	for _, c := range k.carried(k.cookies.sessionValues(r)) {
		s := c.Session
		k.refreshes.end(s)
		if renewed := k.refreshes.newest(s); renewed != nil {
			s = renewed.session
			k.refreshes.end(s)
		}
		if newest == nil || s.ExpiresAt.After(newest.ExpiresAt) {
			newest = s
		}
	}
	return newest
}

// maxParam bounds the parameters of the callback, in bytes.
const maxParam = 1024

// singleParam returns a parameter that appears once and is not too long, and the
// empty string otherwise: of two, whoever checks might see one and whoever uses
// it the other.
func singleParam(query url.Values, name string, longest int) string {
	values := query[name]
	if len(values) != 1 || len(values[0]) > longest {
		return ""
	}
	return values[0]
}

func authorizationError(query url.Values) *AuthorizationError {
	return &AuthorizationError{
		Code:        plainCode(singleParam(query, "error", maxParam), "unknown"),
		Description: singleParam(query, "error_description", 512),
	}
}

// returnToOf returns where a login was to lead, if it is known.
func returnToOf(f *flow) string {
	if f == nil {
		return ""
	}
	return f.returnTo
}
