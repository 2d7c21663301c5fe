package authkittest_test

import (
	"bytes"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

func TestExchange(t *testing.T) {
	f := newFixture(t)
	f.UpdateUser(authkittest.User{
		ID: f.ada.ID, Email: "ada@example.test", EmailVerified: true, FirstName: "Ada", Metadata: map[string]string{"tier": "1"},
	})
	r := f.exchange(f.code("code_challenge", challenge, "code_challenge_method", "S256"), "code_verifier", verifier).expectStatus(t, 200)
	body := r.decode(t)

	user := body["user"].(map[string]any)
	for name, want := range map[string]any{
		"object": "user", "id": f.ada.ID, "email": "ada@example.test", "email_verified": true, "first_name": "Ada",
		"last_name": nil, "name": nil, "profile_picture_url": nil, "external_id": nil, "locale": nil,
	} {
		if got, ok := user[name]; !ok || got != want {
			t.Errorf("user.%s is %v, want %v", name, got, want)
		}
	}
	if metadata := user["metadata"].(map[string]any); metadata["tier"] != "1" {
		t.Errorf("user.metadata is %v", metadata)
	}
	for _, name := range []string{"created_at", "updated_at", "last_sign_in_at"} {
		if _, err := time.Parse("2006-01-02T15:04:05.000Z", user[name].(string)); err != nil {
			t.Errorf("user.%s: %v", name, err)
		}
	}

	if body["authentication_method"] != "Password" || body["refresh_token"] == "" {
		t.Errorf("got %s", r.body)
	}
	for _, name := range []string{"expires_in", "organization_id", "impersonator", "sealed_session", "token_type"} {
		if _, ok := body[name]; ok {
			t.Errorf("the reply holds %s", name)
		}
	}
	f.verify(body["access_token"].(string))
}

func TestTokenRequestErrors(t *testing.T) {
	f := newFixture(t)
	oauth := func(code string) func(response, *testing.T) {
		return func(r response, t *testing.T) { r.expectOAuth(t, 400, code) }
	}
	plain := func(status int, code string) func(response, *testing.T) {
		return func(r response, t *testing.T) { r.expectPlain(t, status, code) }
	}
	refresh := []string{"grant_type", "refresh_token", "refresh_token", "ref_unknown"}
	for _, c := range []struct {
		name  string
		pairs []string
		want  func(response, *testing.T)
	}{
		{"no grant", nil, oauth("invalid_request")},
		{"an unknown grant", []string{"grant_type", "zzz"}, oauth("invalid_request")},
		{"no client_id", append(refresh, "client_id", ""), oauth("invalid_request")},
		{"an unknown client_id", append(refresh, "client_id", "client_other"), oauth("invalid_client")},
		{"a wrong secret", append(refresh, "client_secret", "sk_wrong"), plain(401, "unauthorized")},
		{"no code", []string{"grant_type", "authorization_code"}, oauth("invalid_request")},
		{"an unknown code", []string{"grant_type", "authorization_code", "code", "nope"}, oauth("invalid_grant")},
		{"no refresh token", []string{"grant_type", "refresh_token"}, oauth("invalid_request")},
		{"an unknown refresh token", refresh, oauth("invalid_grant")},
		{"an unknown pending authentication", []string{
			"grant_type", "urn:workos:oauth:grant-type:organization-selection", "pending_authentication_token", "x",
		}, plain(400, "invalid_pending_authentication_token")},
	} {
		t.Run(c.name, func(t *testing.T) { c.want(f.token(c.pairs...), t) })
	}
}

func TestTokenRequestBodies(t *testing.T) {
	f := newFixture(t)
	post := func(body, contentType string, header ...string) response {
		header = append(header, "Content-Type", contentType)
		return f.do(f.request("POST", "/user_management/authenticate", strings.NewReader(body), header...))
	}
	for _, malformed := range []string{"", "{", "null x", "[]", `"x"`} {
		post(malformed, "application/json").expectPlain(t, 400, "invalid_request_body")
	}
	invalid := post(`{"grant_type":"refresh_token","client_id":1}`, "application/json").expectPlain(t, 422, "invalid_request_parameters")
	if field := invalid["errors"].([]any)[0].(map[string]any); field["field"] != "client_id" || field["code"] == "" || field["message"] == "" {
		t.Errorf("the errors are %v", invalid["errors"])
	}

	form := url.Values{
		"grant_type": {"authorization_code"}, "client_id": {f.clientID}, "client_secret": {f.apiKey}, "code": {f.code()},
	}
	post(form.Encode(), "application/x-www-form-urlencoded; charset=utf-8").expectStatus(t, 200)
}

func TestSecrets(t *testing.T) {
	f := newFixture(t)
	pkce := []string{"code_challenge", challenge, "code_challenge_method", "S256"}

	// The header does not replace the body, and a wrong one counts.
	body := []byte(`{"grant_type":"authorization_code","client_id":"` + f.clientID + `","code":"` + f.code() + `"}`)
	f.do(f.request("POST", "/user_management/authenticate", bytes.NewReader(body), f.bearer()...)).expectOAuth(t, 400, "invalid_request")
	f.do(f.request("POST", "/user_management/authenticate", bytes.NewReader(body), "Authorization", "Bearer sk_wrong")).expectPlain(t, 401, "unauthorized")

	// A public client has PKCE instead, and stays public.
	public := f.exchange(f.code(pkce...), "code_verifier", verifier, "client_secret", "").expectStatus(t, 200).decode(t)
	f.refresh(public["refresh_token"].(string), "client_secret", "").expectStatus(t, 200)

	// A confidential one stays confidential.
	private := f.exchange(f.code(pkce...), "code_verifier", verifier).expectStatus(t, 200).decode(t)
	f.refresh(private["refresh_token"].(string), "client_secret", "").expectOAuth(t, 400, "invalid_request")
	f.refresh(private["refresh_token"].(string)).expectStatus(t, 200)
}

func TestPKCE(t *testing.T) {
	f := newFixture(t)
	code := f.code("code_challenge", challenge, "code_challenge_method", "S256")
	f.exchange(code).expectOAuth(t, 400, "invalid_request")
	f.exchange(code, "code_verifier", "wrong").expectOAuth(t, 400, "invalid_grant")
	f.exchange(code, "code_verifier", verifier).expectStatus(t, 200) // which did not use it up

	code = f.code()
	f.exchange(code, "code_verifier", verifier).expectPlain(t, 400, "code_challenge_not_found")
	f.exchange(code).expectStatus(t, 200)
}

func TestCodeWorksOnce(t *testing.T) {
	f := newFixture(t)
	code := f.code()
	f.exchange(code).expectStatus(t, 200)
	body := f.exchange(code).expectOAuth(t, 400, "invalid_grant")
	if want := "The code '" + code + "' has expired or is invalid."; body["error_description"] != want {
		t.Errorf("got %v, want %s", body, want)
	}
}

func TestCodeExpires(t *testing.T) {
	for _, c := range []struct {
		age    time.Duration
		status int
	}{{10 * time.Minute, 200}, {10*time.Minute + time.Second, 400}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			code := f.code()
			time.Sleep(c.age)
			f.exchange(code).expectStatus(t, c.status)
		})
	}
}

func TestRefreshRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		was, token := f.session("")
		time.Sleep(time.Hour)
		f.UpdateUser(authkittest.User{ID: f.ada.ID, Email: f.ada.Email, FirstName: "Augusta"})
		body := f.refresh(token).expectStatus(t, 200).decode(t)

		is := f.verify(body["access_token"].(string))
		if is["sid"] != was["sid"] || is["auth_time"] != was["auth_time"] || is["sub"] != was["sub"] {
			t.Errorf("the claims were %v and are %v", was, is)
		}
		if is["jti"] == was["jti"] || is["iat"] != float64(time.Now().Unix()) || is["exp"] != float64(time.Now().Unix()+300) {
			t.Errorf("the claims were %v and are %v", was, is)
		}
		if body["refresh_token"] == token {
			t.Error("the refresh token stays")
		}
		if user := body["user"].(map[string]any); user["first_name"] != "Augusta" {
			t.Errorf("the user is %v", user)
		}
		f.refresh(body["refresh_token"].(string)).expectStatus(t, 200)
	})
}

func TestReplayWindow(t *testing.T) {
	for _, c := range []struct {
		name   string
		window time.Duration
		age    time.Duration
		same   bool
	}{
		{"at once", 30 * time.Second, 0, true},
		{"after 29 seconds", 30 * time.Second, 29 * time.Second, true},
		{"after 31 seconds", 30 * time.Second, 31 * time.Second, false},
		{"in a wider window", time.Minute, 59 * time.Second, true},
		{"without a window", 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.Configure(func(s *authkittest.Settings) { s.ReplayWindow = c.window })
				_, token := f.session("")
				first := f.refresh(token).expectStatus(t, 200)
				time.Sleep(c.age)

				again := f.refresh(token)
				if c.same && !bytes.Equal(first.body, again.body) {
					t.Errorf("got\n%s, want\n%s", again.body, first.body)
				}
				if !c.same {
					again.expectOAuth(t, 400, "invalid_grant")
				}
				// Either way the new pair is good.
				f.refresh(first.decode(t)["refresh_token"].(string)).expectStatus(t, 200)
			})
		})
	}
}

func TestReplayAfterAnotherRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		_, token := f.session("")
		first := f.refresh(token)
		time.Sleep(20 * time.Second)
		f.refresh(first.decode(t)["refresh_token"].(string)).expectStatus(t, 200)
		if again := f.refresh(token); !bytes.Equal(first.body, again.body) {
			t.Errorf("got %s", again.body)
		}
		time.Sleep(20 * time.Second)
		f.refresh(token).expectOAuth(t, 400, "invalid_grant")
	})
}

func TestConcurrentRefreshesGetTheSamePair(t *testing.T) {
	f := newFixture(t)
	_, token := f.session("")
	var mu sync.Mutex
	replies := map[string]bool{}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			r := f.refresh(token)
			mu.Lock()
			defer mu.Unlock()
			replies[string(r.body)] = true
		})
	}
	all.Wait()
	if len(replies) != 1 {
		t.Errorf("got %d different replies", len(replies))
	}
}

func TestReplayForAnotherOrganizationIsRefused(t *testing.T) {
	f := newFixture(t)
	orchard, quarry := f.twoOrganizations()
	_, token := f.session(orchard.ID)
	f.refresh(token, "organization_id", orchard.ID).expectStatus(t, 200)
	f.refresh(token, "organization_id", quarry.ID).expectOAuth(t, 400, "invalid_grant")
}

func TestSwitchOrganization(t *testing.T) {
	f := newFixture(t)
	orchard, quarry := f.twoOrganizations()
	stranger := f.AddOrganization(authkittest.Organization{Name: "Stranger"})
	was, token := f.session(orchard.ID)

	f.refresh(token, "organization_id", "org_nowhere").expectOAuth(t, 400, "organization_not_found")
	f.refresh(token, "organization_id", stranger.ID).expectOAuth(t, 400, "organization_membership_not_found")

	// Neither used the token up.
	body := f.refresh(token, "organization_id", quarry.ID).expectStatus(t, 200).decode(t)
	is := f.verify(body["access_token"].(string))
	if is["org_id"] != quarry.ID || is["role"] != "member" || body["organization_id"] != quarry.ID || is["sid"] != was["sid"] {
		t.Errorf("the claims are %v", is)
	}

	// Who does not name the organization is back in that of the sign-in.
	body = f.refresh(body["refresh_token"].(string)).decode(t)
	if is := f.verify(body["access_token"].(string)); is["org_id"] != orchard.ID {
		t.Errorf("the claims are %v", is)
	}
}

func TestRemovedMember(t *testing.T) {
	f := newFixture(t)
	orchard, _ := f.twoOrganizations()
	_, token := f.session(orchard.ID)
	f.RemoveMembership(f.ada.ID, orchard.ID)
	f.refresh(token, "organization_id", orchard.ID).expectOAuth(t, 400, "organization_membership_not_found")
	f.AddMembership(authkittest.Membership{UserID: f.ada.ID, OrganizationID: orchard.ID, Role: "owner", Roles: []string{"owner", "billing"}})
	is := f.verify(f.refresh(token, "organization_id", orchard.ID).decode(t)["access_token"].(string))
	if is["role"] != "owner" || len(is["roles"].([]any)) != 2 {
		t.Errorf("the claims are %v", is)
	}
}

