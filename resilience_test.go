package authkit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// This file holds the promise that nobody is signed out without cause to
// figures. Each test prints its own.

// sealed returns the Cookie header of a browser in which somebody was signed in
// without a login, for tests that need thousands.
func (a *application) sealed(email string) string {
	a.t.Helper()
	auth, err := a.workos.NewSession(email, "")
	if err != nil {
		a.t.Fatal(err)
	}
	header, err := a.kit.SealSession(auth)
	if err != nil {
		a.t.Fatal(err)
	}
	return header
}

// page asks for the dashboard with a Cookie header.
func (a *application) page(ctx context.Context, cookie string) page {
	return answer(a, request("GET", "/dashboard", with(navigate, "Cookie", cookie)...).WithContext(ctx))
}

// cookieOf returns the Cookie header that a browser sends after a response.
func cookieOf(before string, p page) string {
	if line := p.setCookie("wos-session"); line != "" {
		before, _, _ = strings.Cut(line, ";")
	}
	return before
}

// users adds n of them and returns their addresses.
func (a *application) users(n int) []string {
	var emails []string
	for i := range n {
		email := fmt.Sprintf("user%d@example.test", i)
		a.workos.AddUser(authkittest.User{Email: email})
		emails = append(emails, email)
	}
	return emails
}

// replicas returns n kits with the same options.
func (a *application) replicas(n int) []*application {
	var all []*application
	for range n {
		replica := *a
		replica.restart()
		all = append(all, &replica)
	}
	return all
}

func TestThousandRequestsOneRefresh(t *testing.T) {
	for promise, spread := range map[string]time.Duration{"at once": 0, "over 300 ms of a slow WorkOS": 300 * time.Millisecond} {
		t.Run(promise, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *application) {
				cookie := a.sealed(ada)
				a.page(t.Context(), cookie).expectSession(t)
				expire()
				a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Delay: 300 * time.Millisecond})
				var served atomic.Int64
				var wg sync.WaitGroup
				for i := range 1000 {
					wg.Go(func() {
						time.Sleep(spread * time.Duration(i) / 1000)
						p := a.page(t.Context(), cookie)
						p.expectSession(t)
						served.Add(1)
					})
				}
				wg.Wait()
				t.Logf("%d answers 200, %d refreshes", served.Load(), a.refreshes())
				if a.refreshes() != 1 || served.Load() != 1000 {
					t.Error("want 1000 and 1")
				}
			})
		})
	}
}

func TestBrowserLeavesAtAnyPointOfARefresh(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		const points = 200
		signedIn := 0
		for i := range points {
			cookie := a.sealed(ada)
			expire()
			a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Delay: 100 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
			a.page(ctx, cookie)
			cancel()
			time.Sleep(time.Duration(i) * time.Second)
			if a.page(t.Context(), cookie).session() != nil {
				signedIn++
			}
		}
		t.Logf("%d of %d browsers that left are still signed in", signedIn, points)
		if signedIn != points {
			t.Fail()
		}
	})
}

func TestLostTwiceInsideTheReplayWindow(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		cookie := a.sealed(ada)
		expire()
		a.workos.Fail(authkittest.Authenticate, 2, authkittest.Fault{DropReply: true})
		a.page(t.Context(), cookie).expect(t, 503)
		time.Sleep(20 * time.Second)
		a.page(t.Context(), cookie).expectSession(t)
		t.Logf("signed in after two lost replies and %d calls", a.refreshes())
	})
}

func TestThreeReplicas(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		cookie := a.sealed(ada)
		replicas := a.replicas(3)
		expire()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Delay: 200 * time.Millisecond})
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 3 * time.Millisecond)
				replicas[i%3].page(t.Context(), cookie).expectSession(t)
			})
		}
		wg.Wait()
		t.Logf("300 requests to 3 replicas: %d calls, no logout", a.refreshes())
		if a.refreshes() > 3 {
			t.Error("want at most 3 calls")
		}
	})
}

