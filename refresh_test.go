package authkit_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// refreshes counts the refreshes that reached WorkOS.
func (a *application) refreshes() int {
	n := 0
	for _, r := range a.workos.Requests(authkittest.Authenticate) {
		if r.Body["grant_type"] == "refresh_token" {
			n++
		}
	}
	return n
}

// bubble runs a test with an application whose time costs nothing.
func bubble(t *testing.T, test func(t *testing.T, a *application), change ...func(*authkit.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newApplication(t, change...)) })
}

func TestExpiredTokenIsRefreshedInLine(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		before := b.get("/dashboard")
		expire()
		after := b.get("/dashboard")
		after.expectSession(t)
		if a.refreshes() != 1 || after.setCookie("wos-session") == "" {
			t.Errorf("%d refreshes, Set-Cookie %q", a.refreshes(), after.Header["Set-Cookie"])
		}
		if after.session().ID != before.session().ID || !after.session().ExpiresAt.After(time.Now()) {
			t.Errorf("session %+v", after.session())
		}
		if after.Header.Get("CDN-Cache-Control") != "no-store" || after.Header.Get("Expires") != "0" {
			t.Errorf("caching: %v", after.Header)
		}
		b.get("/dashboard").expectSession(t)
		if a.refreshes() != 1 {
			t.Errorf("%d refreshes, want 1: the new cookie is not used", a.refreshes())
		}
	})
}

func TestRefreshSendsTheOrganization(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		expire()
		s := b.get("/dashboard").session()
		requests := a.workos.Requests(authkittest.Authenticate)
		sent := requests[len(requests)-1].Body
		if sent["organization_id"] != "org_01ORCHARD" || s.OrganizationID != "org_01ORCHARD" {
			t.Errorf("sent %v, got %q", sent["organization_id"], s.OrganizationID)
		}
	})
}

func TestRefreshBringsTheUserUpToDate(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		a.workos.UpdateUser(authkittest.User{ID: "user_01ADA", Email: ada, FirstName: "Augusta"})
		if got := b.get("/dashboard").session().User.FirstName; got != "Ada" {
			t.Errorf("before: %q", got)
		}
		expire()
		if got := b.get("/dashboard").session().User.FirstName; got != "Augusta" {
			t.Errorf("after: %q", got)
		}
	})
}

func TestImpersonatorIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.Impersonate(ada, "support@example.test", "ticket 42")
		b := a.signIn()
		for range 2 {
			s := b.get("/dashboard").session()
			if s.Impersonator == nil || s.Impersonator.Email != "support@example.test" || s.Impersonator.Reason != "ticket 42" {
				t.Errorf("impersonator %+v", s.Impersonator)
			}
			expire()
		}
	})
}

// together sends n requests with the same cookie, spread over a time.
func together(b *browser, n int, spread time.Duration) []page {
	pages := make([]page, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			time.Sleep(spread * time.Duration(i) / time.Duration(n))
			pages[i] = b.get("/dashboard")
		})
	}
	wg.Wait()
	return pages
}

func TestParallelRequestsShareOneRefresh(t *testing.T) {
	for promise, spread := range map[string]time.Duration{"at once": 0, "spread over the refresh and after it": 600 * time.Millisecond} {
		t.Run(promise, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *application) {
				b := a.signIn().frozen()
				expire()
				a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Delay: 300 * time.Millisecond})
				var session string
				for _, p := range together(b, 200, spread) {
					p.expectSession(t)
					if p.setCookie("wos-session") == "" {
						t.Error("an answer without the new cookie")
					}
					session = p.session().ID
				}
				if a.refreshes() != 1 {
					t.Errorf("%d refreshes for session %s, want 1", a.refreshes(), session)
				}
			})
		})
	}
}

