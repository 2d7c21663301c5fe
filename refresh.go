package authkit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	maxRefreshes   = 64               // in flight at once
	refreshTimeout = 25 * time.Second // for a refresh, retry and waiting for its turn included
	retryDelay     = 500 * time.Millisecond
	maxRetryDelay  = 10 * time.Second // of a Retry-After that is worth waiting for

	// maxRenewals is how many traded refresh tokens are remembered, at roughly 6
	// KB each: the session and its sealed cookie.
	maxRenewals = 10_000
	// maxUnverified is how many replies are kept that cannot be verified yet,
	// and unverifiedFor how long.
	maxUnverified = 1_000
	unverifiedFor = 10 * time.Minute
)

// renewal is what a refresh token was traded for.
type renewal struct {
	session *Session
	parts   []string // the sealed session cookie; nil if it did not fit
}

// refresher has every refresh token traded once.
//
// Requests that carry the same token share one call to WorkOS, and those that
// come later get what it brought from memory: a browser that sent ten requests
// with its old cookie, or lost the reply that carried the new one, is served as
// if nothing had happened. WorkOS itself answers a traded token for 30 seconds,
// and ends the session of whoever comes later.
//
// The call outlives the request that began it, for the token is spent whether
// the browser stays or not.
type refresher struct {
	trade  func(context.Context, *Session, visitor) (*renewal, error)
	ended  *memory[struct{}] // session ids that were logged out
	traded *memory[*renewal] // by refresh token, until the new access token expires
	logger *slog.Logger

	slots chan struct{} // one for each refresh in flight
	pause pause

	mu    sync.Mutex // guards calls; never held during a call
	calls map[string]*refreshCall
}

func newRefresher(k *Kit) *refresher {
	return &refresher{
		trade:  k.trade,
		ended:  k.ended,
		traded: newMemory[*renewal](maxRenewals, 1),
		logger: k.logger,
		slots:  make(chan struct{}, maxRefreshes),
		calls:  make(map[string]*refreshCall),
	}
}

type refreshCall struct {
	done    chan struct{} // closed when the rest is set
	renewal *renewal
	err     error
}

// newest returns what a session has become, however many refreshes ago, or nil
// if it was not refreshed in this process or too long ago.
func (f *refresher) newest(s *Session) *renewal {
	var latest *renewal
	token := s.refreshToken
	for range 16 { // a chain has one link for each refresh within a token's life
		next, ok := f.traded.get(token)
		if !ok {
			break
		}
		latest, token = next, next.session.refreshToken
	}
	return latest
}

// join returns the call that trades the session's refresh token, and whether
// this request began it.
func (f *refresher) join(ctx context.Context, s *Session, from visitor) (call *refreshCall, began bool) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if call := f.calls[s.refreshToken]; call != nil {
		return call, false
	}
	call = &refreshCall{done: make(chan struct{})}
	if known := f.newest(s); known != nil { // a call that ended since the request looked
		call.renewal = known
		close(call.done)
		return call, false
	}
	f.calls[s.refreshToken] = call
	go f.run(context.WithoutCancel(ctx), call, s, from)
	return call, true
}

func (f *refresher) run(ctx context.Context, call *refreshCall, s *Session, from visitor) {
	defer recovered(new(error)) // the application's log handler runs last
	renewed, err := f.attempt(ctx, s, from)
	if err == nil && (f.hasEnded(s) || f.hasEnded(renewed.session)) {
		err = errLoggedOut
	}
	if err == nil {
		call.renewal = renewed
	}
	call.err = err

	f.mu.Lock()
	if err == nil && renewed.session.refreshToken != s.refreshToken {
		f.traded.put(s.refreshToken, renewed, renewed.session.ExpiresAt)
	}
	delete(f.calls, s.refreshToken)
	f.mu.Unlock()
	close(call.done)

	f.log(ctx, s, renewed, err)
}

func (f *refresher) hasEnded(s *Session) bool {
	_, ended := f.ended.get(s.ID)
	return ended
}

// end has the session refused by this process until the last token that it may
// have, one that a refresh in flight brings, has expired.
func (f *refresher) end(s *Session) {
	f.ended.put(s.ID, struct{}{}, time.Now().Add(refreshTimeout+s.token.lifetime()+clockSkew))
}

// attempt waits for its turn and trades the token, within the time that a
// refresh may take.
func (f *refresher) attempt(ctx context.Context, s *Session, from visitor) (renewed *renewal, err error) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()

	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return nil, unavailable(errTooMany)
	}

	if wait := f.pause.enter(); wait > 0 {
		return nil, &unavailableError{cause: errPaused, retryAfter: wait}
	}
	defer func() { f.pause.leave(s.ID, outage(err)) }()
	return f.trade(ctx, s, from)
}

func (f *refresher) log(ctx context.Context, s *Session, renewed *renewal, err error) {
	log := f.logger.With("session", s.ID)
	switch {
	case err == nil && renewed.session.ID != s.ID:
		log.InfoContext(ctx, "authkit: WorkOS changed the session id", "reason", "session_id_changed", "new_session", renewed.session.ID)
	case err == nil:
		log.DebugContext(ctx, "authkit: session refreshed", "reason", "refreshed")
	case errors.Is(err, errLoggedOut):
		log.DebugContext(ctx, "authkit: session logged out during its refresh", "reason", "logged_out")
	case terminal(err):
		log.InfoContext(ctx, "authkit: WorkOS has ended the session", "reason", "session_ended", "error", err)
	case errors.Is(err, errPaused):
		log.DebugContext(ctx, "authkit: refreshing is paused", "reason", "refresh_paused")
	case errors.Is(err, errMisconfigured):
		log.ErrorContext(ctx, "authkit: check the configuration", "reason", "misconfigured", "error", err)
	default:
		log.WarnContext(ctx, "authkit: cannot refresh a session now", "reason", "refresh_unavailable", "error", err)
	}
}

