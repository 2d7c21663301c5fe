package authkit_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

const ada = "ada@example.test"

// application is what a user of the kit builds with it: a kit, the handlers, and
// a few pages, in front of a WorkOS that knows Ada.
type application struct {
	t      testing.TB
	workos *authkittest.WorkOS
	opts   authkit.Options
	kit    *authkit.Kit
	mux    *http.ServeMux
	log    *logBuffer
}

// newApplication builds one, with options that the test has changed.
func newApplication(t testing.TB, change ...func(*authkit.Options)) *application {
	t.Helper()
	workos := authkittest.New()
	workos.AddUser(authkittest.User{
		ID: "user_01ADA", Email: ada, EmailVerified: true, FirstName: "Ada", LastName: "Park",
		Metadata: map[string]string{"plan": "pro"},
	})
	workos.AddOrganization(authkittest.Organization{ID: "org_01ORCHARD", Name: "Orchard Ltd"})
	workos.AddMembership(authkittest.Membership{
		UserID: "user_01ADA", OrganizationID: "org_01ORCHARD", Role: "admin",
		Permissions: []string{"reports:read", "reports:write"},
	})
	a := &application{t: t, workos: workos, opts: workos.Options(), log: &logBuffer{}}
	a.opts.Logger = slog.New(slog.NewJSONHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, c := range change {
		c(&a.opts)
	}
	a.restart()
	t.Cleanup(a.expectNoSecretsLogged)
	return a
}

// restart makes a new kit with the same options: a process that starts again, or
// another replica.
func (a *application) restart() {
	a.t.Helper()
	kit, err := authkit.New(a.opts)
	if err != nil {
		a.t.Fatal(err)
	}
	a.kit, a.mux = kit, mount(kit)
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func mount(kit *authkit.Kit) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/login", kit.Login)
	mux.HandleFunc("/signup", kit.SignUp)
	mux.HandleFunc("/callback", kit.Callback)
	mux.HandleFunc("/logout", kit.Logout)
	mux.Handle("/dashboard", kit.WithAuth(http.HandlerFunc(showSession)))
	mux.Handle("/public", kit.WithOptionalAuth(http.HandlerFunc(showSession)))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "home") })
	return mux
}

// shown is what showSession answers.
type shown struct {
	Session *authkit.Session `json:"session"`
	Token   string           `json:"token"`
	Body    string           `json:"body"`
}

func showSession(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	out := shown{Body: string(body)}
	if s, ok := authkit.SessionFromContext(r.Context()); ok {
		out.Session, out.Token = s, s.AccessToken()
	}
	json.NewEncoder(w).Encode(out)
}

// signIn returns a browser in which Ada is signed in.
func (a *application) signIn() *browser {
	a.t.Helper()
	client, err := a.workos.SignIn(a, "/login?return_to=/dashboard", ada)
	if err != nil {
		a.t.Fatal(err)
	}
	return &browser{a.t, client}
}

// visitor returns a browser in which nobody is signed in.
func (a *application) visitor() *browser { return &browser{a.t, a.workos.Browser(a)} }

// browser wraps a client for tests that do not expect the network to fail.
type browser struct {
	t      testing.TB
	client *http.Client
}

// page is a response that was read to its end.
type page struct {
	*http.Response
	body string
}

func (b *browser) get(path string, header ...string) page {
	b.t.Helper()
	return b.send(http.MethodGet, path, "", header...)
}

