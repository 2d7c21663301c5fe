package authkit

import (
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"time"
)

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// pagePolicy allows a page of ours what it has: its own style and icon. There is
// no form-action, which Chromium applies to the redirects after a form, too, and
// ours lead to WorkOS.
const pagePolicy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"

// answer is what a person or a program is told when a request cannot be served.
// None of it comes from the request or from WorkOS.
type answer struct {
	Status int
	Title  string
	Text   string
	Links  []link // where to go on, the likeliest first
	Form   string // label of a button that posts to the page's own address

	retryAfter time.Duration
	reason     string // for the log
}

// link leads to a local address.
type link struct{ URL, Label string }

// fail is the one way out for an error: it says in our own words what is wrong,
// to the visitor, and the cause to the log. Options.OnError replaces the former.
func (k *Kit) fail(w http.ResponseWriter, r *http.Request, err error) {
	k.failTowards(w, r, err, k.currentPage(r))
}

// failTowards is fail for a request that was on its way to another page.
func (k *Kit) failTowards(w http.ResponseWriter, r *http.Request, err error, returnTo string) {
	a := k.explain(err, returnTo)
	k.log(r, a, err)
	if a.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(a.retryAfter/time.Second)))
	}
	if k.onError != nil {
		k.onError(w, r, err)
		return
	}
	a.write(w, r)
}

func (k *Kit) log(r *http.Request, a *answer, err error) {
	log := k.logger.DebugContext
	switch a.Status {
	case http.StatusServiceUnavailable:
		log = k.logger.WarnContext
	case http.StatusInternalServerError:
		log = k.logger.ErrorContext
	}
	log(r.Context(), "authkit: request refused", "reason", a.reason, "status", a.Status, "error", err)
}

// Faults that no caller branches on.
var (
	errCookieLost   = errors.New("authkit: the browser does not keep the session cookie")
	errGuardedLogin = errors.New("authkit: Login or Callback is behind WithAuth, where nobody can reach it to log in")
	errBadCallback  = errors.New("authkit: the callback has no single code and state")
	errCrossOrigin  = errors.New("authkit: a request from another site")
	errNotPage      = errors.New("authkit: a login begins on a page, not in a background request")
	errMethod       = errors.New("authkit: method not allowed")
)

// explain maps every error to its answer.
func (k *Kit) explain(err error, returnTo string) *answer {
	login := k.loginURL(returnTo)
	again := []link{{login, "Sign in again"}}
	retry := again
	if returnTo != "" {
		retry = []link{{returnTo, "Try again"}, again[0]}
	}
	var (
		refusal       *loginRefusedError
		authorization *AuthorizationError
		misconfigured *configurationError
		down          *unavailableError
		apiErr        *APIError
	)
	switch {
	case errors.As(err, &refusal):
		return &answer{Status: http.StatusForbidden, reason: "login_refused",
			Title: "You cannot sign in here", Text: "This application did not accept your account. If you think it should, ask whoever runs it.",
			Links: []link{{login, "Sign in with another account"}}}
	case errors.As(err, &authorization):
		return explainAuthorization(authorization, again)
	case errors.Is(err, ErrStateMismatch):
		return &answer{Status: http.StatusBadRequest, reason: "state_mismatch",
			Title: "This sign-in is no longer valid", Text: "It took more than ten minutes, was opened in another browser, or has been used already. Nothing is lost: please sign in again.",
			Links: again}
	case errors.Is(err, errBadCallback):
		return &answer{Status: http.StatusBadRequest, reason: "bad_callback",
			Title: "This sign-in did not work", Text: "The address of this page is incomplete. Please sign in again.",
			Links: again}
	case errors.Is(err, errCookieLost):
		return &answer{Status: http.StatusBadRequest, reason: "cookie_lost",
			Title: "Your browser did not keep the sign-in", Text: "You signed in, but the cookie that says so did not come back. Please allow cookies for this site, or try a window that is not private, and sign in again.",
			Links: again}
	case errors.Is(err, ErrSessionTooLarge):
		return &answer{Status: http.StatusInternalServerError, reason: "session_too_large",
			Title: "You could not be signed in", Text: "Your account holds more than this application can remember. Whoever runs it has been told what to change."}
	case errors.Is(err, errLoginTooLarge):
		return &answer{Status: http.StatusInternalServerError, reason: "login_too_large",
			Title: "You could not be signed in", Text: "This application asks to remember too much during the sign-in. Whoever runs it has been told."}
	case errors.As(err, &misconfigured):
		return &answer{Status: http.StatusServiceUnavailable, reason: "misconfigured", retryAfter: longestRetry,
			Title: "Sign-in is not set up correctly", Text: "This application cannot accept what its sign-in service says. Whoever runs it has been told why.",
			Links: retry}
	case errors.Is(err, errGuardedLogin):
		return &answer{Status: http.StatusUnauthorized, reason: "login_behind_auth",
			Title: "Sign-in is not set up correctly", Text: "The page to sign in on can itself only be seen once signed in. Whoever runs this application has been told."}
	case errors.Is(err, errCrossOrigin):
		return &answer{Status: http.StatusForbidden, reason: "cross_origin",
			Title: "Do you want to sign out?", Text: "Another site asked for this, so we ask you.",
			Form: "Sign out"}
	case errors.Is(err, errNotPage):
		return &answer{Status: http.StatusUnauthorized, reason: "not_a_navigation",
			Title: "Please sign in", Text: "Signing in begins on a page of its own.",
			Links: []link{{login, "Sign in"}}}
	case errors.Is(err, errMethod):
		return &answer{Status: http.StatusMethodNotAllowed, reason: "method_not_allowed",
			Title: "Method not allowed", Text: "This address cannot be used in this way."}
	case errors.As(err, &apiErr) && !errors.As(err, &down):
		return &answer{Status: http.StatusBadRequest, reason: "code_refused",
			Title: "This sign-in did not work", Text: "The sign-in service did not accept it: it may have been used already. Please sign in again.",
			Links: again}
	}
	a := &answer{Status: http.StatusServiceUnavailable, reason: "unavailable", retryAfter: usualRetry,
		Title: "Sign-in is unavailable for a moment", Text: "You are still signed in if you were. Please try again shortly.",
		Links: retry}
	if down != nil || errors.As(err, &down) {
		a.retryAfter = min(max(down.retryAfter.Round(time.Second), usualRetry), longestRetry)
	}
	return a
}

