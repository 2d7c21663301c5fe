package authkittest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

const (
	callback = authkittest.AppURL + "/callback"

	// RFC 7636, appendix B.
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// fixture is a WorkOS with somebody in it, and a way to talk to it.
type fixture struct {
	*testing.T
	*authkittest.WorkOS
	clientID, apiKey string
	client           *http.Client // follows no redirect and keeps no cookie
	ada              authkittest.User
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	w := authkittest.New()
	opts := w.Options()
	return &fixture{
		T:        t,
		WorkOS:   w,
		clientID: opts.ClientID,
		apiKey:   opts.APIKey,
		client:   stopAtRedirect(w.HTTPClient()),
		ada:      w.AddUser(authkittest.User{Email: "ada@example.test", FirstName: "Ada", LastName: "Park", EmailVerified: true}),
	}
}

// listen moves the fixture to a socket until the test is over.
func (f *fixture) listen() {
	f.Helper()
	if err := f.Listen("localhost:0"); err != nil {
		f.Fatal(err)
	}
	f.client = stopAtRedirect(&http.Client{Transport: &http.Transport{}})
	f.Cleanup(func() {
		f.client.CloseIdleConnections()
		f.Close()
	})
}

func stopAtRedirect(c *http.Client) *http.Client {
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// twoOrganizations puts Ada into Orchard, as an administrator, and Quarry.
func (f *fixture) twoOrganizations() (orchard, quarry authkittest.Organization) {
	orchard = f.AddOrganization(authkittest.Organization{Name: "Orchard Ltd", Entitlements: []string{"audit-logs"}})
	quarry = f.AddOrganization(authkittest.Organization{Name: "Quarry Inc", FeatureFlags: []string{"beta"}})
	f.AddMembership(authkittest.Membership{
		UserID: f.ada.ID, OrganizationID: orchard.ID, Role: "admin", Permissions: []string{"reports:read", "reports:write"},
	})
	f.AddMembership(authkittest.Membership{UserID: f.ada.ID, OrganizationID: quarry.ID})
	return orchard, quarry
}

// response is a reply, read to its end.
type response struct {
	*http.Response
	body []byte
}

func (f *fixture) do(r *http.Request) response {
	f.Helper()
	resp, err := f.client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	return response{resp, body}
}

func (f *fixture) request(method, path string, body io.Reader, header ...string) *http.Request {
	f.Helper()
	r, err := http.NewRequest(method, f.URL()+path, body)
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func (f *fixture) get(path string, header ...string) response {
	f.Helper()
	return f.do(f.request("GET", path, nil, header...))
}

func (f *fixture) bearer() []string { return []string{"Authorization", "Bearer " + f.apiKey} }

// fields are the fields of a request, as name, value, name, value. An empty value
// removes a name.
func with(base map[string]string, pairs ...string) map[string]string {
	fields := maps.Clone(base)
	for i := 0; i < len(pairs); i += 2 {
		fields[pairs[i]] = pairs[i+1]
		if pairs[i+1] == "" {
			delete(fields, pairs[i])
		}
	}
	return fields
}

// token posts JSON to the token endpoint, with the credentials of the
// application.
func (f *fixture) token(pairs ...string) response {
	f.Helper()
	body, _ := json.Marshal(with(map[string]string{"client_id": f.clientID, "client_secret": f.apiKey}, pairs...))
	return f.do(f.request("POST", "/user_management/authenticate", bytes.NewReader(body), "Content-Type", "application/json"))
}

func (f *fixture) exchange(code string, pairs ...string) response {
	f.Helper()
	return f.token(append([]string{"grant_type", "authorization_code", "code", code}, pairs...)...)
}

func (f *fixture) refresh(token string, pairs ...string) response {
	f.Helper()
	return f.token(append([]string{"grant_type", "refresh_token", "refresh_token", token}, pairs...)...)
}

// authorizePath is an authorization request with the parameters changed.
func (f *fixture) authorizePath(pairs ...string) string {
	query := url.Values{}
	for name, value := range with(map[string]string{
		"client_id": f.clientID, "redirect_uri": callback, "response_type": "code", "provider": "authkit", "state": "s1",
	}, pairs...) {
		query.Set(name, value)
	}
	return "/user_management/authorize?" + query.Encode()
}

var transaction = regexp.MustCompile(`name="transaction" value="([^"]+)"`)

// openPage opens the sign-in page of an authorization and returns its
// transaction.
func (f *fixture) openPage(pairs ...string) string {
	f.Helper()
	page := f.get(f.authorizePath(pairs...), "Accept", "text/html")
	page.expectStatus(f.T, 200)
	return page.transaction(f.T)
}

func (r response) transaction(t *testing.T) string {
	t.Helper()
	found := transaction.FindSubmatch(r.body)
	if found == nil {
		t.Fatalf("no transaction in the page:\n%s", r.body)
	}
	return string(found[1])
}

// submit sends a form of the sign-in page.
func (f *fixture) submit(transaction, action string, pairs ...string) response {
	f.Helper()
	form := url.Values{"transaction": {transaction}, "action": {action}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return f.do(f.request("POST", "/authkittest/sign-in", strings.NewReader(form.Encode()),
		"Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html"))
}

// code signs Ada in on the page and returns the authorization code.
func (f *fixture) code(pairs ...string) string {
	f.Helper()
	return f.submit(f.openPage(pairs...), "sign-in", "email", f.ada.Email).expectCode(f.T)
}

// keepCookies makes the fixture one browser.
func (f *fixture) keepCookies() { f.client.Jar, _ = cookiejar.New(nil) }

func (r response) expectStatus(t *testing.T, status int) response {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("got %s, want %d: %s", r.Status, status, r.body)
	}
	return r
}

// location is where a redirect leads.
func (r response) location(t *testing.T) *url.URL {
	t.Helper()
	r.expectStatus(t, 302)
	u, err := r.Location()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (r response) expectCode(t *testing.T) string {
	t.Helper()
	code := r.location(t).Query().Get("code")
	if !strings.HasPrefix(code, "auth_code_") {
		t.Fatalf("no code in %s", r.Header.Get("Location"))
	}
	return code
}

func (r response) decode(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return v
}

// expectOAuth wants the envelope {"error", "error_description"}.
func (r response) expectOAuth(t *testing.T, status int, code string) map[string]any {
	t.Helper()
	body := r.expectStatus(t, status).decode(t)
	if body["error"] != code || body["error_description"] == "" || body["error_description"] == nil || body["message"] != nil {
		t.Errorf("got %s, want the error %q in the OAuth envelope", r.body, code)
	}
	return body
}

// expectPlain wants the envelope {"code", "message"}.
func (r response) expectPlain(t *testing.T, status int, code string) map[string]any {
	t.Helper()
	body := r.expectStatus(t, status).decode(t)
	if body["code"] != code || body["message"] == "" || body["message"] == nil || body["error"] != nil {
		t.Errorf("got %s, want the code %q in the plain envelope", r.body, code)
	}
	return body
}

func TestEveryReplyHasARequestIDAndADate(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/sso/jwks/" + f.clientID, "/sso/jwks/other", "/nowhere", f.authorizePath(), "/user_management/users/x"} {
		r := f.get(path)
		if id := r.Header.Get("X-Request-ID"); !strings.HasPrefix(id, "req_") {
			t.Errorf("%s: X-Request-ID is %q", path, id)
		}
		if _, err := http.ParseTime(r.Header.Get("Date")); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestUnknownPathIsNotFound(t *testing.T) {
	f := newFixture(t)
	for _, r := range []*http.Request{
		f.request("GET", "/", nil),
		f.request("GET", "/user_management/authenticate", nil),
		f.request("POST", "/sso/jwks/"+f.clientID, nil),
	} {
		body := f.do(r).expectStatus(t, 404).decode(t)
		if body["message"] != "Cannot "+r.Method+" "+r.URL.Path {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, body)
		}
	}
}

func TestBodyIsBounded(t *testing.T) {
	f := newFixture(t)
	r := f.do(f.request("POST", "/user_management/authenticate", bytes.NewReader(make([]byte, 1<<20+1))))
	r.expectStatus(t, 413)
}

func TestIDsSortByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := authkittest.New()
		shape := regexp.MustCompile(`^user_[0-9A-HJKMNP-TV-Z]{26}$`)
		seen, last := map[string]bool{}, ""
		for range 100 {
			id := w.AddUser(authkittest.User{}).ID
			if !shape.MatchString(id) || seen[id] {
				t.Fatalf("%q is no new ULID", id)
			}
			if id[:15] < last {
				t.Fatalf("%s is younger than %s", id, last)
			}
			seen[id], last = true, id[:15]
			time.Sleep(time.Millisecond)
		}
	})
}

func TestOptionsAreReadyForNew(t *testing.T) {
	w, other := authkittest.New(), authkittest.New()
	opts := w.Options()
	if len(opts.CookiePassword) < 32 || opts.CookiePassword == other.Options().CookiePassword {
		t.Errorf("the cookie password is %q", opts.CookiePassword)
	}
	if opts.CookiePassword != w.Options().CookiePassword {
		t.Error("the cookie password changes: replicas could not share it")
	}
	if opts.RedirectURI != callback || opts.BaseURL != "https://api.workos.test" || opts.HTTPClient == nil {
		t.Errorf("options are %+v", opts)
	}
	if opts.ClientID == other.Options().ClientID || opts.APIKey == other.Options().APIKey {
		t.Error("two environments share credentials")
	}
}

func TestListen(t *testing.T) {
	f := newFixture(t)
	f.listen()
	if u, _ := url.Parse(f.URL()); u.Scheme != "http" || u.Hostname() != "localhost" {
		t.Errorf("URL is %s", f.URL())
	}
	if err := f.Listen("localhost:0"); err == nil {
		t.Error("a second Listen is no error")
	}

	f.exchange(f.code()).expectStatus(t, 200)
	f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
	if f.Options().BaseURL != f.URL() {
		t.Errorf("BaseURL is %s", f.Options().BaseURL)
	}

	address := strings.TrimPrefix(f.URL(), "http://")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("it listens after Close")
	}
	if err := f.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestListenNamesAnErrorOfTheNetwork(t *testing.T) {
	err := authkittest.New().Listen("not an address")
	if netErr := (*net.OpError)(nil); !errors.As(err, &netErr) {
		t.Errorf("got %v", err)
	}
}

func TestConfigure(t *testing.T) {
	f := newFixture(t)
	f.Configure(func(s *authkittest.Settings) {
		s.Issuer = f.URL() + "/user_management/" + s.ClientID // it may ask
		s.RedirectURIs = append(s.RedirectURIs, "https://prod.example.com/callback")
	})
	f.get(f.authorizePath("redirect_uri", "https://prod.example.com/callback"), "Accept", "text/html").expectStatus(t, 200)

	defer func() {
		if recover() == nil {
			t.Error("claims that are no JSON are taken")
		}
	}()
	f.Configure(func(s *authkittest.Settings) { s.Claims = map[string]any{"f": func() {}} })
}

func TestRateLimits(t *testing.T) {
	limits := []struct {
		name  string
		calls int
		wait  string
		call  func(*fixture) response
		check func(response, *testing.T)
	}{
		{"writes: 500 in 10 seconds", 500, "10",
			func(f *fixture) response { return f.refresh("nope") },
			func(r response, t *testing.T) { r.expectOAuth(t, 429, "too_many_requests") }},
		{"reads: 1000 in 10 seconds", 1000, "10",
			func(f *fixture) response { return f.get("/user_management/users/x", f.bearer()...) },
			func(r response, t *testing.T) { r.expectPlain(t, 429, "rate_limit_exceeded") }},
		{"sign-ins: 10 a minute for an address", 10, "60",
			func(f *fixture) response { return f.exchange(f.code()) },
			func(r response, t *testing.T) { r.expectOAuth(t, 429, "too_many_requests") }},
	}
	for _, l := range limits {
		t.Run(l.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.Configure(func(s *authkittest.Settings) { s.RateLimit = true })
				for i := range l.calls {
					if r := l.call(f); r.StatusCode == 429 {
						t.Fatalf("call %d is one too many", i+1)
					}
				}
				r := l.call(f)
				l.check(r, t)
				if got := r.Header.Get("Retry-After"); got != l.wait {
					t.Errorf("Retry-After is %q, want %s", got, l.wait)
				}
				time.Sleep(time.Minute)
				if r := l.call(f); r.StatusCode == 429 {
					t.Error("the limit outlives its window")
				}
			})
		})
	}
}

