package authkit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// begin asks for a login and returns where WorkOS would take the visitor.
func begin(t *testing.T, b *browser, target string) *url.URL {
	t.Helper()
	p := b.stay().get(target)
	p.expect(t, 302)
	return location(t, p)
}

func location(t *testing.T, p page) *url.URL {
	t.Helper()
	u, err := url.Parse(p.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// authorize has Ada sign in on WorkOS's page for a login that has begun, and
// returns the path and query of the callback that she would be sent to.
func (a *application) authorize(login *url.URL) string {
	a.t.Helper()
	return a.authorizeAs(login, ada)
}

func (a *application) authorizeAs(login *url.URL, email string) string {
	a.t.Helper()
	client := a.workos.Browser(http.NotFoundHandler())
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	b := &browser{a.t, client}

	r, err := http.NewRequest("GET", login.String(), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	form := signInForm.FindStringSubmatch(b.do(r).body)
	if form == nil {
		a.t.Fatal("WorkOS shows no page to sign in on")
	}
	fields := url.Values{"transaction": {form[2]}, "action": {"sign-in"}, "email": {email}}
	r, err = http.NewRequest("POST", login.Scheme+"://"+login.Host+form[1], strings.NewReader(fields.Encode()))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	p := b.do(r)
	location, err := p.Location()
	if err != nil || location.Path != "/callback" {
		a.t.Fatalf("the page leads to %v (%s): %v", location, p.Status, err)
	}
	return location.RequestURI()
}

var signInForm = regexp.MustCompile(`action="([^"]+)"><input type="hidden" name="transaction" value="([^"]+)"`)

func TestLoginSendsStateAndChallengeOfItsOwn(t *testing.T) {
	a := newApplication(t)
	b := a.visitor()
	first, second := begin(t, b, "/login").Query(), begin(t, b, "/login").Query()
	for _, name := range []string{"state", "code_challenge"} {
		if len(first.Get(name)) != 43 || first.Get(name) == second.Get(name) {
			t.Errorf("%s: %q and then %q, want 43 characters anew each time", name, first.Get(name), second.Get(name))
		}
	}
	if first.Get("code_challenge_method") != "S256" || first.Get("response_type") != "code" || first.Get("provider") != "authkit" {
		t.Errorf("query %v", first)
	}
	if got := begin(t, b, "/signup").Query().Get("screen_hint"); got != "sign-up" {
		t.Errorf("SignUp sends screen_hint %q", got)
	}
}

func TestLoginBeginsOnlyForSomeoneLooking(t *testing.T) {
	a := newApplication(t)
	for _, c := range []struct {
		promise string
		method  string
		header  []string
		status  int
	}{
		{"a page begins a login", "GET", navigate, 302},
		{"a form begins a login", "POST", navigate, 303},
		{"curl begins a login", "GET", []string{"Accept", "*/*"}, 302},
		{"HEAD begins nothing", "HEAD", navigate, 204},
		{"fetch begins nothing", "GET", fetch, 401},
		{"an image begins nothing", "GET", []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 401},
		{"a prefetch begins nothing", "GET", with(navigate, "Sec-Purpose", "prefetch"), 401},
		{"a preview begins nothing", "GET", []string{"X-Purpose", "preview"}, 401},
		{"PUT is not allowed", "PUT", fetch, 405},
	} {
		t.Run(c.promise, func(t *testing.T) {
			p := answer(a, request(c.method, "/login", c.header...))
			p.expect(t, c.status)
			if began := len(p.Header["Set-Cookie"]) > 0; began != (c.status < 400 && c.status != 204) {
				t.Errorf("Set-Cookie %q", p.Header["Set-Cookie"])
			}
		})
	}
}

func TestStartLoginPassesItsParameters(t *testing.T) {
	var got *authkit.Login
	a := newApplication(t, func(o *authkit.Options) {
		o.OnLogin = func(_ *http.Request, l *authkit.Login) error { got = l; return nil }
	})
	params := authkit.LoginParams{
		ReturnTo: "/dashboard?x=1#y", State: "my own & state", OrganizationID: "org_01ORCHARD",
		LoginHint: ada, DomainHint: "example.test", Prompt: "login", MaxAge: -1, ScreenHint: "sign-in", InvitationToken: "inv",
	}
	a.mux.HandleFunc("/start", func(w http.ResponseWriter, r *http.Request) { a.kit.StartLogin(w, r, params) })
	b := a.visitor()
	sent := begin(t, b, "/start")
	for name, want := range map[string]string{
		"organization_id": "org_01ORCHARD", "login_hint": ada, "domain_hint": "example.test",
		"prompt": "login", "max_age": "0", "screen_hint": "sign-in", "invitation_token": "inv",
	} {
		if got := sent.Query().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if strings.Contains(sent.String(), "own") {
		t.Error("WorkOS sees the caller's state")
	}

	params.Prompt, params.MaxAge = "", 0
	b.stay().get(a.authorize(begin(t, b, "/start"))).expectRedirect(t, 302, "/dashboard?x=1#y")
	if got == nil || got.State != "my own & state" || got.Session.User.Email != ada || got.ReturnTo != "/dashboard?x=1#y" {
		t.Errorf("OnLogin got %+v", got)
	}
}

func TestLoginStateAndReturnPathTogetherFitTheirCookie(t *testing.T) {
	a := newApplication(t)
	a.mux.HandleFunc("/start", func(w http.ResponseWriter, r *http.Request) {
		a.kit.StartLogin(w, r, authkit.LoginParams{State: strings.Repeat("s", len(r.URL.Query().Get("n"))), ReturnTo: r.URL.Query().Get("return_to")})
	})
	longPath := "/" + strings.Repeat("p", 2047)
	b := a.visitor()
	b.stay().get("/login?return_to="+longPath).expect(t, 302)

	for promise, c := range map[string]struct {
		state    int
		path     string
		status   int
		returnTo string
	}{
		"the longest state alone":                {2048, "", 302, "/"},
		"the longest state loses a longest path": {2048, longPath, 302, "/"},
		"a short state keeps a path":             {20, "/x", 302, "/x"},
		"a state too long is refused":            {2049, "", 500, ""},
	} {
		t.Run(promise, func(t *testing.T) {
			p := b.stay().get("/start?n=" + strings.Repeat("x", c.state) + "&return_to=" + c.path)
			p.expect(t, c.status)
			for _, line := range p.Header["Set-Cookie"] {
				if len(line) > 4096 {
					t.Errorf("a cookie of %d bytes", len(line))
				}
			}
			if c.status == 302 {
				login, _ := url.Parse(p.Header.Get("Location"))
				b.stay().get(a.authorize(login)).expectRedirect(t, 302, c.returnTo)
			}
		})
	}
}

func TestTabsFinishInAnyOrder(t *testing.T) {
	a := newApplication(t)
	b := a.visitor()
	var callbacks []string
	for _, path := range []string{"/a", "/b", "/c"} {
		callbacks = append(callbacks, a.authorize(begin(t, b, "/login?return_to="+path)))
	}
	for i, want := range map[int]string{2: "/c", 0: "/a", 1: "/b"} {
		b.stay().get(callbacks[i]).expectRedirect(t, 302, want)
	}
	if got := b.cookies(); len(got) != 2 || got["wos-session"] == "" || got["wos-auth-marker"] == "" {
		t.Errorf("cookies left: %v", got)
	}
}

func TestFiveLoginsUnderWayAtTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		b := a.visitor()
		b.setCookie("wos-auth-verifier-ofanotherport00", "not ours")
		var callbacks []string
		for range 7 {
			callbacks = append(callbacks, a.authorize(begin(t, b, "/login?return_to=/public")))
			time.Sleep(time.Second)
		}
		if got := b.cookies(); len(got) != 6 || got["wos-auth-verifier-ofanotherport00"] != "not ours" {
			t.Errorf("%d cookies, want five logins and the other port's: %v", len(got), got)
		}
		for i, callback := range callbacks {
			p := b.stay().get(callback)
			if oldest := i < 2; oldest != (p.StatusCode == 400) {
				t.Errorf("login %d: %s", i, p.Status)
			}
			for name := range b.cookies() {
				if name == "wos-session" {
					b.setCookie(name, "")
				}
			}
		}
	})
}

// Together with the session they must fit what servers accept as one header.
func TestLongLoginsUnderWayStaySmallTogether(t *testing.T) {
	a := newApplication(t)
	b := a.visitor()
	for i := range 5 {
		b.stay().get("/login?return_to=/"+strings.Repeat(fmt.Sprint(i), 2000)).expect(t, 302)
	}
	total := 0
	for name, value := range b.cookies() {
		total += len(name) + len(value) + len("=; ")
	}
	if total > 6<<10 {
		t.Errorf("cookies of %d bytes", total)
	}
}

// Several kits on one host share the browser's marker.
func TestMarkerOfAnotherKitMeansNothing(t *testing.T) {
	a := newApplication(t)
	opts := a.opts
	opts.CookieName, opts.LoginPath, opts.RedirectURI = "staff-session", "/staff/login", authkittest.AppURL+"/staff/callback"
	staff, err := authkit.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	a.mux.Handle("/staff/", staff.WithAuth(http.HandlerFunc(showSession)))
	a.signIn().stay().get("/staff/").expectRedirect(t, 302, "/staff/login?return_to=%2Fstaff%2F")
}

func TestCallback(t *testing.T) {
	a := newApplication(t)
	stranger := request("GET", a.authorize(begin(t, a.visitor(), "/login")), navigate...)
	foreignState := stranger.URL.Query().Get("state")

	for _, c := range []struct {
		promise  string
		query    string // STATE and CODE stand for those of a login that this browser began
		status   int
		location string
		words    string
	}{
		{"a login that this browser began", "code=CODE&state=STATE", 302, "/public?x=1", ""},
		{"the state of another browser", "code=CODE&state=" + foreignState, 400, "", "no longer valid"},
		{"an invented state", "code=CODE&state=invented", 400, "", "no longer valid"},
		{"a state that differs in its last character", "code=CODE&state=STATEx", 400, "", "no longer valid"},
		{"a code of another login", "code=auth_code_01X&state=STATE", 400, "", "did not accept it"},
		{"no code", "state=STATE", 400, "", "incomplete"},
		{"an empty code", "code=&state=STATE", 400, "", "incomplete"},
		{"two codes", "code=CODE&code=CODE&state=STATE", 400, "", "incomplete"},
		{"two states", "code=CODE&state=STATE&state=STATE", 400, "", "incomplete"},
		{"a code that is too long", "code=" + strings.Repeat("c", 1025) + "&state=STATE", 400, "", "incomplete"},
		{"a state that is too long", "code=CODE&state=" + strings.Repeat("s", 1025), 400, "", "incomplete"},
		{"nothing at all", "", 400, "", "incomplete"},
		{"a query that does not parse", "%zz&;;", 400, "", "incomplete"},
		{"a code without a state begins a login", "code=CODE", 302, "/login", ""},
		{"an error that WorkOS documents", "error=access_denied&error_description=no&state=STATE", 403, "", "cancelled or not allowed"},
		{"an error of an organization", "error=organization_invalid&state=STATE", 400, "", "organization you chose"},
		{"an error of a connection", "error=connection_unlinked&state=STATE", 400, "", "not connected"},
		{"an error that nobody knows", "error=<b>new</b>&error_description=<b>new</b>", 400, "", "could not sign you in"},
		{"an error and a code", "error=server_error&code=CODE&state=STATE", 400, "", "could not sign you in"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			b := a.visitor()
			login := begin(t, b, "/login?return_to=%2Fpublic%3Fx%3D1")
			own, _ := url.Parse(a.authorize(login))
			query := strings.NewReplacer("CODE", own.Query().Get("code"), "STATE", own.Query().Get("state")).Replace(c.query)

			p := b.stay().get("/callback?" + query)
			p.expect(t, c.status, c.words)
			if got := p.Header.Get("Location"); got != c.location {
				t.Errorf("leads to %q, want %q", got, c.location)
			}
			if signedIn := b.cookies()["wos-session"] != ""; signedIn != (c.location == "/public?x=1") {
				t.Errorf("signed in: %v", signedIn)
			}
			for _, echo := range []string{"<b>", "invented", own.Query().Get("state"), own.Query().Get("code")} {
				if strings.Contains(p.body, echo) {
					t.Errorf("the page echoes %q", echo)
				}
			}
			// Whatever happened, the login cookie of its state is gone.
			used := strings.Count(query, own.Query().Get("state")) == 1 && !strings.Contains(query, own.Query().Get("state")+"x")
			if left := len(b.cookies()) - len(keep(b.cookies(), "wos-session", "wos-auth-marker")); used == (left > 0) {
				t.Errorf("login cookies left: %d", left)
			}
		})
	}
}

