package authkittest_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

func (f *fixture) revoke(body string, header ...string) response {
	f.Helper()
	return f.do(f.request("POST", "/user_management/sessions/revoke", strings.NewReader(body), header...))
}

func TestNoRefreshAfterTheEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(f *fixture, sid string)
	}{
		{"logout", func(f *fixture, sid string) { f.get("/user_management/sessions/logout?session_id=" + sid) }},
		{"revocation", func(f *fixture, sid string) { f.revoke(`{"session_id":"`+sid+`"}`, f.bearer()...) }},
		{"Revoke", func(f *fixture, sid string) { f.Revoke(sid) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			claims, token := f.session("")
			_, other := f.session("")
			next := f.refresh(token).decode(t)["refresh_token"].(string)
			c.end(f, claims["sid"].(string))

			f.refresh(next).expectOAuth(t, 400, "invalid_grant")
			f.refresh(token).expectOAuth(t, 400, "invalid_grant") // inside the replay window
			f.refresh(other).expectStatus(t, 200)
			if slices.Contains(f.ActiveSessions(), claims["sid"].(string)) || len(f.ActiveSessions()) != 1 {
				t.Errorf("active are %v", f.ActiveSessions())
			}
		})
	}
}

func TestSessionsEndByThemselves(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*authkittest.Settings)
		pauses []time.Duration // between refreshes, of which the last is refused
	}{
		{"lifetime", func(s *authkittest.Settings) { s.SessionLifetime = time.Hour }, []time.Duration{30 * time.Minute, 29 * time.Minute, time.Minute}},
		{"inactivity", func(s *authkittest.Settings) { s.InactivityTimeout = time.Hour }, []time.Duration{59 * time.Minute, 59 * time.Minute, time.Hour}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.Configure(c.set)
				_, token := f.session("")
				for i, pause := range c.pauses {
					time.Sleep(pause)
					r := f.refresh(token)
					if i == len(c.pauses)-1 {
						r.expectOAuth(t, 400, "invalid_grant")
						break
					}
					token = r.expectStatus(t, 200).decode(t)["refresh_token"].(string)
				}
				if n := len(f.ActiveSessions()); n != 0 {
					t.Errorf("%d sessions are active", n)
				}
			})
		})
	}
}

func TestSessionsLastByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		_, token := f.session("")
		time.Sleep(1000 * 24 * time.Hour)
		f.refresh(token).expectStatus(t, 200)
	})
}

func TestLogout(t *testing.T) {
	f := newFixture(t)
	f.Configure(func(s *authkittest.Settings) {
		s.LogoutRedirectURIs = []string{"https://prod.example.com/bye", "https://prod.example.com/"}
	})
	logout := "/user_management/sessions/logout"
	for _, c := range []struct{ query, location string }{
		{"?session_id=unknown", "https://prod.example.com/bye"},
		{"?session_id=unknown&return_to=https://prod.example.com/", "https://prod.example.com/"},
		{"?session_id=unknown&return_to=" + authkittest.AppURL + "/", authkittest.AppURL + "/"},
		{"?session_id=unknown&return_to=http://localhost:3000/x", "http://localhost:3000/x"},
	} {
		r := f.get(logout+c.query).expectStatus(t, 302)
		if got := r.Header.Get("Location"); got != c.location {
			t.Errorf("%s: Location is %s, want %s", c.query, got, c.location)
		}
	}

	claims, token := f.session("")
	sid := claims["sid"].(string)
	f.get(logout+"?session_id="+sid+"&return_to=https://evil.test/").expectPlain(t, 400, "invalid_redirect_uri")
	f.get(logout).expectPlain(t, 422, "invalid_request")
	f.refresh(token).expectStatus(t, 200) // neither ended it
}

func TestLogoutWithoutADestination(t *testing.T) {
	f := newFixture(t)
	r := f.get("/user_management/sessions/logout?session_id=x").expectStatus(t, 200)
	if !strings.Contains(string(r.body), "<h1>You are signed out</h1>") {
		t.Errorf("got %s", r.body)
	}
}