// WorkOS is down for a minute. With valid tokens nothing is felt; those that
// expired get 503; and then everybody comes back.
func TestOutageOfAMinute(t *testing.T) {
	t.Parallel() // it is long
	bubble(t, func(t *testing.T, a *application) {
		const users = 10_000
		cookies := make([]string, users)
		for i := range cookies {
			cookies[i] = a.sealed(ada)
		}
		expire()
		near := a.sealed(ada)
		time.Sleep(5*time.Minute - 25*time.Second) // it is near its expiry now
		valid := a.sealed(ada)
		a.page(t.Context(), valid).expectSession(t)
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Hang: true})

		down := time.Now()
		for time.Since(down) < 20*time.Second {
			began := time.Now()
			a.page(t.Context(), valid).expectSession(t)
			if waited := time.Since(began); waited != 0 {
				t.Fatalf("a valid token waited %v", waited)
			}
			a.page(t.Context(), near).expectSession(t)
			if waited := time.Since(began); waited > 2*time.Second {
				t.Fatalf("a token near expiry waited %v", waited)
			}
			time.Sleep(time.Second)
		}
		var refused atomic.Int64
		var wg sync.WaitGroup
		for _, cookie := range cookies[:500] {
			wg.Go(func() {
				p := a.page(t.Context(), cookie)
				p.expect(t, 503)
				if p.Header.Get("Retry-After") == "" || p.Header["Set-Cookie"] != nil || p.Header.Get("Location") != "" {
					t.Errorf("503 with %v", p.Header)
				}
				refused.Add(1)
			})
		}
		wg.Wait()
		time.Sleep(time.Until(down.Add(time.Minute)))
		a.workos.Heal()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Delay: 100 * time.Millisecond}) // as WorkOS takes

		recovered := time.Now()
		for i := range cookies {
			wg.Go(func() {
				for time.Since(recovered) < 5*time.Minute {
					p := a.page(t.Context(), cookies[i])
					if p.session() != nil {
						return
					}
					p.expect(t, 503)
					time.Sleep(2 * time.Second)
				}
				t.Errorf("session %d did not come back", i)
			})
		}
		wg.Wait()
		t.Logf("%d answers 503 in the outage; all %d sessions are back after %v, %d refreshes in flight at the most",
			refused.Load(), users, time.Since(recovered), a.workos.MostInFlight(authkittest.Authenticate))
		if time.Since(recovered) > time.Minute || a.workos.MostInFlight(authkittest.Authenticate) > 64 {
			t.Error("want a minute and 64")
		}
	})
}

func TestOutageUnderRateLimitsLosesNobody(t *testing.T) {
	t.Parallel() // it is long
	bubble(t, func(t *testing.T, a *application) {
		const users = 2_000
		cookies := make([]string, users)
		for i := range cookies {
			cookies[i] = a.sealed(ada)
		}
		expire()
		a.workos.Configure(func(s *authkittest.Settings) { s.RateLimit = true })
		began := time.Now()
		var wg sync.WaitGroup
		for i := range cookies {
			wg.Go(func() {
				for time.Since(began) < 30*time.Minute {
					p := a.page(t.Context(), cookies[i])
					if p.session() != nil {
						return
					}
					p.expect(t, 503)
					time.Sleep(5 * time.Second)
				}
				t.Errorf("session %d did not come back", i)
			})
		}
		wg.Wait()
		t.Logf("%d sessions are back after %v under WorkOS's rate limits", users, time.Since(began))
	})
}

// Two thousand users at once, with refreshes and key rotations among them.
func TestNoAnswerCarriesAnotherUser(t *testing.T) {
	t.Parallel() // it is long
	bubble(t, func(t *testing.T, a *application) {
		const users, requests = 2_000, 50
		emails := a.users(users)
		var answers, refreshed atomic.Int64
		var wg sync.WaitGroup
		for i, email := range emails {
			cookie := a.sealed(email)
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				for range requests {
					p := a.page(t.Context(), cookie)
					if s := p.session(); s == nil || s.User.Email != email {
						t.Errorf("%s is answered with %s %.200s", email, p.Status, p.body)
						return
					}
					answers.Add(1)
					if next := cookieOf(cookie, p); next != cookie {
						refreshed.Add(1)
						cookie = next
					}
					time.Sleep(20 * time.Second)
				}
			})
		}
		for range 5 {
			time.Sleep(3 * time.Minute)
			a.workos.RotateKeys()
		}
		wg.Wait()
		t.Logf("%d answers, %d refreshed cookies, 5 key rotations, none of another user", answers.Load(), refreshed.Load())
		if answers.Load() != users*requests {
			t.Errorf("want %d answers", users*requests)
		}
	})
}

// An application's hooks may panic: net/http ends the request, and nothing else.
func TestPanicInAHookHarmsItsOwnRequestOnly(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		cookie := a.sealed(ada)
		expire()
		boom.Store(true)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is hidden")
				}
			}()
			a.page(t.Context(), cookie)
		}()
		boom.Store(false)
		a.page(t.Context(), cookie).expectSession(t)
		t.Logf("signed in after the panic, %d refreshes", a.refreshes())
	}, func(o *authkit.Options) {
		o.ClientIP = func(*http.Request) string {
			if boom.Load() {
				panic("hook")
			}
			return ""
		}
	})
}

