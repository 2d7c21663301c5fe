package authkit_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

func TestWithoutSession(t *testing.T) {
	a := newApplication(t)
	referer := authkittest.AppURL + "/form?id=1"

	for _, c := range []struct {
		promise  string
		method   string
		target   string
		header   []string
		status   int
		location string
		loginURL string
	}{
		{"a page redirects to log in and remembers itself", "GET", "/dashboard?a=1&b=%2F", navigate, 302, "/login?return_to=%2Fdashboard%3Fa%3D1%26b%3D%252F", ""},
		{"a browser without Sec-Fetch is recognised by what it accepts", "GET", "/dashboard", []string{"Accept", "text/html,*/*"}, 302, "/login?return_to=%2Fdashboard", ""},
		{"HEAD is answered like GET", "HEAD", "/dashboard", navigate, 302, "/login?return_to=%2Fdashboard", ""},
		{"a form goes to log in with GET and back to its page", "POST", "/dashboard", with(navigate, "Referer", referer), 303, "/login?return_to=%2Fform%3Fid%3D1", ""},
		{"a form from elsewhere has no page to go back to", "POST", "/dashboard", with(navigate, "Referer", "https://evil.test/x"), 303, "/login", ""},
		{"a form without a referer has none either", "POST", "/dashboard", navigate, 303, "/login", ""},
		{"a path too long to remember is not remembered", "GET", "/dashboard?" + strings.Repeat("x", 2100), navigate, 302, "/login", ""},
		{"fetch gets 401 and where to log in", "GET", "/dashboard", with(fetch, "Referer", referer), 401, "", "/login?return_to=%2Fform%3Fid%3D1"},
		{"fetch with a foreign referer", "GET", "/dashboard", with(fetch, "Referer", "https://app.test.evil.test/x"), 401, "", "/login"},
		{"curl gets 401", "GET", "/dashboard", []string{"Accept", "*/*"}, 401, "", "/login"},
		{"a POST without Sec-Fetch gets 401", "POST", "/dashboard", []string{"Accept", "text/html"}, 401, "", "/login"},
		{"DELETE gets 401", "DELETE", "/dashboard", fetch, 401, "", "/login"},
		{"OPTIONS gets 401", "OPTIONS", "/dashboard", fetch, 401, "", "/login"},
		{"a WebSocket gets 401", "GET", "/dashboard", []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Fetch-Mode", "websocket"}, 401, "", "/login"},
		{"a prefetch gets no redirect", "GET", "/dashboard", with(navigate, "Sec-Purpose", "prefetch;prerender"), 401, "", "/login"},
		{"an old prefetch gets no redirect", "GET", "/dashboard", []string{"Accept", "text/html", "X-Moz", "prefetch"}, 401, "", "/login"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			p := answer(a, request(c.method, c.target, c.header...))
			if p.StatusCode != c.status || p.Header.Get("Location") != c.location {
				t.Fatalf("%d to %q, want %d to %q", p.StatusCode, p.Header.Get("Location"), c.status, c.location)
			}
			if got := p.Header["Set-Cookie"]; got != nil {
				t.Errorf("sets %q", got)
			}
			if got := p.Header.Get("Cache-Control") + "; " + p.Header.Get("Vary"); got != "private, no-store; Cookie" {
				t.Errorf("caching: %q", got)
			}
			if c.status != 401 {
				return
			}
			var problem struct {
				Status   int
				LoginURL string `json:"login_url"`
			}
			if err := json.Unmarshal([]byte(p.body), &problem); err != nil || p.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("not a problem: %v %s", err, p.body)
			}
			if problem.Status != 401 || problem.LoginURL != c.loginURL {
				t.Errorf("%+v, want login_url %q", problem, c.loginURL)
			}
		})
	}
}

func TestHTMXIsSentToLogIn(t *testing.T) {
	a := newApplication(t)
	p := answer(a, request("GET", "/dashboard", with(fetch, "HX-Request", "true", "HX-Current-URL", authkittest.AppURL+"/list?page=2")...))
	p.expect(t, 401)
	if got := p.Header.Get("HX-Redirect"); got != "/login?return_to=%2Flist%3Fpage%3D2" {
		t.Errorf("HX-Redirect %q", got)
	}
}

func TestSessionInContext(t *testing.T) {
	a := newApplication(t)
	a.workos.Configure(func(s *authkittest.Settings) { s.Claims = map[string]any{"team": "blue"} })
	s := a.signIn().get("/dashboard").session()

	if s == nil || s.User.FirstName != "Ada" || s.User.Metadata()["plan"] != "pro" ||
		s.OrganizationID != "org_01ORCHARD" || s.Role != "admin" || strings.Join(s.Permissions, " ") != "reports:read reports:write" ||
		s.ID == "" || s.ExpiresAt.IsZero() || s.AuthenticatedAt.IsZero() {
		t.Errorf("session %+v", s)
	}
	if got := a.signIn().get("/public").session(); got == nil {
		t.Error("WithOptionalAuth shows no session")
	}
	if got := a.visitor().get("/public"); got.StatusCode != 200 || got.session() != nil {
		t.Errorf("WithOptionalAuth turns an anonymous visitor away: %s", got.Status)
	}
}