// trade refreshes a session at WorkOS and verifies and seals what it brings.
func (k *Kit) trade(ctx context.Context, s *Session, from visitor) (_ *renewal, err error) {
	defer recovered(&err)
	// What cannot be verified is no use, and the token it costs would be spent.
	if _, err := k.keys.usable(ctx); err != nil {
		return nil, err
	}
	auth, err := k.ask(ctx, s, from)
	if err != nil {
		return nil, err
	}
	if auth.User.ID != s.User.ID {
		return nil, unavailable(fmt.Errorf("WorkOS answered with user %.64q, want %q", auth.User.ID, s.User.ID))
	}
	// WorkOS need not repeat how the session began.
	if auth.AuthenticationMethod == "" {
		auth.AuthenticationMethod = s.AuthenticationMethod
	}

	renewed, err := k.admit(ctx, auth)
	if errors.Is(err, ErrUnavailable) {
		k.unverified.put(s.refreshToken, auth, time.Now().Add(unverifiedFor))
	}
	if err != nil {
		return nil, err
	}
	parts, err := k.cookies.sealSession(auth)
	if err != nil {
		// The user stays signed in for as long as this process remembers.
		k.logger.ErrorContext(ctx, "authkit: the refreshed session cannot be stored", "reason", "session_too_large", "session", s.ID, "error", err)
	}
	return &renewal{session: renewed, parts: parts}, nil
}

// ask gets a new pair of tokens for the session: the one that WorkOS gave before
// and that could not be verified then, or a new one.
func (k *Kit) ask(ctx context.Context, s *Session, from visitor) (*Authentication, error) {
	refreshToken := s.refreshToken
	if auth, ok := k.unverified.get(refreshToken); ok {
		_, err := k.admit(ctx, auth)
		if !errors.Is(err, errTokenExpired) {
			return auth, nil
		}
		refreshToken = auth.RefreshToken
	}

	auth, err := k.client.refresh(ctx, refreshToken, s.OrganizationID, from)
	// A lost reply is asked for again while WorkOS still repeats it.
	if delay, again := retryIn(err); again && sleep(ctx, delay) {
		auth, err = k.client.refresh(ctx, refreshToken, s.OrganizationID, from)
	}
	if err != nil && !terminal(err) {
		return nil, diagnose(err)
	}
	return auth, err
}

// retryIn tells whether a failed refresh is worth a second attempt, and when.
func retryIn(err error) (time.Duration, bool) {
	var apiErr *APIError
	switch {
	case err == nil:
		return 0, false
	case !errors.As(err, &apiErr): // no reply, or one that was cut or garbled
		return retryDelay, true
	case !transient(apiErr.StatusCode) || terminal(err) || apiErr.RetryAfter > maxRetryDelay:
		return 0, false
	}
	return max(apiErr.RetryAfter, retryDelay), true
}

// outage reports whether an error says that WorkOS works for nobody, rather than
// not for this session.
func outage(err error) bool {
	if err == nil || terminal(err) {
		return false
	}
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		return transient(apiErr.StatusCode) || apiErr.StatusCode == http.StatusUnauthorized
	}
	return errors.Is(err, ErrUnavailable)
}

// sleep reports whether it slept the whole time.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	// pauseAfter is how many sessions must fail in a row before refreshing
	// pauses, and maxPause how long it does at the most.
	pauseAfter = 5
	pauseStep  = time.Second
	maxPause   = 5 * time.Second
)

// pause keeps an outage from becoming a storm: once several sessions in a row
// could not be refreshed, it lets one refresh through every 1 to 5 seconds,
// until one succeeds.
type pause struct {
	mu      sync.Mutex          // guards what follows
	failed  map[string]struct{} // sessions that failed since the last success
	length  time.Duration       // of the current pause, 0 for none
	until   time.Time
	probing bool // one refresh is under way after a pause
}

// enter returns how long to wait, or 0 if the refresh may go ahead.
func (p *pause) enter() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.length == 0 {
		return 0
	}
	if wait := time.Until(p.until); wait > 0 {
		return wait
	}
	if p.probing {
		return pauseStep
	}
	p.probing = true
	return 0
}

// leave records how a refresh that went ahead has ended.
func (p *pause) leave(sessionID string, outage bool) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if !outage {
		p.failed, p.length, p.probing = nil, 0, false
		return
	}
	if p.length > 0 && !p.probing {
		return // it began before the pause
	}
	if len(p.failed) < pauseAfter {
		if p.failed == nil {
			p.failed = make(map[string]struct{}, pauseAfter)
		}
		p.failed[sessionID] = struct{}{}
	}
	if len(p.failed) < pauseAfter {
		return
	}
	p.length = min(p.length+pauseStep, maxPause)
	p.until = time.Now().Add(p.length)
	p.probing = false
}