func TestTwoSessionsNeverShareARefresh(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.AddUser(authkittest.User{Email: "bo@example.test", FirstName: "Bo"})
		client, err := a.workos.SignIn(a, "/login", "bo@example.test")
		if err != nil {
			t.Fatal(err)
		}
		first, second := a.signIn(), &browser{t, client}
		expire()
		var wg sync.WaitGroup
		wg.Go(func() { first.get("/dashboard").expectSession(t) })
		wg.Go(func() {
			if s := second.get("/dashboard").session(); s == nil || s.User.FirstName != "Bo" {
				t.Errorf("Bo is shown %+v", s)
			}
		})
		wg.Wait()
		if a.refreshes() != 2 {
			t.Errorf("%d refreshes, want 2", a.refreshes())
		}
	})
}

// A browser that lost the reply with the new cookie is served from memory, long
// after WorkOS has forgotten the old token.
func TestOldCookieIsServedWhileTheNewTokenLives(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		old := b.frozen()
		expire()
		newest := b.get("/dashboard").session()
		for range 4 {
			p := old.get("/dashboard")
			p.expectSession(t)
			if !p.session().ExpiresAt.Equal(newest.ExpiresAt) || p.setCookie("wos-session") == "" {
				t.Errorf("session until %v, want %v", p.session().ExpiresAt, newest.ExpiresAt)
			}
			time.Sleep(time.Minute)
		}
		if a.refreshes() != 1 {
			t.Errorf("%d refreshes, want 1", a.refreshes())
		}
	})
}

// A late request never puts an older session over a newer one.
func TestGrandparentsCookieLeadsToTheNewestSession(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		grandparent := b.frozen()
		expire()
		b.get("/dashboard").expectSession(t)
		parent := b.frozen()
		time.Sleep(5*time.Minute - 20*time.Second) // near the expiry of the second token
		newest := b.get("/dashboard").session()
		for _, late := range []*browser{grandparent, parent} {
			if got := late.get("/dashboard").session(); got == nil || !got.ExpiresAt.Equal(newest.ExpiresAt) {
				t.Errorf("a late request gets %v, want the session until %v", got, newest.ExpiresAt)
			}
		}
		if a.refreshes() != 2 {
			t.Errorf("%d refreshes, want 2", a.refreshes())
		}
	})
}

// The process restarts between the refresh and the browser's next request: WorkOS
// repeats itself for 30 seconds.
func TestRestartInsideTheReplayWindow(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		old := b.frozen()
		expire()
		newest := b.get("/dashboard").session()
		time.Sleep(29 * time.Second)
		a.restart()
		if got := old.get("/dashboard").session(); got == nil || !got.ExpiresAt.Equal(newest.ExpiresAt) {
			t.Errorf("after the restart: %v", got)
		}
	})
}

func TestNearExpiryOneRequestRefreshesAndNobodyWaitsLong(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		old := b.frozen()
		time.Sleep(5*time.Minute - 20*time.Second)
		a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Delay: 5 * time.Second})

		var waited, brought int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				began := time.Now()
				p := old.get("/dashboard")
				p.expectSession(t)
				mu.Lock()
				defer mu.Unlock()
				if time.Since(began) > 0 {
					waited++
				}
				if time.Since(began) > 2*time.Second {
					t.Errorf("waited %v", time.Since(began))
				}
				if p.setCookie("wos-session") != "" {
					brought++
				}
			})
		}
		wg.Wait()
		if waited != 1 || brought != 0 {
			t.Errorf("%d requests waited, want 1; %d brought a cookie, want 0", waited, brought)
		}

		time.Sleep(4 * time.Second) // the refresh went on
		p := old.get("/dashboard")
		p.expectSession(t)
		if p.setCookie("wos-session") == "" || a.refreshes() != 1 {
			t.Errorf("the next request brings %q after %d refreshes", p.setCookie("wos-session"), a.refreshes())
		}
	})
}

