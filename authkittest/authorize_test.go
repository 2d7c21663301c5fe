package authkittest_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

func TestAuthorizeRefusesOnItsOwnSide(t *testing.T) {
	for _, c := range []struct {
		name  string
		pairs []string
		code  string
	}{
		{"no client_id", []string{"client_id", ""}, "invalid_request"},
		{"another client_id", []string{"client_id", "client_other"}, "invalid_client_id"},
		{"no redirect_uri", []string{"redirect_uri", ""}, "invalid_request"},
		{"a redirect_uri that is not registered", []string{"redirect_uri", "https://evil.test/callback"}, "invalid_redirect_uri"},
		{"a registered redirect_uri with more behind it", []string{"redirect_uri", "https://prod.example.com/callback/x"}, "invalid_redirect_uri"},
		{"a redirect_uri that looks like loopback", []string{"redirect_uri", "http://localhost.evil.test/"}, "invalid_redirect_uri"},
		{"a redirect_uri with a user", []string{"redirect_uri", "http://localhost@evil.test/"}, "invalid_redirect_uri"},
		{"a redirect_uri of another scheme", []string{"redirect_uri", "javascript://localhost/%0aalert(1)"}, "invalid_redirect_uri"},
		{"no response_type", []string{"response_type", ""}, "invalid_request"},
		{"response_type=token", []string{"response_type", "token"}, "invalid_request"},
		{"a challenge without its method", []string{"code_challenge", challenge}, "invalid_request"},
		{"a method without its challenge", []string{"code_challenge_method", "S256"}, "invalid_request"},
		{"a plain challenge", []string{"code_challenge", challenge, "code_challenge_method", "plain"}, "invalid_request"},
		{"a challenge of another length", []string{"code_challenge", "short", "code_challenge_method", "S256"}, "invalid_request"},
		{"a padded challenge", []string{"code_challenge", challenge[:42] + "=", "code_challenge_method", "S256"}, "invalid_request"},
		{"another screen_hint", []string{"screen_hint", "signup"}, "invalid_request"},
		{"a screen_hint for a provider without screens", []string{"provider", "GoogleOAuth", "screen_hint", "sign-up"}, "invalid_request"},
		{"a max_age that is no number", []string{"max_age", "soon"}, "invalid_request"},
		{"a negative max_age", []string{"max_age", "-1"}, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.Configure(func(s *authkittest.Settings) { s.RedirectURIs = []string{"https://prod.example.com/callback"} })
			f.get(f.authorizePath(c.pairs...)).expectPlain(t, 400, c.code)

			page := f.get(f.authorizePath(c.pairs...), "Accept", "text/html").expectStatus(t, 400)
			if page.Header.Get("Location") != "" || !strings.Contains(string(page.body), "<h1>WorkOS cannot do that</h1>") {
				t.Errorf("browsers get %s", page.body)
			}
		})
	}
}

func TestAuthorizeRefusesAParameterGivenTwice(t *testing.T) {
	f := newFixture(t)
	f.get(f.authorizePath()+"&state=s2").expectPlain(t, 400, "invalid_request")
	f.get(f.authorizePath()+"&provider_scopes=a&provider_scopes=b").expectStatus(t, 200)
}

func TestAuthorizeRefusesToTheApplication(t *testing.T) {
	for _, c := range []struct {
		name  string
		pairs []string
		code  string
	}{
		{"no selector", []string{"provider", ""}, "invalid_connection_selector"},
		{"an unknown provider", []string{"provider", "MySpaceOAuth"}, "invalid_connection_selector"},
		{"two selectors", []string{"connection_id", "conn_1"}, "ambiguous_connection_selector"},
		{"an unknown connection", []string{"provider", "", "connection_id", "conn_1"}, "connection_invalid"},
		{"an unknown organization", []string{"organization_id", "org_1"}, "organization_invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			u := f.get(f.authorizePath(c.pairs...)).location(t)
			q := u.Query()
			if q.Get("error") != c.code || q.Get("error_description") == "" || q.Get("state") != "s1" || q.Has("code") {
				t.Errorf("Location is %s", u)
			}
		})
	}
}

func TestRedirectURIs(t *testing.T) {
	for _, uri := range []string{
		"https://prod.example.com/callback", callback, authkittest.AppURL + "/elsewhere",
		"http://localhost:3000/callback", "http://127.0.0.1:8080/cb", "http://[::1]:9/cb", "https://localhost/cb", "http://shop.localhost/cb",
	} {
		f := newFixture(t)
		f.Configure(func(s *authkittest.Settings) { s.RedirectURIs = []string{"https://prod.example.com/callback"} })
		f.code("redirect_uri", uri)
	}
}

func TestRedirectKeepsWhatTheURIHas(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct{ uri, state, before, after string }{
		{callback, "a b&c", callback + "?code=auth_code_", "&state=a+b%26c"},
		{callback + "?a=1&b=%20", "s", callback + "?a=1&b=%20&code=auth_code_", "&state=s"},
		{callback + "#part", "s", callback + "?code=auth_code_", "&state=s#part"},
		{callback, "", callback + "?code=auth_code_", ""},
		{authkittest.AppURL + "//a/../callback", "s", authkittest.AppURL + "//a/../callback?code=auth_code_", "&state=s"},
	} {
		page := f.openPage("redirect_uri", c.uri, "state", c.state)
		got := f.submit(page, "sign-in", "email", f.ada.Email).expectStatus(t, 302).Header.Get("Location")
		code := strings.TrimSuffix(strings.TrimPrefix(got, c.before), c.after)
		if len(code) != 26 {
			t.Errorf("Location is %s, want %s…%s", got, c.before, c.after)
		}
	}
}