func keep(cookies map[string]string, names ...string) map[string]string {
	kept := make(map[string]string)
	for _, name := range names {
		if value, ok := cookies[name]; ok {
			kept[name] = value
		}
	}
	return kept
}

func TestCallbackMethods(t *testing.T) {
	a := newApplication(t)
	answer(a, request("HEAD", "/callback?code=x&state=y", navigate...)).expect(t, 204)
	answer(a, request("POST", "/callback?code=x&state=y", navigate...)).expect(t, 405)
	answer(a, request("GET", "/callback?code=x&state=y", with(navigate, "Sec-Purpose", "prefetch")...)).expect(t, 401)
}

func TestBackButtonOntoTheCallback(t *testing.T) {
	a := newApplication(t)
	b := a.visitor()
	callback := a.authorize(begin(t, b, "/login?return_to=/public"))
	b.stay().get(callback).expectRedirect(t, 302, "/public")
	b.stay().get(callback).expectRedirect(t, 302, "/")
	b.get("/dashboard").expectSession(t)
}

func TestLoginThatTookTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		b := a.visitor()
		login := begin(t, b, "/login?return_to=/public")
		kept := b.frozen() // a browser that ignores Max-Age
		time.Sleep(10*time.Minute + time.Second)
		kept.stay().get(a.authorize(login)).expect(t, 400, "no longer valid", `href="/login?return_to=%2Fpublic"`)
	})
}