var boom atomic.Bool

// A logout races a refresh at a hundred points; whoever copied the cookie stays
// out, whether the session was in memory or not.
func TestLogoutRacingARefreshStaysALogout(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		const points = 100
		revived := 0
		for i := range points {
			cookie := a.sealed(ada)
			hot := i%2 == 0
			if hot {
				a.page(t.Context(), cookie).expectSession(t)
			}
			expire()
			a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Delay: 50 * time.Millisecond})
			var got page
			var wg sync.WaitGroup
			wg.Go(func() { got = a.page(t.Context(), cookie) })
			time.Sleep(time.Duration(i) * time.Millisecond)
			answer(a, request("POST", "/logout", "Cookie", cookie)).expect(t, 303)
			wg.Wait()
			for _, copied := range []string{cookie, cookieOf(cookie, got)} {
				for range 3 {
					if a.page(t.Context(), copied).session() != nil {
						revived++
					}
					time.Sleep(time.Minute)
				}
			}
		}
		t.Logf("%d of %d logouts undone", revived, points)
		if revived > 0 {
			t.Fail()
		}
	})
}

// What WorkOS may answer for the key set, and for how long a request waits.
func TestKeySetFaults(t *testing.T) {
	faults := map[string]authkittest.Fault{
		"400": {Status: 400}, "401": {Status: 401}, "403": {Status: 403}, "404": {Status: 404, Body: `{"message":"Not Found"}`},
		"408": {Status: 408}, "429": {Status: 429}, "500": {Status: 500}, "503": {Status: 503},
		"a redirect": {Status: 302, Header: http.Header{"Location": {"https://evil.test/"}}},
		"HTML":       {Status: 200, Body: "<html>"}, "nothing": {Status: 200}, "null": {Status: 200, Body: "null"},
		"an empty set": {Status: 200, Body: `{"keys":[]}`}, "wrong types": {Status: 200, Body: `{"keys":{"kid":1}}`},
		"cut": {CutAfter: 50}, "reset": {DropReply: true}, "hung": {Hang: true}, "endless": {Handler: endless},
		"slow": {Delay: 6 * time.Second}, "one byte a second": {Handler: trickle},
	}
	for promise, fault := range faults {
		t.Run(promise, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *application) {
				cookie := a.sealed(ada)
				a.workos.Fail(authkittest.KeySet, -1, fault)
				began := time.Now()
				p := a.page(t.Context(), cookie)
				p.expect(t, 503)
				if took := time.Since(began); took > 5*time.Second || p.Header["Set-Cookie"] != nil {
					t.Errorf("after %v, Set-Cookie %q", took, p.Header["Set-Cookie"])
				}
				a.workos.Heal()
				time.Sleep(2 * time.Second)
				a.page(t.Context(), cookie).expectSession(t)
			})
		})
	}
}

// trickle writes a body one byte a second.
func trickle(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(" ")); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
	}
}

// A server whose certificate is not trusted is a WorkOS that cannot be reached.
func TestTLSFailureIsAnOutage(t *testing.T) {
	impostor := httptest.NewUnstartedServer(http.NotFoundHandler())
	impostor.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of the handshake
	impostor.StartTLS()
	defer impostor.Close()
	a := newApplication(t)
	cookie := a.sealed(ada)
	a.opts.BaseURL, a.opts.HTTPClient = impostor.URL, nil
	a.restart()
	var got error
	w := httptest.NewRecorder()
	_, got = a.kit.Authenticate(w, request("GET", "/", with(fetch, "Cookie", cookie)...))
	if !errors.Is(got, authkit.ErrUnavailable) || w.Header()["Set-Cookie"] != nil {
		t.Errorf("%v, %q", got, w.Header()["Set-Cookie"])
	}
}

// Whoever has a token of a new key is served at once, however often keys rotate.
func TestKeyRotationsFailNoRequest(t *testing.T) {
	t.Parallel() // it is long
	bubble(t, func(t *testing.T, a *application) {
		cookie := a.sealed(ada)
		served := 0
		for i := range 500 {
			if i%7 == 0 {
				a.workos.RotateKeys()
			}
			if i%21 == 0 {
				a.workos.RetireKeys()
			}
			p := a.page(t.Context(), cookie)
			p.expectSession(t)
			cookie = cookieOf(cookie, p)
			served++
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		t.Logf("%d requests over 71 key rotations, all served", served)
	})
}
