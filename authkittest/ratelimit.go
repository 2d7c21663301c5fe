package authkittest

import (
	"net/http"
	"strings"
	"time"
)

// rateWindow counts requests for a while from the first one on.
type rateWindow struct {
	start time.Time
	count int
}

// rateLimit refuses a request beyond production's limits
// (https://workos.com/docs/reference/rate-limits): 6000 in 60 seconds for an API
// key; under /user_management 1000 reads and 500 writes in 10 seconds for an
// environment. The key set is exempt.
func (w *WorkOS) rateLimit(e Endpoint, r *http.Request, grant string) *failure {
	if !w.settings.RateLimit || e == KeySet {
		return nil
	}
	wait := w.count("environment", 6000, time.Minute)
	if strings.HasPrefix(r.URL.Path, "/user_management/") {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			wait = max(wait, w.count("reads", 1000, 10*time.Second))
		} else {
			wait = max(wait, w.count("writes", 500, 10*time.Second))
		}
	}
	if wait == 0 {
		return nil
	}
	if grant != "" {
		return tooManyRequests(wait)
	}
	fail := plainFailure(http.StatusTooManyRequests, "rate_limit_exceeded", "Too Many Requests")
	fail.retryAfter = wait
	return fail
}

// limitSignIns refuses more than ten sign-ins in 60 seconds for an address.
// Refreshes are not sign-ins.
func (w *WorkOS) limitSignIns(email string) *failure {
	if !w.settings.RateLimit {
		return nil
	}
	if wait := w.count("sign-in "+email, 10, time.Minute); wait > 0 {
		return tooManyRequests(wait)
	}
	return nil
}

func tooManyRequests(wait time.Duration) *failure {
	fail := oauthFailure("too_many_requests", "Too many requests.")
	fail.status, fail.retryAfter = http.StatusTooManyRequests, wait
	return fail
}

// count counts a request and returns 0 while there are at most limit of them, or
// else the time until the window closes.
func (w *WorkOS) count(key string, limit int, per time.Duration) time.Duration {
	window := w.windows[key]
	if window == nil || time.Since(window.start) >= per {
		window = &rateWindow{start: time.Now()}
		w.windows[key] = window
	}
	if window.count == limit {
		return per - time.Since(window.start)
	}
	window.count++
	return 0
}
