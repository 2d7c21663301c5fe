package authkittest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// hostedCookie keeps a browser signed in to WorkOS itself.
const hostedCookie = "authkittest_session"

// hostedSession is a browser that is signed in to WorkOS itself, on the hosted
// page, whatever application it came from.
type hostedSession struct {
	id             string
	userID         string
	organizationID string // of the last sign-in
	authTime       time.Time
	fresh          bool // just signed in: good for one authorization, whatever it demands
}

// answers tells whether a signed-in browser needs to see no page.
func (b *hostedSession) answers(a *authorization) bool {
	if b.fresh {
		return true
	}
	if a.signUp || a.prompt == "login" {
		return false
	}
	return a.maxAge == nil || *a.maxAge > 0 && time.Since(b.authTime) <= *a.maxAge
}

// browser returns the hosted session of a request, or nil.
func (w *WorkOS) browser(r *http.Request) *hostedSession {
	cookie, err := r.Cookie(hostedCookie)
	if err != nil {
		return nil
	}
	return w.browsers[cookie.Value]
}

func newHostedSession(userID string) *hostedSession {
	return &hostedSession{id: newID("hosted_"), userID: userID, authTime: time.Now(), fresh: true}
}

// keepBrowser makes sure that a browser is signed in to WorkOS, and returns the
// id of its session.
func (w *WorkOS) keepBrowser(rw http.ResponseWriter, b *hostedSession) string {
	if w.browsers[b.id] == nil {
		w.browsers[b.id] = b
		http.SetCookie(rw, w.cookie(b.id))
	}
	return b.id
}

// forgetBrowser clears the cookie of a hosted session where the request has it.
func (w *WorkOS) forgetBrowser(rw http.ResponseWriter, r *http.Request, id string) {
	b := w.browser(r)
	if b == nil || b.id != id {
		return
	}
	gone := w.cookie("")
	gone.MaxAge = -1
	http.SetCookie(rw, gone)
}

func (w *WorkOS) cookie(id string) *http.Cookie {
	return &http.Cookie{
		Name:     hostedCookie,
		Value:    id,
		Path:     "/",
		Secure:   strings.HasPrefix(w.url, "https:"),
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	}
}

// Browser returns a client with a cookie jar of its own that finds app at AppURL
// and this WorkOS at URL, both in memory, and follows redirects between them.
// Other hosts are refused; once WorkOS listens, they are on the network.
//
// A request that has neither an Accept nor a Sec-Fetch-Mode header is sent as
// the document navigation that a browser would make of it: Accept: text/html,
// Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: document, and Sec-Fetch-Site: none
// for GET, same-origin for the rest. Redirects of it are, too.
func (w *WorkOS) Browser(app http.Handler) *http.Client {
	jar, _ := cookiejar.New(nil) // its error is always nil
	return &http.Client{Jar: jar, Transport: browserTransport{w, app != nil, inMemory(app), inMemory(w)}}
}

// browserTransport sends requests where a test's DNS would.
type browserTransport struct {
	workos          *WorkOS
	hasApp          bool
	toApp, toWorkOS http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t browserTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	to, workosURL := http.DefaultTransport, t.workos.URL()
	switch o := origin(r.URL); {
	case o == AppURL && t.hasApp:
		to = t.toApp
	case o == workosURL, o == memoryURL:
		to = t.toWorkOS
	case workosURL == memoryURL: // it does not listen, so there is no network either
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, fmt.Errorf("authkittest: the browser knows %s and WorkOS, not %s", AppURL, o)
	}
	return to.RoundTrip(asNavigation(r))
}

func asNavigation(r *http.Request) *http.Request {
	if r.Header.Get("Accept") != "" || r.Header.Get("Sec-Fetch-Mode") != "" {
		return r
	}
	r = r.Clone(r.Context())
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if r.Method == http.MethodGet || r.Method == "" {
		r.Header.Set("Sec-Fetch-Site", "none")
	}
	return r
}

// SignIn returns a Browser that opened the local path start of app, a page that
// wants a session or the login path itself, and signed in there as email. A user
// of several organizations enters the first one, unless app asks for another.
//
// It is an error if nobody has the address, if start leads to no sign-in, or if
// the way does not end on a page of app with a status below 400.
func (w *WorkOS) SignIn(app http.Handler, start, email string) (*http.Client, error) {
	hosted, err := w.signedInBrowser(email)
	if err != nil {
		return nil, err
	}
	browser := w.Browser(app)
	address, err := url.Parse(w.URL())
	if err != nil {
		return nil, err
	}
	browser.Jar.SetCookies(address, []*http.Cookie{hosted})

	resp, err := browser.Get(AppURL + start)
	if err != nil {
		return nil, fmt.Errorf("authkittest: sign in as %s: %w", email, err)
	}
	defer resp.Body.Close()
	if err := w.checkEnd(resp, hosted.Value); err != nil {
		return nil, fmt.Errorf("authkittest: sign in as %s: %w", email, err)
	}
	return browser, nil
}

// signedInBrowser is the cookie of a user who just signed in at WorkOS.
func (w *WorkOS) signedInBrowser(email string) (*http.Cookie, error) {
	w.mu.Lock()
	defer w.mu.Unlock()

	user := w.userByEmail(email)
	if user == nil {
		return nil, unknownUser(email)
	}
	b := newHostedSession(user.ID)
	b.organizationID = w.firstOrganization(user.ID)
	w.browsers[b.id] = b
	return w.cookie(b.id), nil
}

// checkEnd looks at where a sign-in ended.
func (w *WorkOS) checkEnd(resp *http.Response, browserID string) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	if at := resp.Request.URL; origin(at) != AppURL || resp.StatusCode >= 400 {
		return fmt.Errorf("it ended at %s with %s: %.300s", at.Redacted(), resp.Status, textOf(body))
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.browsers[browserID]; b != nil && b.fresh {
		return errors.New("it led to no sign-in: the page is public")
	}
	return nil
}

var markup = regexp.MustCompile(`(?s)<head>.*</head>|<[^>]*>`)

// textOf is what a page says, for an error message.
func textOf(page []byte) string {
	return strings.Join(strings.Fields(markup.ReplaceAllString(string(page), " ")), " ")
}
