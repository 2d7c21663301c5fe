package main

import (
	"bytes"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// newTestApp returns the application and the WorkOS that is built in, without a
// socket.
func newTestApp(t *testing.T) (http.Handler, *authkittest.WorkOS) {
	t.Helper()
	workos := authkittest.New()
	seed(workos)
	kit, err := authkit.New(workos.Options())
	if err != nil {
		t.Fatal(err)
	}
	return newApp(kit), workos
}

// signIn returns a browser that is signed in.
func signIn(t *testing.T, app http.Handler, workos *authkittest.WorkOS, email string) *http.Client {
	t.Helper()
	browser, err := workos.SignIn(app, "/dashboard", email)
	if err != nil {
		t.Fatal(err)
	}
	return browser
}

// page is a page as a visitor sees it.
type page struct {
	*http.Response
	body string
}

func read(t *testing.T, resp *http.Response, err error) page {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{resp, string(body)}
}

func get(t *testing.T, browser *http.Client, address string) page {
	t.Helper()
	resp, err := browser.Get(address)
	return read(t, resp, err)
}

func post(t *testing.T, browser *http.Client, address string, form url.Values) page {
	t.Helper()
	resp, err := browser.PostForm(address, form)
	return read(t, resp, err)
}

// wants checks the status of a page and what it says.
func (p page) wants(t *testing.T, status int, texts ...string) {
	t.Helper()
	if p.StatusCode != status {
		t.Errorf("%s %s answers %d, want %d", p.Request.Method, p.Request.URL, p.StatusCode, status)
	}
	visible := p.text()
	for _, text := range texts {
		if !strings.Contains(visible, text) {
			t.Errorf("%s does not say %q:\n%s", p.Request.URL, text, visible)
		}
	}
}

// wantsNot checks what a page does not say.
func (p page) wantsNot(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(p.text(), text) {
			t.Errorf("%s says %q:\n%s", p.Request.URL, text, p.text())
		}
	}
}

var (
	tags   = regexp.MustCompile(`<[^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

// text is a page without its tags.
func (p page) text() string {
	_, body, found := strings.Cut(p.body, "<body>")
	if !found {
		return p.body
	}
	return strings.TrimSpace(spaces.ReplaceAllString(html.UnescapeString(tags.ReplaceAllString(body, " ")), " "))
}

var (
	transaction = regexp.MustCompile(`name="transaction" value="([^"]*)"`)
	formAction  = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
)

// press presses a button on a page of WorkOS.
func (p page) press(t *testing.T, browser *http.Client, action, name, value string) page {
	t.Helper()
	hidden, target := transaction.FindStringSubmatch(p.body), formAction.FindStringSubmatch(p.body)
	if hidden == nil || target == nil {
		t.Fatalf("%s is no page of WorkOS with a form:\n%s", p.Request.URL, p.text())
	}
	address, err := p.Request.URL.Parse(target[1])
	if err != nil {
		t.Fatal(err)
	}
	return post(t, browser, address.String(), url.Values{"transaction": {hidden[1]}, "action": {action}, name: {value}})
}

const appURL = authkittest.AppURL

func TestHome(t *testing.T) {
	app, workos := newTestApp(t)

	t.Run("an anonymous visitor may sign in or sign up", func(t *testing.T) {
		p := get(t, workos.Browser(app), appURL+"/")
		p.wants(t, http.StatusOK, "Sign in once", "Create an account")
		if !strings.Contains(p.body, `href="/login?return_to=%2F"`) {
			t.Error("the button does not lead back to the page")
		}
		if _, signedIn := p.Header["Set-Cookie"]; signedIn {
			t.Error("a cookie is set")
		}
	})
	t.Run("a user is greeted", func(t *testing.T) {
		p := get(t, signIn(t, app, workos, "ada@orchard.example"), appURL+"/")
		p.wants(t, http.StatusOK, "Hello, Ada.", "ada@orchard.example", "Sign out")
		p.wantsNot(t, "Create an account")
	})
}