func TestRefreshBefore(t *testing.T) {
	for _, c := range []struct {
		promise  string
		option   time.Duration
		lifetime time.Duration
		at       time.Duration // before expiry
		refresh  bool
	}{
		{"5 minutes: 31 s before is early", 0, 5 * time.Minute, 31 * time.Second, false},
		{"5 minutes: 29 s before is time", 0, 5 * time.Minute, 29 * time.Second, true},
		{"an hour: 61 s before is early", 0, time.Hour, 61 * time.Second, false},
		{"an hour: 59 s before is time", 0, time.Hour, 59 * time.Second, true},
		{"a minute: never more than a quarter", 0, time.Minute, 16 * time.Second, false},
		{"a minute: the last quarter", 0, time.Minute, 14 * time.Second, true},
		{"a value of one's own", 2 * time.Minute, time.Hour, 119 * time.Second, true},
		{"a value of one's own, too early", 2 * time.Minute, time.Hour, 121 * time.Second, false},
		{"negative: not before it expires", -1, time.Hour, time.Second, false},
		{"negative: once it has expired", -1, time.Hour, 0, true},
	} {
		t.Run(c.promise, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *application) {
				a.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = c.lifetime })
				b := a.signIn()
				time.Sleep(c.lifetime - c.at)
				b.get("/dashboard").expectSession(t)
				if refreshed := a.refreshes() == 1; refreshed != c.refresh {
					t.Errorf("%d refreshes", a.refreshes())
				}
			}, func(o *authkit.Options) { o.RefreshBefore = c.option })
		})
	}
}

func TestWebSocketIsNotRefreshedWhileItsTokenIsValid(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		time.Sleep(5*time.Minute - 20*time.Second)
		upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Fetch-Mode", "websocket"}
		b.get("/dashboard", upgrade...).expectSession(t)
		if a.refreshes() != 0 {
			t.Errorf("%d refreshes for a valid token", a.refreshes())
		}
		expire()
		b.get("/dashboard", upgrade...).expectSession(t)
		if a.refreshes() != 1 {
			t.Errorf("%d refreshes for an expired token", a.refreshes())
		}
	})
}

// Only these three words of WorkOS end a session.
func TestTerminalReplies(t *testing.T) {
	for _, body := range []string{
		`{"error":"invalid_grant","error_description":"Refresh token already exchanged."}`,
		`{"message":"Invalid refresh token","code":"invalid_grant"}`,
		`{"code":"mfa_enrollment","message":"m"}`,
		`{"error":"sso_required","email":"ada@example.test","connection_ids":["conn_1"]}`,
	} {
		for _, near := range []bool{false, true} {
			bubble(t, func(t *testing.T, a *application) {
				b := a.signIn()
				if near {
					time.Sleep(5*time.Minute - 20*time.Second)
				} else {
					expire()
				}
				a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Status: 400, Body: body})
				if near { // the token is good until it expires: no answer on its way is overtaken
					p := b.get("/dashboard")
					if p.expectSession(t); p.Header["Set-Cookie"] != nil {
						t.Errorf("%s: Set-Cookie %q", body, p.Header["Set-Cookie"])
					}
					time.Sleep(time.Minute)
				}
				p := b.stay().get("/dashboard")
				p.expectRedirect(t, 302, "/login?return_to=%2Fdashboard")
				if line := p.setCookie("wos-session"); !strings.Contains(line, "Max-Age=0") {
					t.Errorf("%s: Set-Cookie %q", body, line)
				}
				if a.refreshes() != 1 {
					t.Errorf("%s: asked %d times", body, a.refreshes())
				}
			})
		}
	}
}

func TestRevokedSessionEndsAtItsNextRefresh(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		if err := a.kit.Client().RevokeSession(context.Background(), b.get("/dashboard").session().ID); err != nil {
			t.Fatal(err)
		}
		b.get("/dashboard").expectSession(t)
		expire()
		b.get("/dashboard", fetch...).expect(t, 401)
	})
}

// Whoever keeps sending a dead cookie does not spend WorkOS's rate limit.
func TestRefusalIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		a.workos.Revoke(b.get("/dashboard").session().ID)
		expire()
		dead := b.frozen()
		for range 100 {
			dead.get("/dashboard", fetch...).expect(t, 401)
		}
		if a.refreshes() != 1 {
			t.Errorf("%d calls for one dead cookie", a.refreshes())
		}
	})
}