// send makes a request to the application; header is names and values in turn.
func (b *browser) send(method, path, body string, header ...string) page {
	b.t.Helper()
	r, err := http.NewRequest(method, authkittest.AppURL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return b.do(r)
}

func (b *browser) do(r *http.Request) page {
	b.t.Helper()
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return page{resp, string(body)}
}

// stay makes the browser show redirects instead of following them.
func (b *browser) stay() *browser {
	client := *b.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{b.t, &client}
}

// frozen returns a browser that brings the cookies that it has now whatever it
// is sent: one that lost the replies.
func (b *browser) frozen() *browser {
	client := *b.client
	client.Jar = frozenJar{b.client.Jar.Cookies(appURL)}
	return &browser{b.t, &client}
}

type frozenJar struct{ cookies []*http.Cookie }

func (j frozenJar) Cookies(*url.URL) []*http.Cookie     { return j.cookies }
func (j frozenJar) SetCookies(*url.URL, []*http.Cookie) {}

var appURL = func() *url.URL {
	u, err := url.Parse(authkittest.AppURL)
	if err != nil {
		panic(err)
	}
	return u
}()

// cookies returns what the browser would bring to the application, by name.
func (b *browser) cookies() map[string]string {
	byName := make(map[string]string)
	for _, c := range b.client.Jar.Cookies(appURL) {
		byName[c.Name] = c.Value
	}
	return byName
}

func (b *browser) setCookie(name, value string) {
	b.client.Jar.SetCookies(appURL, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

// session returns the session that the dashboard shows, nil for another page.
func (p page) session() *authkit.Session {
	var s shown
	if p.StatusCode != http.StatusOK || json.Unmarshal([]byte(p.body), &s) != nil {
		return nil
	}
	return s.Session
}

// expectSession fails the test unless the page was shown to Ada.
func (p page) expectSession(t testing.TB) {
	t.Helper()
	if s := p.session(); s == nil || s.User.Email != ada {
		t.Fatalf("not signed in as %s: %s %s %.300s", ada, p.Status, p.Header.Get("Location"), p.body)
	}
}

// expect fails the test unless the page has that status, and holds all of those
// words.
func (p page) expect(t testing.TB, status int, words ...string) {
	t.Helper()
	if p.StatusCode != status {
		t.Fatalf("status %d, want %d; Location %q; %.300s", p.StatusCode, status, p.Header.Get("Location"), p.body)
	}
	for _, word := range words {
		if !strings.Contains(p.body, word) {
			t.Errorf("the page lacks %q: %.400s", word, p.body)
		}
	}
}

// expectRedirect fails the test unless the page leads to location.
func (p page) expectRedirect(t testing.TB, status int, location string) {
	t.Helper()
	if p.StatusCode != status || p.Header.Get("Location") != location {
		t.Fatalf("%d to %q, want %d to %q", p.StatusCode, p.Header.Get("Location"), status, location)
	}
}

// setCookie returns the Set-Cookie line for a cookie, empty if there is none.
func (p page) setCookie(name string) string {
	for _, line := range p.Header["Set-Cookie"] {
		if strings.HasPrefix(line, name+"=") {
			return line
		}
	}
	return ""
}

// logBuffer collects what a kit logs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// has reports whether a record with that reason was logged.
func (l *logBuffer) has(reason string) bool {
	return strings.Contains(l.String(), `"reason":"`+reason+`"`)
}

// secret finds what no log, page or error may hold: a JWT, and the refresh
// tokens and codes of authkittest.
var secret = regexp.MustCompile(`eyJ[\w-]{10}|(ref|auth_code)_[0-9A-Z]{10}`)

func (a *application) expectNoSecretsLogged() {
	a.t.Helper()
	expectNoSecrets(a.t, "the log", a.log.String(), a.opts)
}

func expectNoSecrets(t testing.TB, where, text string, opts authkit.Options) {
	t.Helper()
	if found := secret.FindString(text); found != "" {
		t.Errorf("%s holds %q", where, found)
	}
	for _, s := range append([]string{opts.APIKey, opts.CookiePassword}, opts.OldCookiePasswords...) {
		if s != "" && strings.Contains(text, s) {
			t.Errorf("%s holds a secret of the options", where)
		}
	}
}

// request returns a request as the server would see it, for kits without a
// browser in front.
func request(method, target string, header ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// answer serves one request.
func answer(h http.Handler, r *http.Request) page {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return page{w.Result(), w.Body.String()}
}

// Header sets that browsers send.
var (
	navigate = []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "none", "Accept", "text/html"}
	fetch    = []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin", "Accept", "*/*"}
)

// with returns a header set with more, or other, values.
func with(header []string, more ...string) []string {
	return append(append([]string(nil), header...), more...)
}

// expire lets the access tokens of authkittest, five minutes by default, expire.
// It is for bubbles of testing/synctest, where this takes no time.
func expire() { time.Sleep(6 * time.Minute) }