func TestDashboard(t *testing.T) {
	app, workos := newTestApp(t)

	for _, test := range []struct {
		email string
		facts []string
	}{
		{"ada@orchard.example", []string{
			"Ada Park", "ada@orchard.example verified", "Organization org_orchard", "Role admin",
			"Permissions billing:manage members:invite members:remove reports:read reports:write",
			"Entitlements audit-logs sso", "Feature flags new-reports", "by Password", "session_", "user_",
		}},
		{"bo@orchard.example", []string{"Bo Lind", "Role member", "Permissions reports:read reports:write Entitlements"}},
	} {
		t.Run(test.email, func(t *testing.T) {
			p := get(t, signIn(t, app, workos, test.email), appURL+"/dashboard")
			p.wants(t, http.StatusOK, test.facts...)
			p.wantsNot(t, "is signed in as")
		})
	}

	t.Run("tells when the token expires", func(t *testing.T) {
		p := get(t, signIn(t, app, workos, "ada@orchard.example"), appURL+"/dashboard")
		if !regexp.MustCompile(`Expires in \d+ seconds?, at \d\d:\d\d:\d\d UTC`).MatchString(p.text()) {
			t.Error(p.text())
		}
	})
	t.Run("an anonymous visitor is sent to sign in and comes back", func(t *testing.T) {
		browser := workos.Browser(app)
		p := get(t, browser, appURL+"/dashboard").press(t, browser, "sign-in", "email", "bo@orchard.example")
		p.wants(t, http.StatusOK, "Bo Lind")
		if p.Request.URL.String() != appURL+"/dashboard" {
			t.Errorf("the sign-in ends at %s", p.Request.URL)
		}
	})
	t.Run("an impersonation shows on every page", func(t *testing.T) {
		dee := signIn(t, app, workos, "dee@orchard.example")
		for path, status := range map[string]int{"/": http.StatusOK, "/dashboard": http.StatusOK, "/admin": http.StatusForbidden, "/nowhere": http.StatusNotFound} {
			get(t, dee, appURL+path).wants(t, status, "support@example.com is signed in as Dee Okafor. Reason: ticket 42")
		}
	})
	t.Run("a user of two organizations chooses one", func(t *testing.T) {
		cy := workos.Browser(app)
		choice := get(t, cy, appURL+"/dashboard").press(t, cy, "sign-in", "email", "cy@quarry.example")
		choice.wants(t, http.StatusOK, "Orchard Ltd", "Quarry Inc")

		p := choice.press(t, cy, "organization", "organization_id", "org_quarry")
		p.wants(t, http.StatusOK, "Cy Moreno", "Organization org_quarry", "Role admin", "Feature flags bulk-export", "Entitlements none")
	})
	t.Run("somebody who has just signed up has no organization", func(t *testing.T) {
		browser := workos.Browser(app)
		get(t, browser, appURL+"/signup").press(t, browser, "sign-up", "email", "eli@example.org")
		get(t, browser, appURL+"/dashboard").wants(t, http.StatusOK, "eli@example.org", "Organization none", "Role none")
		get(t, browser, appURL+"/admin").wants(t, http.StatusForbidden, "You have none.")
	})
}

func TestNotes(t *testing.T) {
	app, workos := newTestApp(t)
	ada, bo := signIn(t, app, workos, "ada@orchard.example"), signIn(t, app, workos, "bo@orchard.example")

	p := post(t, bo, appURL+"/dashboard", url.Values{"note": {" <b>ladders</b> "}})
	p.wants(t, http.StatusOK, "<b>ladders</b> Bo Lind")
	if p.Request.Method != http.MethodGet {
		t.Error("the form is not answered with a redirect: a reload would send it again")
	}

	for _, test := range []struct {
		name string
		note string
	}{
		{"an empty note is refused", " "},
		{"a long note is refused", strings.Repeat("é", maxNote+1)},
		{"a form without end is refused", strings.Repeat("a", maxForm+1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := post(t, bo, appURL+"/dashboard", url.Values{"note": {test.note}})
			p.wants(t, http.StatusUnprocessableEntity, "A note has 1 to 280 characters.")
		})
	}
	t.Run("a form of another site is refused", func(t *testing.T) {
		r, err := http.NewRequest(http.MethodPost, appURL+"/dashboard", strings.NewReader("note=forged"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		resp, err := bo.Do(r)
		read(t, resp, err).wants(t, http.StatusForbidden)
		get(t, bo, appURL+"/dashboard").wantsNot(t, "forged")
	})
	t.Run("notes of others are not on the dashboard", func(t *testing.T) {
		get(t, ada, appURL+"/dashboard").wants(t, http.StatusOK, "No notes yet.")
	})
	t.Run("an administrator reads those of the organization", func(t *testing.T) {
		get(t, ada, appURL+"/admin").wants(t, http.StatusOK, "Notes of org_orchard", "<b>ladders</b> Bo Lind")
	})
	t.Run("and of no other", func(t *testing.T) {
		cy := workos.Browser(app)
		get(t, cy, appURL+"/admin").press(t, cy, "sign-in", "email", "cy@quarry.example").
			press(t, cy, "organization", "organization_id", "org_quarry").
			wants(t, http.StatusOK, "Notes of org_quarry", "No notes yet.")
	})
	t.Run("an impersonator is named", func(t *testing.T) {
		dee := signIn(t, app, workos, "dee@orchard.example")
		post(t, dee, appURL+"/dashboard", url.Values{"note": {"pears"}}).
			wants(t, http.StatusOK, "pears Dee Okafor, by the hand of support@example.com")
	})
}

func TestAFormOutlivesItsAccessToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, workos := newTestApp(t)
		ada := signIn(t, app, workos, "ada@orchard.example")

		time.Sleep(time.Hour)
		p := post(t, ada, appURL+"/dashboard", url.Values{"note": {"late apples"}})
		p.wants(t, http.StatusOK, "late apples", "Expires in 60 seconds")
		if calls := workos.Calls(authkittest.Authenticate); calls != 2 {
			t.Errorf("%d calls of the token endpoint, want 2: the sign-in and one refresh", calls)
		}
	})
}