// A fault of the configuration, or of a JWT template, that is mended later: the
// tokens that were traded meanwhile have reached the browser.
func TestMisconfigurationSignsNobodyOut(t *testing.T) {
	template := func(claims map[string]any) func(*application) {
		return func(a *application) {
			a.workos.Configure(func(s *authkittest.Settings) { s.Claims = claims })
		}
	}
	issuers := func(issuers ...string) func(*application) {
		return func(a *application) { a.opts.Issuers = issuers; a.restart() }
	}
	clock := func(offset time.Duration) func(*application) {
		return func(a *application) {
			a.workos.Configure(func(s *authkittest.Settings) { s.ClockOffset = offset })
		}
	}
	for promise, c := range map[string]struct{ spoil, mend func(*application) }{
		"an issuer that is not listed":   {issuers("https://auth.example.test"), issuers()},
		"a clock that is 10 minutes off": {clock(-10 * time.Minute), clock(0)},
		"a role that is an object":       {template(map[string]any{"role": map[string]any{"x": 1}}), template(nil)},
		"a token without sub":            {template(map[string]any{"client_id": "client_other"}), template(nil)},
	} {
		for _, expired := range []bool{true, false} {
			t.Run(promise, func(t *testing.T) {
				bubble(t, func(t *testing.T, a *application) {
					b := a.signIn()
					if expired {
						expire()
					}
					c.spoil(a)
					first := b.get("/dashboard")
					if expired || promise == "an issuer that is not listed" {
						first.expect(t, 503, "not set up correctly")
					}
					time.Sleep(40 * time.Second) // past the replay window
					b.get("/dashboard")
					time.Sleep(40 * time.Second)
					c.mend(a)
					a.restart()
					b.get("/dashboard").expectSession(t)
				})
			})
		}
	}
}

// Nobody is signed out for a detail of the user that has another type than
// documented.
func TestOddUserFieldsAreLeftOut(t *testing.T) {
	for _, odd := range [][2]string{
		{`"metadata":{"plan":"pro"}`, `"metadata":{"plan":1}`},
		{`"metadata":{"plan":"pro"}`, `"metadata":[]`},
		{`"email_verified":true`, `"email_verified":"true"`},
		{`"locale":null`, `"locale":{}`},
		{`"external_id":null`, `"external_id":7,"last_sign_in_at":"yesterday"`},
	} {
		bubble(t, func(t *testing.T, a *application) {
			b := a.signIn()
			expire()
			p := b.get("/dashboard")
			p.expectSession(t)
			if s := p.session(); s.User.FirstName != "Ada" {
				t.Errorf("%s: %+v", odd[1], s.User)
			}
		}, func(o *authkit.Options) {
			transport := o.HTTPClient.Transport
			o.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				resp, err := transport.RoundTrip(r)
				if err != nil || !strings.HasSuffix(r.URL.Path, "/authenticate") {
					return resp, err
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if !strings.Contains(string(body), odd[0]) {
					t.Errorf("no %s in the reply", odd[0])
				}
				resp.Body = io.NopCloser(strings.NewReader(strings.Replace(string(body), odd[0], odd[1], 1)))
				return resp, err
			})}
		})
	}
}

// The request that refreshes is slow to answer, and another replica is asked for
// the same session meanwhile: WorkOS refuses the old token, which is still good.
func TestRefusalOfATokenThatIsStillValid(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = time.Hour })
		b := a.signIn()
		replicas := a.replicas(2)
		a.mux = http.NewServeMux()
		a.mux.Handle("/poll", replicas[0].kit.WithAuth(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(45 * time.Second) })))
		a.mux.Handle("/", replicas[1].mux)

		time.Sleep(time.Hour - 55*time.Second)
		var wg sync.WaitGroup
		wg.Go(func() { b.get("/poll", fetch...).expect(t, 200) })
		time.Sleep(40 * time.Second)
		b.get("/dashboard").expectSession(t)
		wg.Wait()
		time.Sleep(time.Minute)
		b.get("/dashboard").expectSession(t)
	})
}