func TestNoRateLimitByDefault(t *testing.T) {
	f := newFixture(t)
	for range 600 {
		f.refresh("nope").expectOAuth(t, 400, "invalid_grant")
	}
}

func TestKeySetIsExemptFromRateLimits(t *testing.T) {
	f := newFixture(t)
	f.Configure(func(s *authkittest.Settings) { s.RateLimit = true })
	for range 1100 {
		f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
	}
}

func TestClockOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.Configure(func(s *authkittest.Settings) { s.ClockOffset = time.Hour })
		r := f.exchange(f.code())
		theirs := time.Now().Add(time.Hour)
		claims := f.verify(r.decode(t)["access_token"].(string))
		if claims["iat"] != float64(theirs.Unix()) || claims["auth_time"] != float64(theirs.Unix()) ||
			claims["exp"] != float64(theirs.Add(5*time.Minute).Unix()) {
			t.Errorf("claims are %v", claims)
		}
		if date, _ := http.ParseTime(r.Header.Get("Date")); !date.Equal(theirs.Truncate(time.Second)) {
			t.Errorf("Date is %s", date)
		}
	})
}

func TestEverythingAtOnce(t *testing.T) {
	f := newFixture(t)
	orchard, _ := f.twoOrganizations()
	auth, err := f.NewSession(f.ada.Email, orchard.ID)
	if err != nil {
		t.Fatal(err)
	}
	f.Fail(authkittest.KeySet, 10, authkittest.Fault{Status: 500})

	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { f.refresh(auth.RefreshToken) })
		all.Go(func() { f.get("/sso/jwks/" + f.clientID) })
		all.Go(func() { f.code("organization_id", orchard.ID) })
		all.Go(func() { f.AddUser(authkittest.User{Email: "mo@example.test"}) })
		all.Go(func() { f.Configure(func(s *authkittest.Settings) { s.Claims = map[string]any{"a": "b"} }) })
		all.Go(func() { f.RotateKeys(); f.RetireKeys() })
		all.Go(func() { f.Requests(authkittest.Any); f.MostInFlight(authkittest.Any); f.ActiveSessions() })
		all.Go(func() { f.Sign(nil, nil) })
	}
	all.Wait()
}