// A marker keeps a browser that throws cookies away from circling.
func TestBrowserWithoutCookiesDoesNotCircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApplication(t)
		b := a.visitor()
		p := b.stay().get(a.authorize(begin(t, b, "/login?return_to=/dashboard")))
		p.expectRedirect(t, 302, "/dashboard")

		marker := b.cookies()["wos-auth-marker"]
		lost := a.visitor()
		lost.setCookie("wos-auth-marker", marker)
		stay := lost.stay()
		stay.get("/dashboard").expect(t, 400, "did not keep the sign-in", `href="/login?return_to=%2Fdashboard"`)
		stay.get("/dashboard", fetch...).expect(t, 401)

		lost.setCookie("wos-auth-marker", "forged")
		stay.get("/dashboard").expect(t, 302)

		all := a.visitor()
		all.client.Jar = frozenJar{}
		login := begin(t, all, "/login")
		all.stay().get(a.authorize(login)).expect(t, 400, "no longer valid")

		lost.setCookie("wos-auth-marker", marker)
		time.Sleep(59 * time.Second)
		stay.get("/dashboard").expect(t, 400)
		time.Sleep(3 * time.Second)
		stay.get("/dashboard").expect(t, 302)
	})
}

func TestOnLogin(t *testing.T) {
	var verdict error
	var next string
	var onError error
	a := newApplication(t, func(o *authkit.Options) {
		o.OnLogin = func(r *http.Request, l *authkit.Login) error {
			if next != "" {
				l.ReturnTo = next
			}
			return verdict
		}
		o.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
			onError = err
			w.WriteHeader(http.StatusForbidden)
		}
	})
	finish := func() page {
		b := a.visitor()
		return b.stay().get(a.authorize(begin(t, b, "/login?return_to=/public")))
	}

	next = "/welcome?step=1"
	finish().expectRedirect(t, 302, next)
	next = "https://evil.test/"
	finish().expectRedirect(t, 302, "/")

	helper := errors.New("not on the list")
	b := a.visitor()
	login := begin(t, b, "/login")
	callback := a.authorize(login)
	verdict = helper
	p := b.stay().get(callback)
	p.expect(t, 403)
	if !errors.Is(onError, helper) || p.setCookie("wos-session") != "" || len(p.Header["Set-Cookie"]) != 1 {
		t.Errorf("%v; %q", onError, p.Header["Set-Cookie"])
	}
}

