package authkit_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// A request that may not be the user's own wish leaves the user signed in.
func TestLogoutIsTheUsersOwnWish(t *testing.T) {
	a := newApplication(t)
	own := authkittest.AppURL
	link := func(site string) []string {
		return []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", site, "Accept", "text/html"}
	}
	for _, c := range []struct {
		promise string
		method  string
		header  []string
		status  int // 302 and 303 log out
	}{
		{"a button on our page", "POST", with(link("same-origin"), "Origin", own), 303},
		{"a button in an old browser", "POST", []string{"Origin", own, "Accept", "text/html"}, 303},
		{"a program", "POST", []string{"Accept", "*/*"}, 303},
		{"a form on another site", "POST", link("cross-site"), 403},
		{"a form on a sibling host", "POST", link("same-site"), 403},
		{"a form on another site in an old browser", "POST", []string{"Origin", "https://evil.test", "Accept", "text/html"}, 403},
		{"a form of nowhere", "POST", []string{"Origin", "null", "Accept", "text/html"}, 403},
		{"a form that names our host as its own", "POST", []string{"Origin", "http://app.test", "Accept", "text/html"}, 403},
		{"a link on our page", "GET", link("same-origin"), 302},
		{"a typed address", "GET", link("none"), 302},
		{"a link on our page in an old browser", "GET", []string{"Accept", "text/html", "Referer", own + "/dashboard"}, 302},
		{"a link on another site", "GET", link("cross-site"), 200},
		{"a link on a sibling host", "GET", link("same-site"), 200},
		{"a link on another site in an old browser", "GET", []string{"Accept", "text/html", "Referer", "https://evil.test/"}, 200},
		{"a link that hides where it stands", "GET", []string{"Accept", "text/html"}, 200},
		{"a lookalike of our origin", "GET", []string{"Accept", "text/html", "Referer", own + ".evil.test/"}, 200},
		{"our origin as a user name", "GET", []string{"Accept", "text/html", "Referer", "https://app.test@evil.test/"}, 200},
		{"an image on our page", "GET", []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image", "Sec-Fetch-Site", "same-origin"}, 405},
		{"a frame on our page", "GET", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "Sec-Fetch-Site", "same-origin"}, 200},
		{"a prefetch on our page", "GET", with(link("same-origin"), "Sec-Purpose", "prefetch"), 405},
		{"fetch on our page", "GET", fetch, 405},
		{"HEAD", "HEAD", link("same-origin"), 204},
		{"another method", "DELETE", link("same-origin"), 405},
	} {
		t.Run(c.promise, func(t *testing.T) {
			b := a.signIn()
			p := b.stay().send(c.method, "/logout", "", c.header...)
			p.expect(t, c.status)
			signedIn := b.get("/dashboard", fetch...).session() != nil
			if loggedOut := c.status == 302 || c.status == 303; loggedOut == signedIn {
				t.Errorf("still signed in: %v", signedIn)
			}
			if signedIn && p.Header["Set-Cookie"] != nil {
				t.Errorf("sets %q", p.Header["Set-Cookie"])
			}
		})
	}
}

func TestLogoutPageAsksWithAButtonThatWorks(t *testing.T) {
	a := newApplication(t)
	b := a.signIn()
	p := b.stay().get("/logout", "Accept", "text/html", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "cross-site")
	// Without the meta element, browsers without Sec-Fetch send "Origin: null".
	p.expect(t, 200, `<form method="post"><button>Sign out</button></form>`, `<meta name="referrer" content="same-origin">`)
}

func TestLogoutEndsTheSessionEverywhere(t *testing.T) {
	for _, c := range []struct {
		promise string
		before  func(*application, *browser)
	}{
		{"with a valid token", func(*application, *browser) {}},
		{"with an expired token", func(*application, *browser) { expire() }},
		{"with WorkOS down", func(a *application, _ *browser) {
			expire()
			a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Status: 503})
			a.workos.Fail(authkittest.KeySet, -1, authkittest.Fault{Status: 503})
		}},
		{"with the cookie of before the last refresh", func(a *application, b *browser) {
			old := b.frozen()
			expire()
			old.get("/dashboard").expectSession(a.t)
		}},
	} {
		t.Run(c.promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newApplication(t, func(o *authkit.Options) { o.LogoutReturnTo = authkittest.AppURL + "/bye" })
				a.t = t
				b := a.signIn()
				id := b.get("/dashboard").session().ID
				begin(t, b, "/login") // leaves a login cookie
				copied := b.frozen()
				c.before(a, b)

				p := b.stay().send("POST", "/logout", "")
				want := a.workos.URL() + "/user_management/sessions/logout?" + url.Values{"session_id": {id}, "return_to": {authkittest.AppURL + "/bye"}}.Encode()
				p.expectRedirect(t, 303, want)
				if left := b.cookies(); len(left) != 0 {
					t.Errorf("cookies left: %v", left)
				}

				a.workos.Heal()
				r, err := http.NewRequest("GET", want, nil)
				if err != nil {
					t.Fatal(err)
				}
				b.stay().do(r).expectRedirect(t, 302, authkittest.AppURL+"/bye")
				if left := a.workos.ActiveSessions(); len(left) != 0 {
					t.Errorf("sessions left at WorkOS: %v", left)
				}
				copied.get("/dashboard", fetch...).expect(t, 401)
			})
		})
	}
}

