package authkit

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// patience is how long a request whose token is still valid waits for the
// refresh that it began, so that its response can carry the new cookie.
const patience = 2 * time.Second

// WithAuth requires a session. Where there is one, next is called with it in the
// request's context, where SessionFromContext finds it; an access token that has
// expired or is about to is refreshed first. Request and ResponseWriter are
// passed on as they are: bodies, streaming and hijacking work.
//
// Without a session a browser is redirected to LoginPath, with the page it asked
// for in return_to; anything else gets 401 with application/problem+json, and
// the address to log in at as login_url. Options.OnUnauthenticated replaces
// both. While WorkOS cannot be reached, an expired token gets 503 with
// Retry-After, and the session is kept.
func (k *Kit) WithAuth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := k.Authenticate(w, r)
		if err != nil {
			k.turnAway(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ContextWithSession(r.Context(), s)))
	})
}

// WithOptionalAuth is WithAuth for pages that anonymous visitors may see, too.
// Without a session, or while WorkOS cannot be reached, next is called without
// one; in the latter case the cookie is kept. Authenticate tells the two apart.
func (k *Kit) WithOptionalAuth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s, err := k.Authenticate(w, r); err == nil {
			r = r.WithContext(ContextWithSession(r.Context(), s))
		}
		next.ServeHTTP(w, r)
	})
}

// Authenticate returns the session of a request: what WithAuth does before it
// calls the next handler, for middleware of your own. Most applications use
// WithAuth.
//
// It reads the session cookie, and may set or clear it on w; it sets
// Cache-Control and Vary. It writes neither status nor body. The error is
// ErrNoSession if nobody is signed in; any other means that it could not be
// found out, usually an ErrUnavailable: answer 503 and keep the visitor's
// cookie.
func (k *Kit) Authenticate(w http.ResponseWriter, r *http.Request) (*Session, error) {
	keepPrivate(w.Header())

	// A middleware further out has been here: its cookie may be spent by now.
	if s, ok := SessionFromContext(r.Context()); ok && s.owner == k {
		return s, nil
	}
	if value, ok := k.cookies.probe(r); ok {
		if s, ok := k.recall(r.Context(), value); ok {
			return s, nil
		}
	}
	var newest *Session
	var sealed string
	for _, value := range k.cookies.sessionValues(r) {
		if s, ok := k.recall(r.Context(), value); ok {
			return s, nil
		}
		s, ok := k.open(value)
		if ok && (newest == nil || s.ExpiresAt.After(newest.ExpiresAt)) {
			newest, sealed = s, value
		}
	}
	if newest == nil {
		return nil, ErrNoSession
	}
	return k.resume(w, r, newest, sealed)
}

// verifiedSession is a session whose cookie was unsealed and whose token was
// verified with the keys of that generation.
type verifiedSession struct {
	*Session
	generation uint64
}

// recall returns the session of a sealed cookie that was seen before, while that
// still holds.
func (k *Kit) recall(ctx context.Context, value string) (*Session, bool) {
	known, ok := k.verified.get(value)
	if !ok || known.generation != k.keys.generation(ctx) || k.refreshes.hasEnded(known.Session) {
		return nil, false
	}
	return known.Session, true
}

// open returns the session that a sealed cookie holds. Its token is not verified,
// and may have expired: the seal only says that it was good once, and that WorkOS
// may still renew it.
func (k *Kit) open(value string) (*Session, bool) {
	auth, ok := k.cookies.openSession(value)
	if !ok {
		return nil, false
	}
	t, err := parseToken(auth.AccessToken)
	if err != nil || t.subject == "" || t.subject != auth.User.ID {
		return nil, false
	}
	return k.newSession(auth, t), true
}

// resume returns the session that a cookie held, refreshed if need be. A token
// that is not to be had as it is, because it has expired or its key has left the
// key set, is one that WorkOS may replace.
func (k *Kit) resume(w http.ResponseWriter, r *http.Request, s *Session, value string) (*Session, error) {
	if k.refreshes.hasEnded(s) {
		return nil, k.dismiss(w, r)
	}
	if !s.alive(time.Now()) {
		return k.renew(w, r, s, false)
	}

	// Asked before: if the keys change during the verification, it does not count
	// for the new ones.
	generation := k.keys.generation(r.Context())
	err := k.tokens.verify(r.Context(), s.token, maxKeySetAgeBrought)
	if errors.Is(err, ErrUnavailable) {
		return nil, err
	}
	if err != nil || !s.fresh(time.Now()) {
		return k.renew(w, r, s, err == nil)
	}
	if generation != 0 {
		k.verified.put(value, verifiedSession{s, generation}, s.refreshAt)
	}
	return s, nil
}