// Who is refused can try another account: WorkOS does not sign the same one in
// again without asking.
func TestRefusedLoginLeavesNoSessionAtWorkOS(t *testing.T) {
	a := newApplication(t, func(o *authkit.Options) {
		o.OnLogin = func(*http.Request, *authkit.Login) error { return errors.New("not on the list") }
	})
	b := a.visitor()
	b.stay().get(a.authorize(begin(t, b, "/login"))).expect(t, 403, "did not accept your account")
	if left := a.workos.ActiveSessions(); len(left) != 0 {
		t.Errorf("sessions at WorkOS: %v", left)
	}
}

func TestAuthorizationErrorReachesOnError(t *testing.T) {
	var got *authkit.AuthorizationError
	a := newApplication(t, func(o *authkit.Options) {
		o.OnError = func(_ http.ResponseWriter, _ *http.Request, err error) { errors.As(err, &got) }
	})
	answer(a, request("GET", "/callback?error=access_denied&error_description=The+user+said+no", navigate...))
	if got == nil || got.Code != "access_denied" || got.Description != "The user said no" {
		t.Errorf("%+v", got)
	}
	if strings.Contains(got.Error(), "said no") {
		t.Error("its text repeats the description")
	}
	answer(a, request("GET", "/callback?error=%0aforged+log+line", navigate...))
	if got.Code != "unknown" {
		t.Errorf("code %q", got.Code)
	}
}