func TestLogoutWithoutASession(t *testing.T) {
	a := newApplication(t)
	a.visitor().stay().send("POST", "/logout", "").expectRedirect(t, 303, "/")

	b := a.visitor()
	b.setCookie("wos-session", strings.Repeat("x", 300))
	p := b.stay().send("POST", "/logout", "")
	p.expectRedirect(t, 303, "/")
	if len(b.cookies()) != 0 {
		t.Errorf("cookies left: %v", b.cookies())
	}
}

// WorkOS may never hear of a logout, and sign the user in again under the same
// session id.
func TestLoginAfterALogoutThatWorkOSNeverHeardOf(t *testing.T) {
	a := newApplication(t)
	a.workos.Configure(func(s *authkittest.Settings) { s.Claims = map[string]any{"sid": "session_01SAME"} })
	b := a.signIn()
	b.stay().send("POST", "/logout", "").expect(t, 303)
	b.get("/dashboard").expectSession(t)
}

// htmx follows redirects in the background, where other sites are out of reach.
func TestHTMXLeavesThePageToLogInAndOut(t *testing.T) {
	a := newApplication(t)
	htmx := with(fetch, "HX-Request", "true", "HX-Boosted", "true")
	p := answer(a, request("GET", "/login", htmx...))
	if to := p.Header.Get("HX-Redirect"); p.StatusCode != 204 || !strings.HasPrefix(to, a.workos.URL()) || len(p.Header["Set-Cookie"]) != 1 {
		t.Errorf("login: %s to %q, %q", p.Status, to, p.Header["Set-Cookie"])
	}
	p = a.signIn().stay().send("POST", "/logout", "", htmx...)
	if to := p.Header.Get("HX-Redirect"); p.StatusCode != 204 || !strings.HasPrefix(to, a.workos.URL()) {
		t.Errorf("logout: %s to %q", p.Status, to)
	}
}

// Whoever kept the cookie of before the refresh is logged out with the session
// that it has become, under whatever id.
func TestLogoutEndsWhatOlderCookiesLeadTo(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		a.workos.Configure(func(s *authkittest.Settings) { s.ChangeSessionID = true })
		b := a.signIn()
		old := b.frozen()
		expire()
		old.get("/dashboard").expectSession(t)
		b.get("/dashboard").expectSession(t)
		b.stay().send("POST", "/logout", "").expect(t, 303)
		old.get("/dashboard", fetch...).expect(t, 401)
	})
}

// A logout wins over a refresh that is under way.
func TestLogoutDuringRefreshStaysALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		b := a.signIn()
		old := b.frozen()
		expire()
		a.workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{Delay: time.Second})

		refreshed := make(chan page)
		go func() { refreshed <- old.get("/dashboard", fetch...) }()
		time.Sleep(500 * time.Millisecond)
		b.stay().send("POST", "/logout", "").expect(t, 303)
		p := <-refreshed
		p.expect(t, 401)
		if line := p.setCookie("wos-session"); !strings.Contains(line, "Max-Age=0") {
			t.Errorf("the answer to the refresh sets %q", line)
		}
		old.get("/dashboard", fetch...).expect(t, 401)
	})
}

func TestSessionIDThatChangesIsLoggedOutUnderItsNewName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		a.workos.Configure(func(s *authkittest.Settings) { s.ChangeSessionID = true })
		b := a.signIn()
		old := b.frozen()
		first := b.get("/dashboard").session().ID
		expire()
		second := b.get("/dashboard").session().ID
		synctest.Wait() // the refresh logs after its waiters have gone on
		if first == second || !a.log.has("session_id_changed") {
			t.Fatalf("the id stayed %q", first)
		}
		p := old.stay().send("POST", "/logout", "")
		if got := p.Header.Get("Location"); !strings.Contains(got, second) {
			t.Errorf("logs out %q, want %q", got, second)
		}
		b.get("/dashboard", fetch...).expect(t, 401)
	})
}