// A refresh that had to wait for its turn still has time for the answer.
func TestWaitingForATurnCostsNoReply(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		var cookies []string
		for range 200 {
			cookies = append(cookies, a.sealed(ada))
		}
		expire()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Delay: 9 * time.Second})
		var wg sync.WaitGroup
		for i, cookie := range cookies {
			wg.Go(func() {
				for a.page(t.Context(), cookie).session() == nil {
					time.Sleep(2 * time.Second)
				}
				if a.page(t.Context(), cookie).session() == nil {
					t.Errorf("session %d is lost", i)
				}
			})
		}
		wg.Wait()
		if a.refreshes() != len(cookies) {
			t.Errorf("%d calls for %d sessions", a.refreshes(), len(cookies))
		}
	})
}

// Whatever else WorkOS answers, the session is kept: a valid token is served, an
// expired one gets 503, and a moment later all is well.
func TestTransientReplies(t *testing.T) {
	faults := map[string]authkittest.Fault{
		"400 of another kind":         {Status: 400, Body: `{"error":"invalid_request"}`},
		"400 without a body":          {Status: 400},
		"401 for a bad API key":       {Status: 401, Body: `{"message":"Unauthorized","code":"unauthorized"}`},
		"403 of a proxy":              {Status: 403, Body: "<html>forbidden"},
		"404":                         {Status: 404, Body: `{"message":"Not found"}`},
		"408":                         {Status: 408},
		"422":                         {Status: 422, Body: `{"code":"invalid_request_parameters"}`},
		"429":                         {Status: 429, Body: `{"error":"too_many_requests"}`},
		"429 with a long Retry-After": {Status: 429, Header: http.Header{"Retry-After": {"3600"}}},
		"500":                         {Status: 500, Body: `{"message":"oops"}`},
		"502 with HTML":               {Status: 502, Body: "<html>bad gateway"},
		"503 with Retry-After":        {Status: 503, Header: http.Header{"Retry-After": {"1"}}},
		"a redirect":                  {Status: 307, Header: http.Header{"Location": {"https://evil.test/"}}},
		"HTML with 200":               {Status: 200, Body: "<html>captive portal"},
		"nothing with 200":            {Status: 200},
		"null":                        {Status: 200, Body: "null"},
		"wrong types":                 {Status: 200, Body: `{"user":"x","access_token":[],"refresh_token":{}}`},
		"no tokens":                   {Status: 200, Body: `{"user":{"id":"user_01ADA"}}`},
		"an endless reply":            {Handler: endless},
		"a cut reply":                 {CutAfter: 30},
		"a lost reply":                {DropReply: true},
		"no reply":                    {Hang: true},
		"a slow reply":                {Delay: 9 * time.Second, Status: 500},
		"another user's tokens":       {Handler: nil}, // see below
		"another user's access token": {Handler: nil},
	}
	for promise, fault := range faults {
		t.Run(promise, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *application) {
				switch promise {
				case "another user's tokens":
					fault = anothersTokens(t, a, "")
				case "another user's access token":
					fault = anothersTokens(t, a, "user_01ADA")
				}
				b := a.signIn()
				cookie := b.cookies()["wos-session"]
				time.Sleep(5*time.Minute - 20*time.Second)
				a.workos.Fail(authkittest.Authenticate, -1, fault)

				began := time.Now()
				p := b.get("/dashboard")
				p.expectSession(t)
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("a valid token waited %v", took)
				}

				expire()
				began = time.Now()
				p = b.stay().get("/dashboard")
				p.expect(t, 503, `href="/dashboard"`)
				if took := time.Since(began); took > 26*time.Second {
					t.Errorf("an expired token waited %v", took)
				}
				if p.Header.Get("Retry-After") == "" || len(p.Header["Set-Cookie"]) != 0 {
					t.Errorf("Retry-After %q, Set-Cookie %q", p.Header.Get("Retry-After"), p.Header["Set-Cookie"])
				}
				if b.cookies()["wos-session"] != cookie {
					t.Error("the cookie has changed")
				}

				a.workos.Heal()
				if promise == "a lost reply" || promise == "a cut reply" {
					return // WorkOS has rotated; see TestLostReply
				}
				time.Sleep(6 * time.Second)
				b.get("/dashboard").expectSession(t)
			})
		})
	}
}

