package authkittest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// application is the smallest one that wants WorkOS: it keeps no session.
func application(opts authkit.Options, extra ...string) http.Handler {
	query := url.Values{
		"client_id": {opts.ClientID}, "redirect_uri": {opts.RedirectURI}, "response_type": {"code"}, "provider": {"authkit"},
	}
	for i := 0; i < len(extra); i += 2 {
		query.Set(extra[i], extra[i+1])
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, opts.BaseURL+"/user_management/authorize?"+query.Encode(), http.StatusFound)
	})
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("code") == "" {
			http.Error(w, "no code", http.StatusBadRequest)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "__Host-in", Value: "1", Path: "/", Secure: true, HttpOnly: true})
		http.Redirect(w, r, "/home", http.StatusFound)
	})
	mux.HandleFunc("/home", func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie("__Host-in"); err != nil {
			http.Error(w, "who are you?", http.StatusUnauthorized)
		}
	})
	mux.HandleFunc("/public", func(http.ResponseWriter, *http.Request) {})
	return mux
}

func TestSignIn(t *testing.T) {
	f := newFixture(t)
	ada, err := f.SignIn(application(f.Options()), "/login", "ada@example.test")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ada.Get(authkittest.AppURL + "/home")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("got %s", resp.Status)
	}
}

func TestSignInMeetsEveryDemand(t *testing.T) {
	for _, extra := range [][]string{{"prompt", "login"}, {"max_age", "0"}, {"screen_hint", "sign-up"}, {"provider", "GoogleOAuth"}} {
		f := newFixture(t)
		f.twoOrganizations() // of which the first is taken
		if _, err := f.SignIn(application(f.Options(), extra...), "/login", f.ada.Email); err != nil {
			t.Errorf("%v: %v", extra, err)
		}
	}
}

func TestSignInFails(t *testing.T) {
	for _, c := range []struct {
		name, start, email, extra, want string
	}{
		{"nobody has the address", "/login", "nobody@example.test", "", "nobody@example.test"},
		{"the page is public", "/public", "ada@example.test", "", "public"},
		{"the application says no", "/home", "ada@example.test", "", "401"},
		{"the way ends at WorkOS", "/login", "ada@example.test", "response_type", "response_type must be code"},
		{"WorkOS sends an error back", "/login", "ada@example.test", "organization_id", "no code"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			var extra []string
			if c.extra != "" {
				extra = []string{c.extra, "wrong"}
			}
			_, err := f.SignIn(application(f.Options(), extra...), c.start, c.email)
			if err == nil || !strings.HasPrefix(err.Error(), "authkittest: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestBrowserNavigates(t *testing.T) {
	names := []string{"Accept", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-Site"}
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		for _, name := range names {
			fmt.Fprint(w, r.Header.Get(name), ";")
		}
	})
	for _, c := range []struct {
		method, path string
		header       http.Header
		want         string
	}{
		{"GET", "/", nil, "text/html;navigate;document;none;"},
		{"POST", "/", nil, "text/html;navigate;document;same-origin;"},
		{"GET", "/redirect", nil, "text/html;navigate;document;none;"},
		{"GET", "/", http.Header{"Accept": {"application/json"}}, "application/json;;;;"},
		{"GET", "/", http.Header{"Sec-Fetch-Mode": {"cors"}}, ";cors;;;"},
	} {
		r := appRequest(t, c.method, c.path, nil)
		r.Header = c.header.Clone()
		if r.Header == nil {
			r.Header = http.Header{}
		}
		_, body, err := browse(t, app, r)
		if err != nil || body != c.want {
			t.Errorf("%s %s %v: got %s, %v, want %s", c.method, c.path, c.header, body, err, c.want)
		}
		if len(r.Header) != len(c.header) {
			t.Errorf("the caller's request has become %v", r.Header)
		}
	}
}

func TestBrowserKnowsNoOtherHosts(t *testing.T) {
	f := newFixture(t)
	_, err := f.Browser(http.NotFoundHandler()).Post("https://example.com/x", "", strings.NewReader("x"))
	if err == nil || !strings.Contains(err.Error(), "not https://example.com") {
		t.Errorf("got %v", err)
	}
}

func TestBrowserUsesTheNetworkOnceWorkOSListens(t *testing.T) {
	f := newFixture(t)
	f.listen()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "elsewhere") }))
	defer elsewhere.Close()

	resp, err := f.Browser(nil).Get(elsewhere.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "elsewhere" {
		t.Errorf("got %s", body)
	}
	if _, err := f.SignIn(application(f.Options()), "/login", f.ada.Email); err != nil {
		t.Error(err)
	}
}

func TestHTTPClientReachesWorkOSUnderAnyName(t *testing.T) {
	f := newFixture(t)
	r, _ := http.NewRequestWithContext(context.Background(), "GET", "https://auth.example.com/sso/jwks/"+f.clientID, nil)
	f.do(r).expectStatus(t, 200)
}

// Two people in two browsers do not share cookies.
func TestBrowsersAreSeparate(t *testing.T) {
	f := newFixture(t)
	app := application(f.Options())
	if _, err := f.SignIn(app, "/login", f.ada.Email); err != nil {
		t.Fatal(err)
	}
	resp, err := f.Browser(app).Get(authkittest.AppURL + "/login")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Request.URL.Host != "api.workos.test" || resp.StatusCode != 200 {
		t.Errorf("it ended at %s with %s", resp.Request.URL, resp.Status)
	}
}