func TestRevoke(t *testing.T) {
	f := newFixture(t)
	claims, _ := f.session("")
	body := `{"session_id":"` + claims["sid"].(string) + `"}`
	f.revoke(body).expectPlain(t, 401, "unauthorized")
	f.revoke(body, "Authorization", "Bearer sk_wrong").expectPlain(t, 401, "unauthorized")
	f.revoke(`{}`, f.bearer()...).expectPlain(t, 400, "invalid_request")
	f.revoke(`{`, f.bearer()...).expectPlain(t, 400, "invalid_request_body")
	if r := f.revoke(body, f.bearer()...).expectStatus(t, 200); r.decode(t)["success"] != true {
		t.Errorf("got %s", r.body)
	}
	f.revoke(body, f.bearer()...).expectPlain(t, 404, "not_found")
	if f.Revoke(claims["sid"].(string)) || f.Revoke("session_unknown") {
		t.Error("Revoke ends what is over")
	}
}

func TestUser(t *testing.T) {
	f := newFixture(t)
	f.get("/user_management/users/"+f.ada.ID).expectPlain(t, 401, "unauthorized")
	f.get("/user_management/users/user_x", f.bearer()...).expectPlain(t, 404, "not_found")
	user := f.get("/user_management/users/"+f.ada.ID, f.bearer()...).expectStatus(t, 200).decode(t)
	if user["object"] != "user" || user["email"] != "ada@example.test" || user["last_sign_in_at"] != nil {
		t.Errorf("got %v", user)
	}
}

func TestUserKeepsItsID(t *testing.T) {
	f := newFixture(t)
	if again := f.AddUser(authkittest.User{Email: "ADA@example.test"}); again.ID != f.ada.ID || !again.CreatedAt.Equal(f.ada.CreatedAt) {
		t.Errorf("got %+v, want the id %s", again, f.ada.ID)
	}
	f.UpdateUser(authkittest.User{ID: f.ada.ID, Email: "augusta@example.test"})
	if _, err := f.NewSession("ada@example.test", ""); err == nil {
		t.Error("the old address signs in")
	}
	if _, err := f.NewSession("augusta@example.test", ""); err != nil {
		t.Error(err)
	}
}

func TestNewSession(t *testing.T) {
	f := newFixture(t)
	auth, err := f.NewSession(f.ada.Email, "")
	if err != nil || auth.User.ID != f.ada.ID || auth.OrganizationID != "" || auth.AuthenticationMethod != "Password" {
		t.Errorf("got %+v, %v", auth, err)
	}
	orchard, _ := f.twoOrganizations()
	auth, err = f.NewSession(f.ada.Email, "")
	if err != nil || auth.OrganizationID != orchard.ID {
		t.Errorf("got %+v, %v", auth, err)
	}
	if _, err := f.NewSession("nobody@example.test", ""); err == nil {
		t.Error("nobody signs in")
	}
	if _, err := f.NewSession(f.ada.Email, "org_other"); err == nil {
		t.Error("she is in any organization")
	}
}

