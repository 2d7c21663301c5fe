package authkit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	maxRefreshes  = 64               // in flight at once
	turnTimeout   = 4 * time.Second  // for a refresh to wait for its turn
	tradeTimeout  = 21 * time.Second // for a refresh with its retry, 10 seconds each
	retryDelay    = 500 * time.Millisecond
	maxRetryDelay = 10 * time.Second // of a Retry-After that is worth waiting for

	// refreshTimeout is how long a request waits for a refresh at the most.
	refreshTimeout = turnTimeout + tradeTimeout

	// maxRenewals is how many traded refresh tokens are remembered, at roughly 6
	// KB each: the session and its sealed cookie.
	maxRenewals = 10_000
	// maxEnded is how many logouts are remembered, at roughly 200 bytes each.
	maxEnded = 100_000
	// maxRefused is how many refresh tokens are remembered that WorkOS refused
	// for good, at roughly 200 bytes each, and refusedFor how long.
	maxRefused = 10_000
	refusedFor = 10 * time.Minute
)

// renewal is what a refresh token was traded for.
type renewal struct {
	session    *Session
	generation uint64   // of the keys that its token was verified with; 0 if it was not acceptable
	parts      []string // the sealed session cookie; nil if it did not fit
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
	logger *slog.Logger

	ended   *memory[struct{}] // session ids that were logged out
	traded  *memory[*renewal] // by refresh token, until the new access token expires
	refused *memory[error]    // by refresh token

	slots chan struct{} // one for each refresh in flight
	pause pause

	mu    sync.Mutex // guards calls; never held during a call
	calls map[string]*refreshCall
}

func newRefresher(k *Kit) *refresher {
	return &refresher{
		trade:   k.trade,
		logger:  k.logger,
		ended:   newMemory[struct{}](maxEnded, 16),
		traded:  newMemory[*renewal](maxRenewals, 1),
		refused: newMemory[error](maxRefused, 1),
		slots:   make(chan struct{}, maxRefreshes),
		calls:   make(map[string]*refreshCall),
	}
}

type refreshCall struct {
	done    chan struct{} // closed when the rest is set
	renewal *renewal      // may come with an error: the token is traded, but the new one cannot be used
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
	if refusal, ok := f.refused.get(s.refreshToken); ok {
		call.err = refusal
		close(call.done)
		return call, false
	}
	// A call may have ended since the request looked.
	if known := f.newest(s); known != nil && known.generation != 0 {
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
	call.renewal, call.err = f.attempt(ctx, s, from)
	if f.hasEnded(s) || call.renewal != nil && f.hasEnded(call.renewal.session) {
		call.renewal, call.err = nil, errLoggedOut
	}
	f.finish(call, s)
	f.log(ctx, s, call.renewal, call.err)
}

// finish makes the outcome of a call known, and remembers it.
func (f *refresher) finish(call *refreshCall, s *Session) {
	f.mu.Lock()
	defer f.mu.Unlock()

	switch renewed := call.renewal; {
	case renewed != nil && renewed.session.refreshToken != s.refreshToken:
		f.traded.put(s.refreshToken, renewed, later(renewed.session.ExpiresAt, time.Now().Add(time.Minute)))
	case terminal(call.err):
		f.refused.put(s.refreshToken, call.err, time.Now().Add(refusedFor))
	}
	delete(f.calls, s.refreshToken)
	close(call.done)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (f *refresher) hasEnded(s *Session) bool {
	_, ended := f.ended.get(s.ID)
	return ended
}

// end has the session refused by this process until the last token that it may
// have, one that a refresh in flight brings, has expired.
func (f *refresher) end(s *Session) {
	if s.ID != "" {
		f.ended.put(s.ID, struct{}{}, time.Now().Add(refreshTimeout+s.token.lifetime()+clockSkew))
	}
}

// revive forgets that a session was logged out: its user has logged in again.
func (f *refresher) revive(s *Session) { f.ended.drop(s.ID) }

// attempt waits for its turn and trades the token.
func (f *refresher) attempt(ctx context.Context, s *Session, from visitor) (renewed *renewal, err error) {
	turn := time.NewTimer(turnTimeout)
	defer turn.Stop()
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-turn.C:
		return nil, unavailable(errTooMany)
	}

	if wait := f.pause.enter(); wait > 0 {
		return nil, &unavailableError{cause: errPaused, retryAfter: wait}
	}
	defer func() { f.pause.leave(s.ID, outage(err)) }()

	ctx, cancel := context.WithTimeout(ctx, tradeTimeout)
	defer cancel()
	return f.trade(ctx, s, from)
}

func (f *refresher) log(ctx context.Context, s *Session, renewed *renewal, err error) {
	log := f.logger.With("session", s.ID)
	switch {
	case err == nil && renewed.session.ID != s.ID && s.ID != "":
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

// trade refreshes a session at WorkOS, and verifies and seals what it brings. What
// cannot be verified, because the key set is out of reach or the configuration is
// wrong, comes with the error: the token that it cost is spent.
func (k *Kit) trade(ctx context.Context, s *Session, from visitor) (_ *renewal, err error) {
	defer recovered(&err)
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

	generation := k.keys.generation(ctx)
	renewed, err := k.admit(ctx, auth)
	if err == nil {
		return &renewal{session: renewed, generation: generation, parts: k.sealRenewed(ctx, auth)}, nil
	}
	renewed, ok := k.unverifiedSession(auth)
	if !ok {
		return nil, err
	}
	return &renewal{session: renewed, parts: k.sealRenewed(ctx, auth)}, err
}

// sealRenewed seals a refreshed session. One that does not fit is not brought to
// the browser: the user stays signed in for as long as this process remembers.
func (k *Kit) sealRenewed(ctx context.Context, auth *Authentication) []string {
	parts, err := k.cookies.sealSession(auth)
	if err != nil {
		k.logger.ErrorContext(ctx, "authkit: the refreshed session cannot be stored", "reason", "session_too_large", "user", auth.User.ID, "error", err)
	}
	return parts
}

// ask gets a new pair of tokens for the session.
func (k *Kit) ask(ctx context.Context, s *Session, from visitor) (*Authentication, error) {
	auth, err := k.client.refresh(ctx, s.refreshToken, s.OrganizationID, from)
	// A lost reply is asked for again while WorkOS still repeats it, if there is
	// time to wait for the answer.
	if delay, again := retryIn(err); again && hasTime(ctx, delay+requestTimeout) && sleep(ctx, delay) {
		auth, err = k.client.refresh(ctx, s.refreshToken, s.OrganizationID, from)
	}
	if err != nil && !terminal(err) {
		return nil, diagnose(err)
	}
	return auth, err
}

func hasTime(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) >= d
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
	if errors.Is(err, errMisconfigured) {
		return true
	}
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		return transient(apiErr.StatusCode)
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