// endless writes a body without end, until the client has had enough.
func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
			return
		}
	}
}

// anothersTokens answers with tokens of Eve, as those of the user given.
func anothersTokens(t *testing.T, a *application, as string) authkittest.Fault {
	a.workos.AddUser(authkittest.User{Email: "eve@example.test"})
	auth, err := a.workos.NewSession("eve@example.test", "")
	if err != nil {
		t.Fatal(err)
	}
	if as == "" {
		as = auth.User.ID
	}
	return authkittest.Fault{Status: 200, Body: `{"user":{"id":"` + as + `"},"access_token":"` + auth.AccessToken + `","refresh_token":"` + auth.RefreshToken + `"}`}
}

// The reply to a refresh is lost after WorkOS rotated the token.
func TestLostReplyIsAskedForAgain(t *testing.T) {
	for promise, fault := range map[string]authkittest.Fault{
		"lost": {DropReply: true}, "cut": {CutAfter: 30}, "500 after the work": {DropReply: true}, "never sent": {Hang: true},
	} {
		t.Run(promise, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *application) {
				b := a.signIn()
				expire()
				a.workos.Fail(authkittest.Authenticate, 1, fault)
				b.get("/dashboard").expectSession(t)
				b.get("/dashboard").expectSession(t)
				if a.refreshes() != 2 {
					t.Errorf("%d calls, want 2", a.refreshes())
				}
			})
		})
	}
}

// A browser that leaves does not waste the rotated token.
func TestBrowserThatLeavesDuringRefresh(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		old := a.signIn().frozen()
		expire()
		a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Delay: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", authkittest.AppURL+"/dashboard", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.client.Do(r); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the browser did not leave: %v", err)
		}
		time.Sleep(time.Minute)
		old.get("/dashboard").expectSession(t)
		if a.refreshes() != 1 {
			t.Errorf("%d refreshes, want 1", a.refreshes())
		}
	})
}

func TestRefreshObeysRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		expire()
		a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3"}}})
		began := time.Now()
		b.get("/dashboard").expectSession(t)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("asked again after %v, want 3s", took)
		}

		expire()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3600"}}})
		p := b.get("/dashboard")
		p.expect(t, 503)
		if got := p.Header.Get("Retry-After"); got != "30" {
			t.Errorf("passes on Retry-After %q, want 30", got)
		}
	})
}

// One session that cannot be refreshed does not stop the others.
func TestOneSessionsTroubleIsItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		troubled, other := a.sealed(ada), a.sealed(ada)
		a.page(t.Context(), other).expectSession(t)
		expire()
		a.workos.Fail(authkittest.Authenticate, 20, authkittest.Fault{Status: 503})
		for range 10 {
			a.page(t.Context(), troubled).expect(t, 503)
		}
		a.page(t.Context(), other).expectSession(t)
	})
}

// What cannot be verified is not asked for: the token would be spent.
func TestNothingIsRefreshedWithoutAKeySet(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		cookie := a.sealed(ada)
		expire()
		a.workos.Fail(authkittest.KeySet, -1, authkittest.Fault{Status: 503})
		a.page(t.Context(), cookie).expect(t, 503)
		if a.refreshes() != 0 {
			t.Errorf("%d refreshes", a.refreshes())
		}
	})
}

func TestRequestTimeoutIsRetried(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		cookie := a.sealed(ada)
		expire()
		a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Status: 408})
		a.page(t.Context(), cookie).expectSession(t)
	})
}