// Faults of the set-up that only WorkOS's answer shows are one clear error.
func TestMisconfigurationIsOneClearErrorAndNoLoop(t *testing.T) {
	for _, c := range []struct {
		promise string
		options func(*authkit.Options)
		workos  func(*authkittest.WorkOS)
		logged  string
	}{
		{"an issuer that is not listed", func(o *authkit.Options) { o.Issuers = []string{"https://auth.example.test"} }, nil, "WORKOS_ISSUER"},
		{"another client's token", nil, func(w *authkittest.WorkOS) {
			w.Configure(func(s *authkittest.Settings) { s.Claims = map[string]any{"client_id": "client_other"} })
		}, "WORKOS_CLIENT_ID"},
		{"a clock that is wrong", nil, func(w *authkittest.WorkOS) {
			w.Configure(func(s *authkittest.Settings) { s.ClockOffset = -10 * time.Minute })
		}, "clock"},
		{"an API key that WorkOS refuses", func(o *authkit.Options) { o.APIKey = "sk_wrong" }, nil, "WORKOS_API_KEY"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			var options []func(*authkit.Options)
			if c.options != nil {
				options = append(options, c.options)
			}
			a := newApplication(t, options...)
			if c.workos != nil {
				c.workos(a.workos)
			}
			b := a.visitor()
			p := b.stay().get(a.authorize(begin(t, b, "/login?return_to=/dashboard")))
			p.expect(t, 503, "not set up correctly")
			if p.setCookie("wos-session") != "" || !a.log.has("misconfigured") || !strings.Contains(a.log.String(), c.logged) {
				t.Errorf("log %s", a.log)
			}
		})
	}
}

func TestExchangeSendsWhatWorkOSAsksFor(t *testing.T) {
	a := newApplication(t, func(o *authkit.Options) { o.ClientIP = func(*http.Request) string { return "203.0.113.9" } })
	b := a.visitor()
	callback := a.authorize(begin(t, b, "/login"))
	b.stay().get(callback, with(navigate, "User-Agent", "Lynx")...).expect(t, 302)
	requests := a.workos.Requests(authkittest.Authenticate)
	sent := requests[len(requests)-1]
	for name, want := range map[string]any{
		"grant_type": "authorization_code", "client_id": a.opts.ClientID, "client_secret": a.opts.APIKey,
		"ip_address": "203.0.113.9", "user_agent": "Lynx",
	} {
		if sent.Body[name] != want {
			t.Errorf("%s is %v, want %v", name, sent.Body[name], want)
		}
	}
	if v, _ := sent.Body["code_verifier"].(string); len(v) != 43 {
		t.Errorf("code_verifier %q", v)
	}
	if _, sent := sent.Body["redirect_uri"]; sent {
		t.Error("redirect_uri is sent; WorkOS does not take it")
	}
}

