package authkit_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// The whole story, as a browser lives it, over real sockets.
func TestTheWholeStory(t *testing.T) {
	for router, mount := range map[string]func(*authkit.Kit) http.Handler{
		"stdlib mux": func(k *authkit.Kit) http.Handler { return mount(k) },
		"chi": func(k *authkit.Kit) http.Handler {
			r := chi.NewRouter()
			r.Get("/login", k.Login)
			r.Get("/callback", k.Callback)
			r.HandleFunc("/logout", k.Logout)
			r.Group(func(r chi.Router) {
				r.Use(k.WithAuth)
				r.HandleFunc("/dashboard", showSession)
			})
			return r
		},
	} {
		t.Run(router, func(t *testing.T) {
			t.Parallel() // it waits for tokens to expire in real time
			tellStory(t, mount)
		})
	}
}

func tellStory(t *testing.T, mount func(*authkit.Kit) http.Handler) {
	const lifetime = 2 * time.Second
	workos := authkittest.New()
	workos.AddUser(authkittest.User{Email: ada, FirstName: "Ada"})
	workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = lifetime })
	if err := workos.Listen("localhost:0"); err != nil {
		t.Fatal(err)
	}
	defer workos.Close()

	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := "http://" + listener.Addr().String()
	opts := workos.Options()
	opts.RedirectURI, opts.LogoutReturnTo, opts.HTTPClient = origin+"/callback", origin+"/dashboard", nil
	opts.RefreshBefore = -1
	kit, err := authkit.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	app := httptest.NewUnstartedServer(mount(kit))
	app.Listener.Close()
	app.Listener = listener
	app.Start()
	defer app.Close()

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var way []string
	b := &browser{t, &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		way = append(way, r.URL.Path)
		return nil
	}}}
	visit := func(method, target, body string) page {
		t.Helper()
		r, err := http.NewRequest(method, target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		if strings.HasPrefix(body, "transaction=") {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		way = nil
		return b.do(r)
	}

	// An anonymous visitor asks for the dashboard and ends on WorkOS's page.
	p := visit("GET", origin+"/dashboard", "")
	if got := strings.Join(way, " "); got != "/login /user_management/authorize" {
		t.Fatalf("the way to WorkOS: %s", got)
	}
	form := signInForm.FindStringSubmatch(p.body)
	if form == nil {
		t.Fatalf("no form: %.300s", p.body)
	}

	// She signs in and sees her name.
	p = visit("POST", workos.URL()+form[1], url.Values{"transaction": {form[2]}, "action": {"sign-in"}, "email": {ada}}.Encode())
	if got := strings.Join(way, " "); got != "/callback /dashboard" {
		t.Fatalf("the way back: %s (%s %.300s)", got, p.Status, p.body)
	}
	if s := p.session(); s == nil || s.User.FirstName != "Ada" {
		t.Fatalf("the dashboard shows %.300s", p.body)
	}
	before := sessionCookie(t, jar, origin)

	// Her access token expires: she is still there, with another cookie, after
	// one call to WorkOS.
	calls := workos.Calls(authkittest.Authenticate)
	waitUntil(t, p.session().ExpiresAt)
	p = visit("GET", origin+"/dashboard", "")
	p.expectSession(t)
	if now := sessionCookie(t, jar, origin); now == before || workos.Calls(authkittest.Authenticate) != calls+1 {
		t.Errorf("cookie replaced: %v; calls: %d", now != before, workos.Calls(authkittest.Authenticate)-calls)
	}

	// It expires again, under a form of one megabyte, which arrives whole.
	waitUntil(t, p.session().ExpiresAt)
	body := strings.Repeat("0123456789abcdef", 1<<16)
	p = visit("POST", origin+"/dashboard", body)
	var got shown
	if err := json.Unmarshal([]byte(p.body), &got); err != nil || got.Body != body {
		t.Errorf("%d bytes of %d arrive: %s %v", len(got.Body), len(body), p.Status, err)
	}

	// She logs out, and is a stranger again.
	p = visit("POST", origin+"/logout", "")
	if got := strings.Join(way, " "); got != "/user_management/sessions/logout /dashboard /login /user_management/authorize" {
		t.Errorf("the way out: %s", got)
	}
	if signInForm.FindString(p.body) == "" {
		t.Errorf("WorkOS still knows her: %.300s", p.body)
	}
}

func sessionCookie(t *testing.T, jar http.CookieJar, origin string) string {
	t.Helper()
	u, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range jar.Cookies(u) {
		if c.Name == "wos-session" {
			return c.Value
		}
	}
	t.Fatal("no session cookie")
	return ""
}

// waitUntil waits for a moment of real time: over sockets there is no other.
func waitUntil(t *testing.T, moment time.Time) {
	t.Helper()
	timer := time.NewTimer(time.Until(moment))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(io.ErrUnexpectedEOF)
	}
}