func TestCustomClaims(t *testing.T) {
	a := newApplication(t)
	a.workos.Configure(func(s *authkittest.Settings) { s.Claims = map[string]any{"team": "blue"} })
	var claims struct{ Team string }
	a.mux.Handle("/claims", a.kit.WithAuth(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := authkit.SessionFromContext(r.Context())
		if err := s.Claims(&claims); err != nil {
			t.Error(err)
		}
	})))
	a.signIn().get("/claims").expect(t, 200)
	if claims.Team != "blue" {
		t.Errorf("claims %+v", claims)
	}
}

func TestVaryIsAddedToWhatIsThere(t *testing.T) {
	a := newApplication(t)
	for vary, want := range map[string]string{
		"":                    "Cookie",
		"Accept-Encoding":     "Accept-Encoding|Cookie",
		"Origin, cookie":      "Origin, cookie",
		"*":                   "*",
		"Accept, Cookie-Like": "Accept, Cookie-Like|Cookie",
	} {
		w := httptest.NewRecorder()
		if vary != "" {
			w.Header().Set("Vary", vary)
		}
		a.kit.Authenticate(w, request("GET", "/"))
		if got := strings.Join(w.Header()["Vary"], "|"); got != want {
			t.Errorf("Vary %q becomes %q, want %q", vary, got, want)
		}
	}
}

func TestAuthenticateTellsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		var got error
		a.mux.HandleFunc("/own", func(w http.ResponseWriter, r *http.Request) {
			_, got = a.kit.Authenticate(w, r)
		})
		b := a.signIn()

		if b.get("/own"); got != nil {
			t.Errorf("signed in: %v", got)
		}
		if a.visitor().get("/own"); !errors.Is(got, authkit.ErrNoSession) {
			t.Errorf("nobody: %v", got)
		}
		expire()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Status: 503})
		if b.get("/own"); !errors.Is(got, authkit.ErrUnavailable) {
			t.Errorf("WorkOS down: %v", got)
		}
		if p := b.get("/public"); p.StatusCode != 200 || p.session() != nil || p.setCookie("wos-session") != "" {
			t.Errorf("WithOptionalAuth while WorkOS is down: %s %q", p.Status, p.Header["Set-Cookie"])
		}
	})
}

func TestHandlersThatReplaceOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var onError error
		a := newApplication(t, func(o *authkit.Options) {
			o.OnUnauthenticated = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
			o.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
				onError = err
				w.WriteHeader(http.StatusBadGateway)
			}
		})
		answer(a, request("GET", "/dashboard", navigate...)).expect(t, http.StatusTeapot)

		b := a.signIn()
		expire()
		a.workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Status: 503})
		p := b.get("/dashboard")
		p.expect(t, http.StatusBadGateway)
		if !errors.Is(onError, authkit.ErrUnavailable) || p.Header.Get("Retry-After") == "" || p.Header.Get("Cache-Control") != "private, no-store" {
			t.Errorf("OnError got %v with %v", onError, p.Header)
		}
	})
}

func TestNestedMiddlewareReadsTheCookieOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		b := a.signIn()
		nested := http.NewServeMux()
		nested.Handle("/dashboard", a.kit.WithOptionalAuth(a.kit.WithAuth(http.HandlerFunc(showSession))))
		a.mux = nested
		expire()
		p := b.get("/dashboard")
		p.expectSession(t)
		if n := len(p.Header["Set-Cookie"]); n != 1 {
			t.Errorf("%d Set-Cookie lines, want 1", n)
		}
	})
}

// Two applications on one host must not take each other's users for theirs.
func TestAnotherKitsSessionIsNotOurs(t *testing.T) {
	a, other := newApplication(t), newApplication(t)
	b := a.signIn()
	chained := a.kit.WithAuth(other.kit.WithAuth(http.HandlerFunc(showSession)))
	r := request("GET", "/dashboard", fetch...)
	for name, value := range b.cookies() {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	answer(chained, r).expect(t, 401)
}

func TestOptionalAuthHidesAnotherKitsSession(t *testing.T) {
	a, other := newApplication(t), newApplication(t)
	b := a.signIn()
	chained := a.kit.WithAuth(other.kit.WithOptionalAuth(http.HandlerFunc(showSession)))
	r := request("GET", "/dashboard", fetch...)
	for name, value := range b.cookies() {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	if answer(chained, r).session() != nil {
		t.Error("the handler finds the other kit's user")
	}
}

func TestNilSessionInContextIsNone(t *testing.T) {
	a := newApplication(t)
	r := request("GET", "/dashboard", fetch...)
	r = r.WithContext(authkit.ContextWithSession(r.Context(), nil))
	if _, ok := authkit.SessionFromContext(r.Context()); ok {
		t.Error("found a session")
	}
	answer(a, r).expect(t, 401)
}

// A connection that stays open may ask again whether its user is still there.
func TestAuthenticateAgainOnALongConnection(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		var got []error
		a.mux.Handle("/stream", a.kit.WithAuth(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			for range 3 {
				_, err := a.kit.Authenticate(httptest.NewRecorder(), r)
				got = append(got, err)
				time.Sleep(10 * time.Minute)
			}
		})))
		b := a.signIn()
		time.AfterFunc(15*time.Minute, func() { b.frozen().stay().send("POST", "/logout", "") })
		b.get("/stream", fetch...)
		if got[0] != nil || got[1] != nil || !errors.Is(got[2], authkit.ErrNoSession) {
			t.Errorf("%v", got)
		}
	})
}