func TestNotebookForgetsTheOldest(t *testing.T) {
	var n notebook
	for range maxNotes {
		n.add(note{Text: "old"})
	}
	n.add(note{Text: "new"})

	all := n.of("", "")
	if len(all) != maxNotes || all[0].Text != "new" {
		t.Errorf("%d notes, the latest %q", len(all), all[0].Text)
	}
}

func TestAdmin(t *testing.T) {
	app, workos := newTestApp(t)

	get(t, signIn(t, app, workos, "ada@orchard.example"), appURL+"/admin").
		wants(t, http.StatusOK, "Notes of org_orchard")
	get(t, signIn(t, app, workos, "bo@orchard.example"), appURL+"/admin").
		wants(t, http.StatusForbidden, "This page is not for you", "It needs the role “admin”. Yours in org_orchard is “member”.", "Sign out")
}

func TestRoles(t *testing.T) {
	for _, test := range []struct {
		name    string
		session authkit.Session
		status  int
	}{
		{"the only one", authkit.Session{Role: "admin"}, http.StatusOK},
		{"one of several", authkit.Session{Role: "owner", Roles: []string{"owner", "admin"}}, http.StatusOK},
		{"another", authkit.Session{Role: "member", Roles: []string{"member"}}, http.StatusForbidden},
		{"none", authkit.Session{}, http.StatusForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			kit, err := authkit.New(authkittest.New().Options())
			if err != nil {
				t.Fatal(err)
			}
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/admin", nil)
			r = r.WithContext(authkit.ContextWithSession(r.Context(), &test.session))
			(&app{kit: kit}).requireRole("admin")(http.NotFoundHandler()).ServeHTTP(w, r)
			if passed := w.Code == http.StatusNotFound; passed != (test.status == http.StatusOK) {
				t.Errorf("status %d", w.Code)
			}
		})
	}
}

func TestMe(t *testing.T) {
	app, workos := newTestApp(t)
	fetch := func(client *http.Client) page {
		r, err := http.NewRequest(http.MethodGet, appURL+"/api/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Sec-Fetch-Mode", "cors")
		resp, err := client.Do(r)
		return read(t, resp, err)
	}

	t.Run("is the session, without a token", func(t *testing.T) {
		p := fetch(signIn(t, app, workos, "ada@orchard.example"))
		p.wants(t, http.StatusOK)
		var s authkit.Session
		if err := json.Unmarshal([]byte(p.body), &s); err != nil {
			t.Fatal(err)
		}
		if s.User.Email != "ada@orchard.example" || s.OrganizationID != "org_orchard" || s.Role != "admin" {
			t.Error(p.body)
		}
		p.wantsNot(t, "eyJ", "token", "refresh")
	})
	t.Run("is 401 for an anonymous script", func(t *testing.T) {
		p := fetch(workos.Browser(app))
		p.wants(t, http.StatusUnauthorized, `"login_url":"/login`)
		if got := p.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("Content-Type is %q", got)
		}
	})
}