func TestUserSessions(t *testing.T) {
	f := newFixture(t)
	path := "/user_management/users/" + f.ada.ID + "/sessions"
	f.get(path).expectPlain(t, 401, "unauthorized")
	f.get("/user_management/users/user_x/sessions", f.bearer()...).expectPlain(t, 404, "not_found")
	if empty := f.get(path, f.bearer()...).expectStatus(t, 200); !strings.Contains(string(empty.body), `"data":[],"list_metadata":{"before":null,"after":null}`) {
		t.Errorf("got %s", empty.body)
	}

	f.exchange(f.code(), "ip_address", "203.0.113.7", "user_agent", "Firefox").expectStatus(t, 200)
	page := f.get(path, f.bearer()...).decode(t)
	s := page["data"].([]any)[0].(map[string]any)
	for name, want := range map[string]any{
		"object": "session", "id": f.ActiveSessions()[0], "user_id": f.ada.ID, "organization_id": nil, "ip_address": "203.0.113.7",
		"user_agent": "Firefox", "auth_method": "password", "status": "active", "ended_at": nil,
	} {
		if got, ok := s[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"expires_at", "created_at", "updated_at"} {
		if _, err := time.Parse(time.RFC3339, s[name].(string)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	f.Revoke(f.ActiveSessions()[0])
	if page := f.get(path, f.bearer()...).decode(t); len(page["data"].([]any)) != 0 {
		t.Errorf("what is over is listed: %v", page)
	}
}

func TestSessionTellsHowItBegan(t *testing.T) {
	for _, c := range []struct {
		begin func(f *fixture)
		want  string
	}{
		{func(f *fixture) { f.exchange(f.code()) }, "password"},
		{func(f *fixture) { f.exchange(f.code("provider", "GitHubOAuth")) }, "oauth"},
		{func(f *fixture) {
			f.Impersonate(f.ada.Email, "support@example.test", "ticket 42")
			f.exchange(f.code())
		}, "impersonation"},
		{func(f *fixture) {
			o := f.AddOrganization(authkittest.Organization{Name: "Orchard", RequireSSO: true})
			f.AddMembership(authkittest.Membership{UserID: f.ada.ID, OrganizationID: o.ID})
			f.exchange(f.code())
		}, "sso"},
	} {
		f := newFixture(t)
		c.begin(f)
		page := f.get("/user_management/users/"+f.ada.ID+"/sessions", f.bearer()...).expectStatus(t, 200).decode(t)
		if got := page["data"].([]any)[0].(map[string]any)["auth_method"]; got != c.want {
			t.Errorf("auth_method is %v, want %s", got, c.want)
		}
	}
}

func TestUserSessionsPages(t *testing.T) {
	f := newFixture(t)
	for range 12 {
		f.session("")
	}
	oldestFirst := f.ActiveSessions()
	newestFirst := slices.Clone(oldestFirst)
	slices.Reverse(newestFirst)

	for _, c := range []struct {
		query         string
		want          []string
		before, after any
	}{
		{"", newestFirst[:10], nil, newestFirst[9]},
		{"?limit=100", newestFirst, nil, nil},
		{"?limit=100&order=asc", oldestFirst, nil, nil},
		{"?limit=5&order=asc", oldestFirst[:5], nil, oldestFirst[4]},
		{"?limit=5&after=" + newestFirst[4], newestFirst[5:10], newestFirst[5], newestFirst[9]},
		{"?limit=5&after=" + newestFirst[9], newestFirst[10:], newestFirst[10], nil},
		{"?limit=5&before=" + newestFirst[5], newestFirst[:5], nil, newestFirst[4]},
		{"?limit=5&before=" + newestFirst[8], newestFirst[3:8], newestFirst[3], newestFirst[7]},
		{"?after=" + newestFirst[11], nil, nil, nil},
	} {
		page := f.get("/user_management/users/"+f.ada.ID+"/sessions"+c.query, f.bearer()...).expectStatus(t, 200).decode(t)
		var ids []string
		for _, s := range page["data"].([]any) {
			ids = append(ids, s.(map[string]any)["id"].(string))
		}
		if !slices.Equal(ids, c.want) {
			t.Errorf("%s: got %v, want %v", c.query, ids, c.want)
		}
		if m := page["list_metadata"].(map[string]any); m["before"] != c.before || m["after"] != c.after {
			t.Errorf("%s: list_metadata is %v", c.query, m)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=101", "?limit=x", "?order=up"} {
		f.get("/user_management/users/"+f.ada.ID+"/sessions"+query, f.bearer()...).expectPlain(t, 422, "invalid_request_parameters")
	}
}