// What one handler does to its header, the next response does not see.
func TestHeadersAreNotShared(t *testing.T) {
	a := newApplication(t)
	b := a.signIn()
	a.mux.Handle("/own", a.kit.WithAuth(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Cache-Control"][0] = "public, max-age=60"
		w.Header()["Vary"][0] = "Accept"
	})))
	b.get("/own").expect(t, 200)
	p := b.get("/dashboard")
	if p.Header.Get("Cache-Control") != "private, no-store" || p.Header.Get("Vary") != "Cookie" {
		t.Errorf("the next response: %v", p.Header)
	}
}

func TestLoginBehindWithAuthIsAnErrorAndNoLoop(t *testing.T) {
	a := newApplication(t)
	everything := a.kit.WithAuth(a.mux)
	for _, target := range []string{"/login", "/callback?code=x&state=y"} {
		answer(everything, request("GET", target, navigate...)).expect(t, 401, "not set up correctly")
	}
	if !a.log.has("login_behind_auth") {
		t.Error("the log does not say so")
	}
	stripped := http.StripPrefix("/app", newApplication(t, func(o *authkit.Options) { o.LoginPath = "/app/login" }).kit.WithAuth(a.mux))
	answer(stripped, request("GET", "/app/login", navigate...)).expect(t, 401)
}

func TestReturnPathSurvivesRouters(t *testing.T) {
	a := newApplication(t)
	sub := chi.NewRouter()
	sub.Use(a.kit.WithAuth)
	sub.Get("/reports/{id}", showSession)
	root := chi.NewRouter()
	root.Mount("/app", sub)

	want := "/login?return_to=" + url.QueryEscape("/app/reports/a%2Fb?x=1")
	answer(root, request("GET", "/app/reports/a%2Fb?x=1", navigate...)).expectRedirect(t, 302, want)
	answer(http.StripPrefix("/app", sub), request("GET", "/app/reports/a%2Fb?x=1", navigate...)).expectRedirect(t, 302, want)
}

func TestLoginURL(t *testing.T) {
	a := newApplication(t)
	for target, want := range map[string]string{
		"/pricing?x=1": "/login?return_to=%2Fpricing%3Fx%3D1",
		"/login":       "/login",
		"//evil.test":  "/login",
	} {
		r := request("GET", "/", navigate...)
		r.RequestURI = target
		if got := a.kit.LoginURL(r); got != want {
			t.Errorf("LoginURL on %s is %q, want %q", target, got, want)
		}
	}
}

// The handler behind WithAuth gets the very ResponseWriter that the server made.
func TestResponseWriterIsPassedOn(t *testing.T) {
	a := newApplication(t)
	b := a.signIn()
	r := request("GET", "/", fetch...)
	for name, value := range b.cookies() {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	a.kit.WithAuth(http.HandlerFunc(func(got http.ResponseWriter, _ *http.Request) {
		if got != http.ResponseWriter(w) {
			t.Errorf("got a %T", got)
		}
	})).ServeHTTP(w, r)
}

func TestContextWithSession(t *testing.T) {
	w := httptest.NewRecorder()
	s := &authkit.Session{User: authkit.User{FirstName: "Bo"}}
	r := request("GET", "/")
	showSession(w, r.WithContext(authkit.ContextWithSession(context.Background(), s)))
	if !strings.Contains(w.Body.String(), `"first_name":"Bo"`) {
		t.Error(w.Body)
	}
	if s.AccessToken() != "" || s.Claims(new(any)) == nil {
		t.Error("a session made for tests has a token")
	}
}

func TestPagesSayWhatTheyAreAndLoadNothing(t *testing.T) {
	a := newApplication(t)
	p := answer(a, request("GET", "/callback?error=access_denied&error_description=<script>", navigate...))
	p.expect(t, 403, "cancelled or not allowed", `href="/login"`)
	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
	} {
		if got := p.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if strings.Contains(p.body, "script") || strings.Contains(p.body, "http://") && !strings.Contains(p.body, "http://www.w3.org/2000/svg") {
		t.Error(p.body)
	}
}

func TestPostOfOneMegabyteSurvivesRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		b := a.signIn()
		expire()
		body := strings.Repeat("authkit!", 1<<17)
		p := b.send("POST", "/dashboard", body)
		p.expectSession(t)
		var s shown
		if err := json.NewDecoder(strings.NewReader(p.body)).Decode(&s); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if s.Body != body {
			t.Errorf("%d bytes of %d arrived", len(s.Body), len(body))
		}
		if p.setCookie("wos-session") == "" {
			t.Error("the response brings no new cookie")
		}
	})
}