// In an outage WorkOS is not stormed, and recovers unhindered.
func TestOutagePausesRefreshing(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		const users = 40
		var browsers []*browser
		for range users {
			browsers = append(browsers, a.signIn())
		}
		expire()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Status: 503})
		before := a.refreshes()
		for range 60 { // a minute
			for _, b := range browsers[:10] {
				b.get("/dashboard").expect(t, 503)
			}
			time.Sleep(time.Second)
		}
		if calls := a.refreshes() - before; calls > 60 {
			t.Errorf("%d calls during a minute's outage", calls)
		}

		a.workos.Heal()
		time.Sleep(5 * time.Second)
		for _, b := range browsers {
			b.get("/dashboard").expectSession(t)
		}
	})
}

func TestAtMost64RefreshesInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		var browsers []*browser
		for range 100 {
			browsers = append(browsers, a.signIn())
		}
		expire()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Delay: time.Second})
		var wg sync.WaitGroup
		for _, b := range browsers {
			wg.Go(func() { b.get("/dashboard").expectSession(t) })
		}
		wg.Wait()
		if most := a.workos.MostInFlight(authkittest.Authenticate); most != 64 {
			t.Errorf("%d in flight, want 64", most)
		}
	})
}

// A hook that panics harms its own request only.
func TestPanicInTheHTTPClientEndsNothing(t *testing.T) {
	panics := false
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		expire()
		panics = true
		b.get("/dashboard").expect(t, 503)
		panics = false
		b.get("/dashboard").expectSession(t)

		a.restart()
		panics = true
		b.get("/dashboard").expect(t, 503) // the key set, this time
		panics = false
		time.Sleep(time.Second)
		b.get("/dashboard").expectSession(t)
	}, func(o *authkit.Options) {
		transport := o.HTTPClient.Transport
		o.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if panics {
				panic("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9")
			}
			return transport.RoundTrip(r)
		})}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// So does a log handler that panics, in our goroutine or in the request's.
func TestPanicInTheLogHandlerEndsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		expire()
		a.opts.Logger = slog.New(panickingHandler{})
		a.restart()
		a.workos.Fail(authkittest.KeySet, 1, authkittest.Fault{Status: 500})
		b.getOrLose(t)
		time.Sleep(2 * time.Second)
		b.get("/dashboard").expectSession(t)
	})
}

// getOrLose asks for the dashboard, and takes an answer or none, but no login.
func (b *browser) getOrLose(t *testing.T) {
	t.Helper()
	resp, err := b.client.Get(authkittest.AppURL + "/dashboard")
	if err != nil {
		return
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusFound {
		t.Error("sent to log in")
	}
}

type panickingHandler struct{}

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("log") }
func (h panickingHandler) WithAttrs([]slog.Attr) slog.Handler      { return h }
func (h panickingHandler) WithGroup(string) slog.Handler           { return h }

// A key that left the key set is not trusted, and its users stay signed in.
func TestKeyRotation(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		a.workos.RotateKeys()
		b.get("/dashboard").expectSession(t)
		if a.refreshes() != 0 {
			t.Error("a token of the old key was refreshed while the key was good")
		}
		fresh := a.signIn() // the first token of the new key, at once
		fresh.get("/dashboard").expectSession(t)

		a.workos.RetireKeys()
		time.Sleep(61 * time.Minute)
		fresh.get("/dashboard").expectSession(t) // has the key set fetched
		time.Sleep(time.Second)
		b.get("/dashboard").expectSession(t)
	})
}

func TestTokenOfARetiredKeyIsRefreshedBeforeItExpires(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = 12 * time.Hour })
		b := a.signIn()
		a.workos.RotateKeys()
		a.workos.RetireKeys()
		time.Sleep(61 * time.Minute)
		b.get("/dashboard").expectSession(t) // stale keys serve; a fetch begins
		synctest.Wait()
		b.get("/dashboard").expectSession(t)
		if a.refreshes() != 1 {
			t.Errorf("%d refreshes: a retired key is still trusted", a.refreshes())
		}
	})
}