func TestEmptyStateComesBackEmpty(t *testing.T) {
	f := newFixture(t)
	r := f.get(f.authorizePath("provider", "x", "state", "") + "&state=")
	if q := r.location(t).Query(); !q.Has("state") || q.Get("state") != "" {
		t.Errorf("Location is %s", r.Header.Get("Location"))
	}
}

func TestBrowserStaysSignedInToWorkOS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.keepCookies()
		signedIn := f.submit(f.openPage(), "sign-in", "email", f.ada.Email)
		cookie, err := http.ParseSetCookie(signedIn.Header.Get("Set-Cookie"))
		if err != nil || cookie.Name != "authkittest_session" || !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteLaxMode {
			t.Errorf("the cookie is %v", cookie)
		}
		first := f.exchange(signedIn.expectCode(t)).expectStatus(t, 200).decode(t)

		time.Sleep(time.Minute)
		for _, c := range []struct {
			name  string
			pairs []string
			asks  bool
		}{
			{"nothing said", nil, false},
			{"a larger max_age", []string{"max_age", "61"}, false},
			{"just that max_age", []string{"max_age", "60"}, false},
			{"a smaller max_age", []string{"max_age", "59"}, true},
			{"max_age=0", []string{"max_age", "0"}, true},
			{"prompt=login", []string{"prompt", "login"}, true},
			{"screen_hint=sign-up", []string{"screen_hint", "sign-up"}, true},
			{"screen_hint=sign-in", []string{"screen_hint", "sign-in"}, false},
		} {
			if r := f.get(f.authorizePath(c.pairs...), "Accept", "text/html"); (r.StatusCode == 200) != c.asks {
				t.Errorf("%s: got %s", c.name, r.Status)
			}
		}

		// auth_time tells when the user proved who they are, not when the
		// application asked.
		again := f.exchange(f.get(f.authorizePath()).expectCode(t)).decode(t)
		was, is := f.verify(first["access_token"].(string)), f.verify(again["access_token"].(string))
		if was["auth_time"] != is["auth_time"] || was["sid"] == is["sid"] {
			t.Errorf("claims were %v and are %v", was, is)
		}
	})
}

func TestSigningInOnceMoreIsALaterAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.keepCookies()
		f.code()
		time.Sleep(time.Hour)
		fresh := f.exchange(f.code("max_age", "0")).decode(t)
		if got := f.verify(fresh["access_token"].(string))["auth_time"]; got != float64(time.Now().Unix()) {
			t.Errorf("auth_time is %v", got)
		}
		f.get(f.authorizePath("max_age", "1")).expectCode(t)
	})
}

func TestLogoutSignsTheBrowserOutOfWorkOS(t *testing.T) {
	f := newFixture(t)
	f.keepCookies()
	auth := f.exchange(f.code()).decode(t)
	f.get(f.authorizePath()).expectCode(t)

	sid := f.verify(auth["access_token"].(string))["sid"].(string)
	gone := f.get("/user_management/sessions/logout?session_id=" + sid).Header.Get("Set-Cookie")
	if cookie, err := http.ParseSetCookie(gone); err != nil || cookie.MaxAge != -1 {
		t.Errorf("the cookie is %v", cookie)
	}
	f.get(f.authorizePath(), "Accept", "text/html").expectStatus(t, 200)
}

func TestRevocationSignsTheBrowserOutOfWorkOS(t *testing.T) {
	f := newFixture(t)
	f.keepCookies()
	f.exchange(f.code()).expectStatus(t, 200)
	f.Revoke(f.ActiveSessions()[0])
	f.get(f.authorizePath(), "Accept", "text/html").expectStatus(t, 200)
}

func TestConnectionSignsInToItsOrganization(t *testing.T) {
	f := newFixture(t)
	orchard, quarry := f.twoOrganizations()
	f.AddOrganization(authkittest.Organization{ID: quarry.ID, Name: "Quarry Inc", RequireSSO: true})
	auth, err := f.NewSession(f.ada.Email, orchard.ID)
	if err != nil {
		t.Fatal(err)
	}
	demand := f.refresh(auth.RefreshToken, "organization_id", quarry.ID).expectOAuth(t, 400, "sso_required")
	connection := demand["connection_ids"].([]any)[0].(string)

	signedIn := f.exchange(f.code("provider", "", "connection_id", connection)).expectStatus(t, 200).decode(t)
	if signedIn["organization_id"] != quarry.ID || signedIn["authentication_method"] != "SSO" {
		t.Errorf("got %v", signedIn)
	}
	f.refresh(signedIn["refresh_token"].(string), "organization_id", quarry.ID).expectStatus(t, 200)
}

func TestDemandForSSOIsMetByAConnection(t *testing.T) {
	f := newFixture(t)
	_, quarry := f.twoOrganizations()
	connection := "conn_" + strings.TrimPrefix(quarry.ID, "org_")
	signedIn := f.exchange(f.code("provider", "", "connection_id", connection)).decode(t)
	quarry.RequireSSO = true // from now on
	f.AddOrganization(quarry)
	f.refresh(signedIn["refresh_token"].(string)).expectStatus(t, 200)
}

func TestAuthenticationMethod(t *testing.T) {
	for _, c := range []struct {
		pairs []string
		want  string
	}{
		{nil, "Password"},
		{[]string{"provider", "GoogleOAuth"}, "GoogleOAuth"},
		{[]string{"provider", "XeroOAuth"}, "XeroOAuth"},
	} {
		f := newFixture(t)
		if got := f.exchange(f.code(c.pairs...)).decode(t)["authentication_method"]; got != c.want {
			t.Errorf("%v: got %v, want %s", c.pairs, got, c.want)
		}
	}
}