func TestSignOut(t *testing.T) {
	app, workos := newTestApp(t)
	ada := signIn(t, app, workos, "ada@orchard.example")

	p := post(t, ada, appURL+"/logout", nil)
	p.wants(t, http.StatusOK, "Sign in once")
	if p.Request.URL.String() != appURL+"/" {
		t.Errorf("the logout ends at %s", p.Request.URL)
	}
	if sessions := workos.ActiveSessions(); len(sessions) != 0 {
		t.Errorf("sessions %q live on at WorkOS", sessions)
	}
	if p := get(t, ada, appURL+"/dashboard"); p.Request.URL.Path != "/user_management/authorize" {
		t.Errorf("the dashboard leads to %s", p.Request.URL)
	}
}

var handlers = regexp.MustCompile(`(?i)<script|javascript:|\son[a-z]+\s*=|\sstyle\s*=`)

func TestEveryPage(t *testing.T) {
	app, workos := newTestApp(t)
	nobody, ada, bo := workos.Browser(app), signIn(t, app, workos, "ada@orchard.example"), signIn(t, app, workos, "bo@orchard.example")
	for _, test := range []struct {
		name    string
		browser *http.Client
		path    string
		status  int
	}{
		{"home", nobody, "/", http.StatusOK},
		{"home of a user", ada, "/", http.StatusOK},
		{"dashboard", ada, "/dashboard", http.StatusOK},
		{"admin", ada, "/admin", http.StatusOK},
		{"forbidden", bo, "/admin", http.StatusForbidden},
		{"not found", nobody, "/nowhere", http.StatusNotFound},
		{"not found for a user", ada, "/admin/nowhere", http.StatusNotFound},
		{"a callback of nobody", nobody, "/callback?code=a&state=b", http.StatusBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := get(t, test.browser, appURL+test.path)
			p.wants(t, test.status)
			for _, part := range []string{"<!doctype html>", `<link rel="icon" href="`, `name="viewport"`, `<html lang="en">`, "<title>", "<h1>"} {
				if !strings.Contains(p.body, part) {
					t.Errorf("it has no %s", part)
				}
			}
			if found := handlers.FindString(p.body); found != "" {
				t.Errorf("it has %q", found)
			}
			for name, want := range map[string]string{
				"Content-Type":            "text/html; charset=utf-8",
				"Content-Security-Policy": "default-src 'none'",
				"Cache-Control":           "private, no-store",
				"X-Content-Type-Options":  "nosniff",
			} {
				if got := p.Header.Get(name); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

var linked = regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	app, workos := newTestApp(t)
	ada := signIn(t, app, workos, "ada@orchard.example")

	for _, path := range []string{"/", "/dashboard", "/admin", "/nowhere"} {
		for _, match := range linked.FindAllStringSubmatch(get(t, ada, appURL+path).body, -1) {
			if target := html.UnescapeString(match[1]); target != "/logout" {
				get(t, ada, appURL+target).wants(t, http.StatusOK)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	app, workos := newTestApp(t)
	for _, test := range []struct {
		path, contentType string
		content           []byte
	}{
		{"/static/style.css", "text/css; charset=utf-8", style},
		{"/static/icon.svg", "image/svg+xml", icon},
		{"/favicon.ico", "image/svg+xml", icon},
	} {
		p := get(t, workos.Browser(app), appURL+test.path)
		p.wants(t, http.StatusOK)
		if !bytes.Equal([]byte(p.body), test.content) || p.Header.Get("Content-Type") != test.contentType {
			t.Errorf("%s is %d bytes of %s", test.path, len(p.body), p.Header.Get("Content-Type"))
		}
	}
}

func TestTokenLifeInWords(t *testing.T) {
	for _, test := range []struct {
		left time.Duration
		want string
	}{
		{0, "0 seconds"},
		{time.Second, "1 second"},
		{48 * time.Second, "48 seconds"},
		{119 * time.Second, "119 seconds"},
		{2 * time.Minute, "2 minutes"},
		{4*time.Minute + 57*time.Second, "4 minutes and 57 seconds"},
		{26 * time.Hour, "26 hours"},
	} {
		if got := (tokenLife{Left: test.left}).In(); got != test.want {
			t.Errorf("%v is %q, want %q", test.left, got, test.want)
		}
	}
}

func TestInitials(t *testing.T) {
	for name, want := range map[string]string{"Ada Park": "AP", "Émile": "É", "Ana María de la Cruz": "AC", "eli@example.org": "E", "": ""} {
		if got := initials(name); got != want {
			t.Errorf("the initials of %q are %q, want %q", name, got, want)
		}
	}
}