func TestRefreshedTokenOfARetiredKeyIsNotServedFromMemory(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = 12 * time.Hour })
		b := a.signIn()
		old := b.frozen()
		time.Sleep(12 * time.Hour)
		old.get("/dashboard").expectSession(t)
		a.workos.RotateKeys()
		a.workos.RetireKeys()
		time.Sleep(61 * time.Minute)
		old.get("/dashboard").expectSession(t) // has the key set fetched
		synctest.Wait()
		old.get("/dashboard").expectSession(t)
		if a.refreshes() != 2 {
			t.Errorf("%d refreshes: a retired key is still trusted", a.refreshes())
		}
	})
}

func TestKeySetDown(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = 3 * 24 * time.Hour })
		b := a.signIn()
		a.workos.Fail(authkittest.KeySet, -1, authkittest.Fault{Hang: true})

		time.Sleep(61 * time.Minute)
		began := time.Now()
		b.get("/dashboard").expectSession(t)
		if took := time.Since(began); took != 0 {
			t.Errorf("a warm verification waited %v", took)
		}
		time.Sleep(20 * time.Hour)
		b.get("/dashboard").expectSession(t)
		time.Sleep(4 * time.Hour) // the keys are more than a day old
		began = time.Now()
		b.get("/dashboard").expect(t, 503)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		b.get("/dashboard").expect(t, 503) // fails at once: not again so soon

		a.workos.Heal()
		time.Sleep(2 * time.Second)
		b.get("/dashboard").expectSession(t)
	})
}

func TestFirstFetchOfTheKeySetFails(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		a.restart()
		a.workos.Fail(authkittest.KeySet, 1, authkittest.Fault{Status: 200, Body: `{"keys":[]}`})
		p := b.get("/dashboard")
		p.expect(t, 503)
		if p.setCookie("wos-session") != "" {
			t.Error("the cookie is touched")
		}
		time.Sleep(time.Second)
		b.get("/dashboard").expectSession(t)
	})
}

// The refreshed token is signed with a new key while the key set is down: the
// token that it cost is spent, so the browser gets it with the 503.
func TestReplyThatCannotBeVerifiedYetReachesTheBrowser(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		expire()
		a.workos.RotateKeys()
		a.workos.Fail(authkittest.KeySet, -1, authkittest.Fault{Status: 500})
		b.get("/dashboard").expect(t, 503)
		time.Sleep(2 * time.Minute) // past the replay window
		b.get("/dashboard").expect(t, 503)
		a.workos.Heal()
		a.restart() // the browser has it, not the process
		b.get("/dashboard").expectSession(t)
		if a.refreshes() != 1 {
			t.Errorf("%d refreshes, want 1", a.refreshes())
		}
	})
}

func TestClocksThatDifferBy30Seconds(t *testing.T) {
	for _, offset := range []time.Duration{30 * time.Second, -30 * time.Second} {
		bubble(t, func(t *testing.T, a *application) {
			a.workos.Configure(func(s *authkittest.Settings) { s.ClockOffset = offset })
			b := a.signIn()
			for range 10 {
				b.get("/dashboard").expectSession(t)
				time.Sleep(time.Minute)
			}
		})
	}
}

// Streaming and hijacking work behind WithAuth, refreshed or not.
func TestStreamingBehindRefresh(t *testing.T) {
	a := newApplication(t, func(o *authkit.Options) { o.RefreshBefore = time.Hour })
	a.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = 2 * time.Second })
	a.mux.Handle("/stream", a.kit.WithAuth(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		io.WriteString(w, "event")
	})))
	server := httptest.NewServer(a)
	defer server.Close()
	b := a.signIn()
	r, err := http.NewRequest("GET", server.URL+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range b.cookies() {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "event" {
		t.Errorf("%q, %v", body, err)
	}
}