// How long a 503 asks to wait.
const (
	usualRetry   = 2 * time.Second
	longestRetry = 30 * time.Second
)

// explainAuthorization answers for the errors that WorkOS documents for the
// callback; the set is open.
func explainAuthorization(err *AuthorizationError, again []link) *answer {
	a := &answer{Status: http.StatusBadRequest, reason: "authorization_" + err.Code,
		Title: "You were not signed in", Text: "The sign-in service could not sign you in. Please try again, or ask whoever runs this application.",
		Links: again}
	switch err.Code {
	case "access_denied":
		a.Status, a.Text = http.StatusForbidden, "The sign-in was cancelled or not allowed."
	case "organization_invalid":
		a.Text = "The organization you chose is not one of this application's."
	case "connection_invalid", "connection_unlinked", "connection_strategy_invalid", "ambiguous_connection_selector", "invalid_connection_selector":
		a.Text = "Your organization's sign-in is not connected to this application correctly. Please ask whoever runs it."
	}
	return a
}

// write sends the answer as a page to a browser that shows it and as
// application/problem+json (RFC 9457) to anything else.
func (a *answer) write(w http.ResponseWriter, r *http.Request) {
	if isNavigation(r) {
		a.writePage(w)
		return
	}
	a.writeProblem(w, "")
}

func (a *answer) writePage(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.Status)
	// A failure here is the browser's leaving.
	_ = pageTemplate.Execute(w, a)
}

// problem is the body of application/problem+json.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	LoginURL string `json:"login_url,omitempty"`
}

func (a *answer) writeProblem(w http.ResponseWriter, loginURL string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.Status)
	// A failure here is the client's leaving.
	_ = json.NewEncoder(w).Encode(problem{"about:blank", a.Title, a.Status, a.Text, loginURL})
}

// refuse answers 401 to a request that is no navigation. htmx gets the header
// that makes it leave the page.
func (k *Kit) refuse(w http.ResponseWriter, r *http.Request) {
	loginURL := k.LoginURL(r)
	if isHTMX(r) {
		w.Header().Set("HX-Redirect", loginURL)
	}
	a := answer{Status: http.StatusUnauthorized, Title: "Not signed in", Text: "This needs a session. Open login_url as a page to get one."}
	a.writeProblem(w, loginURL)
}