func TestClientIPIsNeverTakenFromHeadersByDefault(t *testing.T) {
	for remote, want := range map[string]any{
		"203.0.113.9:1234":   "203.0.113.9",
		"[2001:db8::1]:1234": "2001:db8::1",
		"10.0.0.1:1234":      nil,
		"127.0.0.1:1234":     nil,
		"not an address":     nil,
	} {
		a := newApplication(t)
		b := a.visitor()
		callback := a.authorize(begin(t, b, "/login"))
		r := request("GET", callback, with(navigate, "X-Forwarded-For", "198.51.100.1", "Forwarded", "for=198.51.100.1")...)
		r.RemoteAddr = remote
		for name, value := range b.cookies() {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		answer(a, r).expect(t, 302)
		requests := a.workos.Requests(authkittest.Authenticate)
		if got := requests[len(requests)-1].Body["ip_address"]; got != want {
			t.Errorf("RemoteAddr %s: ip_address %v, want %v", remote, got, want)
		}
	}
}

// WorkOS may answer the callback's exchange with anything.
func TestExchangeFaults(t *testing.T) {
	for _, c := range []struct {
		promise string
		fault   authkittest.Fault
		status  int
	}{
		{"500", authkittest.Fault{Status: 500}, 503},
		{"429 with Retry-After", authkittest.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}}, 503},
		{"HTML from a proxy", authkittest.Fault{Status: 502, Body: "<html>bad gateway"}, 503},
		{"HTML with 200", authkittest.Fault{Status: 200, Body: "<html>welcome"}, 503},
		{"an empty reply", authkittest.Fault{Status: 200, Body: ""}, 503},
		{"an empty object", authkittest.Fault{Status: 200, Body: "{}"}, 503},
		{"wrong types", authkittest.Fault{Status: 200, Body: `{"user":[],"access_token":1}`}, 503},
		{"tokens without a user", authkittest.Fault{Status: 200, Body: `{"access_token":"a","refresh_token":"b"}`}, 503},
		{"a token that is none", authkittest.Fault{Status: 200, Body: `{"user":{"id":"u"},"access_token":"a","refresh_token":"b"}`}, 503},
		{"a cut reply", authkittest.Fault{CutAfter: 40}, 503},
		{"a lost reply", authkittest.Fault{DropReply: true}, 503},
		{"a huge reply", authkittest.Fault{Status: 200, Body: strings.Repeat(" ", 2<<20)}, 503},
		{"no reply", authkittest.Fault{Hang: true}, 503},
		{"a redirect", authkittest.Fault{Status: 307, Header: http.Header{"Location": {"https://evil.test/"}}}, 400},
		{"invalid_grant", authkittest.Fault{Status: 400, Body: `{"error":"invalid_grant","error_description":"eyJhbGciOiJSUzI1NiJ9"}`}, 400},
		{"invalid_client", authkittest.Fault{Status: 400, Body: `{"error":"invalid_client"}`}, 503},
		{"organization_selection_required", authkittest.Fault{Status: 403, Body: `{"code":"organization_selection_required"}`}, 400},
	} {
		t.Run(c.promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newApplication(t)
				b := a.visitor()
				callback := a.authorize(begin(t, b, "/login?return_to=/public"))
				began := time.Now()
				a.workos.Fail(authkittest.Authenticate, 1, c.fault)
				p := b.stay().get(callback)
				p.expect(t, c.status, `href="/login?return_to=%2Fpublic"`)
				if got := p.Header.Get("Retry-After"); (c.status == 503) != (got != "") {
					t.Errorf("Retry-After %q", got)
				}
				if took := time.Since(began); took > 11*time.Second {
					t.Errorf("took %v", took)
				}
				if len(b.cookies()) != 0 {
					t.Errorf("cookies left: %v", b.cookies())
				}
			})
		})
	}
}