// renew returns a session that must be refreshed, or should be: one that is
// verified and alive is served as it is rather than kept waiting.
func (k *Kit) renew(w http.ResponseWriter, r *http.Request, s *Session, verified bool) (*Session, error) {
	if known := k.refreshes.newest(s); known != nil {
		if k.refreshes.hasEnded(known.session) {
			return nil, k.dismiss(w, r)
		}
		s, verified = known.session, true
		k.bring(w, r, known)
		if s.fresh(time.Now()) {
			return s, nil
		}
	}

	servable := func() bool { return verified && s.alive(time.Now()) }
	if servable() && isUpgrade(r) {
		return s, nil
	}
	call, began := k.refreshes.join(r.Context(), s, k.visitorOf(r))
	if servable() && (!began || !call.wait(r.Context(), patience)) && servable() {
		return s, nil
	}
	if !call.wait(r.Context(), refreshTimeout) {
		return nil, unavailable(errTooSlow)
	}

	switch {
	case call.err == nil:
		if k.refreshes.hasEnded(s) || k.refreshes.hasEnded(call.renewal.session) {
			return nil, k.dismiss(w, r)
		}
		k.bring(w, r, call.renewal)
		return call.renewal.session, nil
	case terminal(call.err) || errors.Is(call.err, errLoggedOut):
		return nil, k.dismiss(w, r)
	case servable():
		return s, nil
	}
	return nil, call.err
}

// bring has the response carry the new cookie, if the session fits one.
func (k *Kit) bring(w http.ResponseWriter, r *http.Request, renewed *renewal) {
	if renewed.parts != nil {
		k.cookies.setSession(w, r, renewed.parts)
	}
}

// wait reports whether the call ended within that time and before the browser
// left.
func (c *refreshCall) wait(ctx context.Context, longest time.Duration) bool {
	select {
	case <-c.done:
		return true
	default:
	}
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// dismiss deletes the cookie of a session that is over.
func (k *Kit) dismiss(w http.ResponseWriter, r *http.Request) error {
	k.cookies.clearSession(w, r)
	return ErrNoSession
}

// turnAway answers a request that has no session, or none that can be judged.
func (k *Kit) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case !errors.Is(err, ErrNoSession):
		k.fail(w, r, err)
	case isNavigation(r) && k.justLoggedIn(r):
		k.fail(w, r, errCookieLost)
	case k.onUnauthenticated != nil:
		k.onUnauthenticated.ServeHTTP(w, r)
	case isNavigation(r) && k.leadsBack(requestPath(r)):
		k.fail(w, r, errGuardedLogin)
	case isNavigation(r):
		redirect(w, r, k.LoginURL(r))
	default:
		k.refuse(w, r)
	}
}

// justLoggedIn reports whether this browser has brought back the marker of a
// login, but not the session that came with it: another login would go the same
// way.
func (k *Kit) justLoggedIn(r *http.Request) bool {
	if !k.cookies.hasMarker(r) {
		return false
	}
	for _, value := range k.cookies.sessionValues(r) {
		if _, ok := k.cookies.openSession(value); ok {
			return false
		}
	}
	return true
}

// LoginURL returns the local address at which the visitor logs in and comes back
// to this page: LoginPath with the page as return_to.
func (k *Kit) LoginURL(r *http.Request) string { return k.loginURL(k.currentPage(r)) }

// loginURL returns the address of a login that leads to a page.
func (k *Kit) loginURL(returnTo string) string {
	if returnTo == "" {
		return k.loginPath
	}
	return k.loginPath + "?return_to=" + url.QueryEscape(returnTo)
}

// redirect answers 302 to GET and HEAD and 303 to anything else. It writes
// Location itself, for http.Redirect cleans paths.
func redirect(w http.ResponseWriter, r *http.Request, location string) {
	w.Header().Set("Location", location)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		w.WriteHeader(http.StatusFound)
		return
	}
	w.WriteHeader(http.StatusSeeOther)
}

// keepPrivate keeps a response out of shared caches, and out of the browser's
// when the user has changed (RFC 9111, section 5.2.2.5).
func keepPrivate(h http.Header) {
	h["Cache-Control"] = cacheControl
	vary := h["Vary"]
	if len(vary) == 0 {
		h["Vary"] = varyCookie
		return
	}
	for _, line := range vary {
		for field := range strings.SplitSeq(line, ",") {
			if field = strings.TrimSpace(field); strings.EqualFold(field, "Cookie") || field == "*" {
				return
			}
		}
	}
	h.Add("Vary", "Cookie")
}

// Shared by all responses: an append to them copies.
var (
	cacheControl = []string{"private, no-store"}
	varyCookie   = []string{"Cookie"}
)
