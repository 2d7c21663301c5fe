package authkit

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
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
		c := &sessionContext{Context: r.Context()}
		s, err := k.authenticate(w, r, &c.header)
		if err != nil {
			k.turnAway(w, r, err)
			return
		}
		c.session = s
		next.ServeHTTP(w, r.WithContext(c))
	})
}

// WithOptionalAuth is WithAuth for pages that anonymous visitors may see, too.
// Without a session, or while WorkOS cannot be reached, next is called without
// one; in the latter case the cookie is kept. Authenticate tells the two apart.
func (k *Kit) WithOptionalAuth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &sessionContext{Context: r.Context()}
		// Without a session this hides one that another kit, further out, has put
		// there: the innermost decides.
		c.session, _ = k.authenticate(w, r, &c.header)
		next.ServeHTTP(w, r.WithContext(c))
	})
}

// sessionContext is a context with a session, and the room for the header values
// that every response begins with: one allocation instead of three.
type sessionContext struct {
	context.Context
	session *Session // nil for none
	header  [2]string
}

func (c *sessionContext) Value(key any) any {
	if key == (sessionKey{}) {
		return c.session
	}
	return c.Context.Value(key)
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
	return k.authenticate(w, r, new([2]string))
}

func (k *Kit) authenticate(w http.ResponseWriter, r *http.Request, header *[2]string) (*Session, error) {
	keepPrivate(w.Header(), header)

	// A middleware further out has been here: its cookie may be spent by now.
	if s, ok := SessionFromContext(r.Context()); ok && s.owner == k && s.alive(time.Now()) && !k.refreshes.hasEnded(s) {
		return s, nil
	}
	if value, ok := k.cookies.probe(r); ok {
		if s, ok := k.recall(r.Context(), value); ok {
			return s, nil
		}
	}

	values := k.cookies.sessionValues(r)
	for _, value := range values {
		if s, ok := k.recall(r.Context(), value); ok {
			return s, nil
		}
	}
	carried := k.carried(values)
	for _, c := range carried {
		s, err := k.resume(w, r, c)
		if !errors.Is(err, ErrNoSession) {
			return s, err
		}
	}
	if len(carried) > 0 {
		k.cookies.clearSession(w, r)
	}
	return nil, ErrNoSession
}

// carriedSession is a session as a cookie holds it. Its token is not verified,
// and may have expired: the seal only says that WorkOS gave it to us.
type carriedSession struct {
	*Session
	sealed string
}

// carried returns the sessions that cookies hold, the newest first: there are
// several where another CookieDomain has left one behind.
func (k *Kit) carried(values []string) []carriedSession {
	var found []carriedSession
	for _, value := range values {
		if s, ok := k.open(value); ok {
			found = append(found, carriedSession{s, value})
		}
	}
	slices.SortStableFunc(found, func(a, b carriedSession) int { return b.ExpiresAt.Compare(a.ExpiresAt) })
	return found
}

// open returns the session that a sealed cookie holds.
func (k *Kit) open(value string) (*Session, bool) {
	auth, ok := k.cookies.openSession(value)
	if !ok {
		return nil, false
	}
	return k.unverifiedSession(auth)
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

// resume returns the session that a cookie held, or what it has become, refreshed
// if need be. A token that cannot be served as it is, because it has expired or
// its key has left the key set, is one that WorkOS may replace. ErrNoSession
// means that the session is over.
func (k *Kit) resume(w http.ResponseWriter, r *http.Request, c carriedSession) (*Session, error) {
	// Asked before: if the keys change during the verification, it does not count
	// for the new ones.
	generation := k.keys.generation(r.Context())
	s, verified := c.Session, false
	known := k.refreshes.newest(s)
	if known != nil {
		s, verified = known.session, known.generation != 0 && known.generation == generation
	}
	if k.refreshes.hasEnded(c.Session) || k.refreshes.hasEnded(s) {
		return nil, ErrNoSession
	}
	k.bring(w, r, known)

	if s.alive(time.Now()) && !verified {
		err := k.tokens.verify(r.Context(), s.token, maxKeySetAgeBrought)
		if errors.Is(err, ErrUnavailable) {
			return nil, err
		}
		verified = err == nil
	}
	if !verified || !s.fresh(time.Now()) {
		return k.renew(w, r, s, verified)
	}
	if s == c.Session && generation != 0 {
		// The value is a part of the request's header, which must not be kept.
		k.verified.put(strings.Clone(c.sealed), verifiedSession{s, generation}, s.refreshAt)
	}
	return s, nil
}

// renew returns a session that must be refreshed, or should be: one that is
// verified and alive is served as it is rather than kept waiting, or lost.
func (k *Kit) renew(w http.ResponseWriter, r *http.Request, s *Session, verified bool) (*Session, error) {
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

	k.bring(w, r, call.renewal)
	switch {
	case call.err == nil:
		return call.renewal.session, nil
	case errors.Is(call.err, errLoggedOut):
		return nil, ErrNoSession
	case servable():
		return s, nil
	case terminal(call.err):
		return nil, ErrNoSession
	}
	return nil, call.err
}

// bring has the response carry the new cookie, if there is one. It does even if
// the new token cannot be verified: the old refresh token is spent.
func (k *Kit) bring(w http.ResponseWriter, r *http.Request, renewed *renewal) {
	if renewed != nil && renewed.parts != nil {
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

// turnAway answers a request that has no session, or none that can be judged.
func (k *Kit) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case !errors.Is(err, ErrNoSession):
		k.fail(w, r, err)
	case isNavigation(r) && k.cookies.hasMarker(r):
		// A login has just succeeded, and another would go the same way.
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

// redirect answers 302 to GET and HEAD and 303 to anything else, so that no form
// is sent twice; htmx gets the header that makes it leave the page. It writes
// Location itself, for http.Redirect cleans paths.
func redirect(w http.ResponseWriter, r *http.Request, location string) {
	if isHTMX(r) {
		w.Header().Set("HX-Redirect", location)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Location", location)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		w.WriteHeader(http.StatusFound)
		return
	}
	w.WriteHeader(http.StatusSeeOther)
}

// keepPrivate keeps a response out of shared caches, and out of the browser's
// when the user has changed (RFC 9111, section 5.2.2.5). The values are stored in
// room: an application may edit them in place, in its own response.
func keepPrivate(h http.Header, room *[2]string) {
	room[0], room[1] = "private, no-store", "Cookie"
	h["Cache-Control"] = room[0:1:1]
	vary := h["Vary"]
	if len(vary) == 0 {
		h["Vary"] = room[1:2:2]
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