func TestDemandsOfAnOrganization(t *testing.T) {
	for _, c := range []struct {
		name   string
		demand func(*authkittest.Organization)
		code   string
	}{
		{"SSO", func(o *authkittest.Organization) { o.RequireSSO = true }, "sso_required"},
		{"MFA", func(o *authkittest.Organization) { o.RequireMFA = true }, "mfa_enrollment"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			orchard, quarry := f.twoOrganizations()
			_, token := f.session(orchard.ID)
			c.demand(&quarry)
			f.AddOrganization(quarry)

			body := f.refresh(token, "organization_id", quarry.ID).expectOAuth(t, 400, c.code)
			if body["email"] != f.ada.Email || !strings.HasPrefix(body["pending_authentication_token"].(string), "pending_") {
				t.Errorf("got %v", body)
			}
			if _, ok := body["connection_ids"]; ok != (c.code == "sso_required") {
				t.Errorf("got %v", body)
			}

			// Signing in to it meets the demand, and the refresh token is good for
			// where it came from.
			_, met := f.session(quarry.ID)
			f.refresh(met, "organization_id", quarry.ID).expectStatus(t, 200)
			f.refresh(token, "organization_id", orchard.ID).expectStatus(t, 200)

			// A demand that comes later ends the session at its next refresh.
			c.demand(&orchard)
			f.AddOrganization(orchard)
			_, late := f.session(quarry.ID)
			f.refresh(late, "organization_id", orchard.ID).expectOAuth(t, 400, c.code)
		})
	}
}

func TestOrganizationSelection(t *testing.T) {
	f := newFixture(t)
	orchard, quarry := f.twoOrganizations()
	body := f.exchange(f.code("provider", "GoogleOAuth")).expectPlain(t, 403, "organization_selection_required")
	pending := body["pending_authentication_token"].(string)
	organizations := body["organizations"].([]any)
	if len(organizations) != 2 || organizations[0].(map[string]any)["id"] != orchard.ID || organizations[1].(map[string]any)["name"] != "Quarry Inc" {
		t.Errorf("the organizations are %v", organizations)
	}
	if user := body["user"].(map[string]any); user["id"] != f.ada.ID {
		t.Errorf("the user is %v", user)
	}

	choose := func(organizationID string) response {
		return f.token("grant_type", "urn:workos:oauth:grant-type:organization-selection",
			"pending_authentication_token", pending, "organization_id", organizationID)
	}
	choose("org_nowhere").expectOAuth(t, 400, "organization_not_found")
	done := choose(quarry.ID).expectStatus(t, 200).decode(t)
	if done["organization_id"] != quarry.ID || done["authentication_method"] != "GoogleOAuth" {
		t.Errorf("got %v", done)
	}
	choose(quarry.ID).expectPlain(t, 400, "invalid_pending_authentication_token")
}

func TestImpersonate(t *testing.T) {
	f := newFixture(t)
	f.Impersonate("Ada@example.test", "support@example.test", "")
	auth := f.exchange(f.code()).decode(t)
	by := auth["impersonator"].(map[string]any)
	if reason, ok := by["reason"]; by["email"] != "support@example.test" || !ok || reason != nil || auth["authentication_method"] != "Impersonation" {
		t.Errorf("got %v", auth)
	}
	act := f.verify(auth["access_token"].(string))["act"].(map[string]any)
	if len(act) != 1 || act["sub"] != "support@example.test" {
		t.Errorf("act is %v", act)
	}

	// It lasts for the session, and for no other.
	if again := f.refresh(auth["refresh_token"].(string)).decode(t); again["impersonator"] == nil {
		t.Errorf("got %v", again)
	}
	if other := f.exchange(f.code()).decode(t); other["impersonator"] != nil {
		t.Errorf("got %v", other)
	}
}

func TestChangeSessionID(t *testing.T) {
	f := newFixture(t)
	f.Configure(func(s *authkittest.Settings) { s.ChangeSessionID = true })
	was, token := f.session("")
	is := f.verify(f.refresh(token).decode(t)["access_token"].(string))
	if was["sid"] == is["sid"] || f.ActiveSessions()[0] != is["sid"] {
		t.Errorf("the claims were %v and are %v", was, is)
	}
	if !f.Revoke(was["sid"].(string)) || len(f.ActiveSessions()) != 0 {
		t.Error("the first id does not name the session")
	}
}
