package authkit

import (
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
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

	reason     string // for the log
	offer      offer  // decides Links
	retryAfter time.Duration
}

// link leads to a local address.
type link struct{ URL, Label string }

// offer is what a page offers to do next.
type offer int

const (
	nothing offer = iota
	login         // sign in again
	retry         // try the same again, or sign in again
)

// explanations are the answers to the errors that a visitor can meet. What is
// not among them is answered like ErrUnavailable.
var explanations = []struct {
	err error
	answer
}{
	{ErrStateMismatch, answer{
		Status: http.StatusBadRequest, reason: "state_mismatch", offer: login,
		Title: "This sign-in is no longer valid",
		Text:  "It took more than ten minutes, was opened in another browser, or has been used already. Nothing is lost: please sign in again.",
	}},
	{errBadCallback, answer{
		Status: http.StatusBadRequest, reason: "bad_callback", offer: login,
		Title: "This sign-in did not work",
		Text:  "The address of this page is incomplete. Please sign in again.",
	}},
	{errCodeRefused, answer{
		Status: http.StatusBadRequest, reason: "code_refused", offer: login,
		Title: "This sign-in did not work",
		Text:  "The sign-in service did not accept it: it may have been used already. Please sign in again.",
	}},
	{errCookieLost, answer{
		Status: http.StatusBadRequest, reason: "cookie_lost", offer: login,
		Title: "Your browser did not keep the sign-in",
		Text:  "You have just signed in, but the cookie that says so did not come back. Please allow cookies for this site, or try a window that is not private, and sign in again.",
	}},
	{errNotPage, answer{
		Status: http.StatusUnauthorized, reason: "not_a_navigation", offer: login,
		Title: "Please sign in",
		Text:  "Signing in begins on a page of its own.",
	}},
	{errGuardedLogin, answer{
		Status: http.StatusUnauthorized, reason: "login_behind_auth",
		Title: "Sign-in is not set up correctly",
		Text:  "The page to sign in on can itself only be seen once signed in. Whoever runs this application has been told.",
	}},
	{errLoginRefused, answer{
		Status: http.StatusForbidden, reason: "login_refused", offer: login,
		Title: "You cannot sign in here",
		Text:  "This application did not accept your account. If you think it should, ask whoever runs it.",
	}},
	{errCrossOrigin, answer{
		Status: http.StatusForbidden, reason: "cross_origin", Form: "Sign out",
		Title: "Do you want to sign out?",
		Text:  "Another site asked for this, so we ask you.",
	}},
	{errMethod, answer{
		Status: http.StatusMethodNotAllowed, reason: "method_not_allowed",
		Title: "Method not allowed",
		Text:  "This address cannot be used in this way.",
	}},
	{ErrSessionTooLarge, answer{
		Status: http.StatusInternalServerError, reason: "session_too_large",
		Title: "You could not be signed in",
		Text:  "Your account holds more than this application can remember. Whoever runs it has been told what to change.",
	}},
	{errLoginTooLarge, answer{
		Status: http.StatusInternalServerError, reason: "login_too_large",
		Title: "You could not be signed in",
		Text:  "This application asks to remember too much during the sign-in. Whoever runs it has been told.",
	}},
	{errMisconfigured, answer{
		Status: http.StatusServiceUnavailable, reason: "misconfigured", offer: retry, retryAfter: longestRetry,
		Title: "Sign-in is not set up correctly",
		Text:  "This application cannot accept what its sign-in service says. Whoever runs it has been told why.",
	}},
}

// unavailableAnswer is for what passes by itself.
var unavailableAnswer = answer{
	Status: http.StatusServiceUnavailable, reason: "unavailable", offer: retry, retryAfter: usualRetry,
	Title: "Sign-in is unavailable for a moment",
	Text:  "If you were signed in, you still are. Please try again shortly.",
}

// askToLogOut is for a GET that may not be the user's own wish.
var askToLogOut = answer{
	Status: http.StatusOK, Form: "Sign out",
	Title: "Do you want to sign out?",
	Text:  "You will need to sign in again to go on.",
}

// explain returns the answer to an error.
func explain(err error) answer {
	var authorization *AuthorizationError
	if errors.As(err, &authorization) {
		return explainAuthorization(authorization)
	}
	for _, known := range explanations {
		if errors.Is(err, known.err) {
			return known.answer
		}
	}
	a := unavailableAnswer
	var down *unavailableError
	if errors.As(err, &down) {
		a.retryAfter = min(max(down.retryAfter.Round(time.Second), usualRetry), longestRetry)
	}
	return a
}

// explainAuthorization answers for the errors that WorkOS documents for the
// callback; the set is open.
func explainAuthorization(err *AuthorizationError) answer {
	a := answer{
		Status: http.StatusBadRequest, reason: "authorization_" + err.Code, offer: login,
		Title: "You were not signed in",
		Text:  "The sign-in service could not sign you in. Please try again, or ask whoever runs this application.",
	}
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

// How long a 503 asks to wait.
const (
	usualRetry   = 2 * time.Second
	longestRetry = 30 * time.Second
)

// fail is the one way out for an error: it tells the visitor in our own words
// what is wrong, and the log why. Options.OnError replaces the former.
func (k *Kit) fail(w http.ResponseWriter, r *http.Request, err error) {
	k.failTowards(w, r, err, k.currentPage(r))
}

// failTowards is fail for a visitor who was on the way to another page.
func (k *Kit) failTowards(w http.ResponseWriter, r *http.Request, err error, returnTo string) {
	a := explain(err)
	a.Links = k.links(a.offer, returnTo)
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

func (k *Kit) links(o offer, returnTo string) []link {
	again := link{k.loginURL(returnTo), "Sign in again"}
	switch {
	case o == nothing:
		return nil
	case o == retry && returnTo != "":
		return []link{{returnTo, "Try again"}, again}
	}
	return []link{again}
}

// log records an error as loudly as the answer says: what someone must mend is
// an error, what passes a warning, and what a stranger can cause is for
// debugging.
func (k *Kit) log(r *http.Request, a answer, err error) {
	level := slog.LevelDebug
	switch {
	case a.Status == http.StatusInternalServerError, errors.Is(err, errMisconfigured), errors.Is(err, errGuardedLogin):
		level = slog.LevelError
	case a.Status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	}
	k.logger.Log(r.Context(), level, "authkit: request refused", "reason", a.reason, "status", a.Status, "error", err)
}

// write sends the answer as a page to a browser that shows it and as
// application/problem+json (RFC 9457) to anything else.
func (a answer) write(w http.ResponseWriter, r *http.Request) {
	if isNavigation(r) {
		a.writePage(w)
		return
	}
	a.writeProblem(w, "")
}

func (a answer) writePage(w http.ResponseWriter) {
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

func (a answer) writeProblem(w http.ResponseWriter, loginURL string) {
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
