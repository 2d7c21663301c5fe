package authkittest_test

import (
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

func TestSignInPage(t *testing.T) {
	f := newFixture(t)
	f.AddUser(authkittest.User{Email: `"><script>alert(1)</script>`, FirstName: "<b>Mallory"})
	page := f.get(f.authorizePath("login_hint", "ada@example.test"), "Accept", "text/html").expectStatus(t, 200)
	body := string(page.body)

	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Cache-Control":           "no-store",
		"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
	} {
		if got := page.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, want := range []string{
		"<b>authkittest</b> standing in for WorkOS", // whose page it is
		"app.test",                   // where it leads
		`href="data:image/svg+xml,`,  // no request for an icon
		"prefers-color-scheme: dark", // by day and by night
		`name="viewport"`,            // on a phone
		`value="ada@example.test"`,   // login_hint
		"Ada Park",                   // whom to sign in as
		`value="deny"`, `value="sign-up"`, `value="impersonate"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	// The seeded script is text; there is no other, and nothing from elsewhere.
	if found := regexp.MustCompile(`(?i)<script|\son\w+=|javascript:|<b>Mallory|(src|href)="(?:[^d]|d[^a])`).FindString(body); found != "" {
		t.Errorf("the page holds %q", found)
	}
}

func TestSignUpHintShowsSignUpFirst(t *testing.T) {
	f := newFixture(t)
	body := string(f.get(f.authorizePath("screen_hint", "sign-up"), "Accept", "text/html").body)
	if !strings.Contains(body, "<h1>Create an account</h1>") || strings.Index(body, `id="sign-up"`) > strings.Index(body, `id="sign-in"`) {
		t.Errorf("the page is %s", body)
	}
}

func TestSignUp(t *testing.T) {
	f := newFixture(t)
	page := f.openPage("screen_hint", "sign-up")
	code := f.submit(page, "sign-up", "email", "new@example.test", "first_name", "Nell", "last_name", "Wu").expectCode(t)
	user := f.exchange(code).decode(t)["user"].(map[string]any)
	if user["email"] != "new@example.test" || user["first_name"] != "Nell" || user["last_name"] != "Wu" || user["email_verified"] != true {
		t.Errorf("the user is %v", user)
	}
	// Whoever is there already cannot be created.
	f.submit(f.openPage(), "sign-up", "email", "NEW@example.test").expectProblem(t, "already")
	f.submit(f.openPage(), "sign-up", "email", "nothing").expectProblem(t, "not an e-mail address")
}

func (r response) expectProblem(t *testing.T, text string) {
	t.Helper()
	r.expectStatus(t, 422)
	if problem := regexp.MustCompile(`class="problem"[^>]*>([^<]*)<`).FindSubmatch(r.body); problem == nil || !strings.Contains(string(problem[1]), text) {
		t.Errorf("the problem is %q, want %q", problem, text)
	}
}

func TestUnknownAddressMayTryAgain(t *testing.T) {
	f := newFixture(t)
	page := f.openPage()
	f.submit(page, "sign-in", "email", "nobody@example.test").expectProblem(t, "nobody@example.test")
	f.submit(page, "sign-in", "email", " ADA@example.test ").expectCode(t)
}

func TestDeny(t *testing.T) {
	f := newFixture(t)
	q := f.submit(f.openPage(), "deny").location(t).Query()
	if q.Get("error") != "access_denied" || q.Get("error_description") == "" || q.Get("state") != "s1" {
		t.Errorf("the query is %v", q)
	}
}

func TestPageWorksOnce(t *testing.T) {
	for _, action := range []string{"sign-in", "deny"} {
		f := newFixture(t)
		page := f.openPage()
		f.submit(page, action, "email", f.ada.Email).expectStatus(t, 302)
		f.submit(page, action, "email", f.ada.Email).expectStatus(t, 400)
	}
	f := newFixture(t)
	f.submit("guessed", "sign-in", "email", f.ada.Email).expectStatus(t, 400)
	f.submit(f.openPage(), "dance").expectStatus(t, 400)
}

func TestPageGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		page := f.openPage()
		time.Sleep(time.Hour + time.Second)
		f.submit(page, "sign-in", "email", f.ada.Email).expectStatus(t, 400)
	})
}

func TestFormCannotRedirectElsewhere(t *testing.T) {
	f := newFixture(t)
	u := f.submit(f.openPage(), "sign-in", "email", f.ada.Email, "redirect_uri", "https://evil.test/", "state", "x").location(t)
	if u.Host != "app.test" || u.Query().Get("state") != "s1" {
		t.Errorf("Location is %s", u)
	}
}

func TestOrganizationIsChosenOnThePage(t *testing.T) {
	f := newFixture(t)
	f.keepCookies()
	orchard, quarry := f.twoOrganizations()
	page := f.openPage()
	choice := f.submit(page, "sign-in", "email", f.ada.Email).expectStatus(t, 200)
	for _, want := range []string{"Orchard Ltd", "Quarry Inc", orchard.ID, quarry.ID, "Choose an organization"} {
		if !strings.Contains(string(choice.body), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if choice.Header.Get("Set-Cookie") != "" {
		t.Error("the browser is signed in before it is done")
	}
	f.submit(page, "organization", "organization_id", "org_other").expectProblem(t, "organization of yours")

	code := f.submit(page, "organization", "organization_id", quarry.ID).expectCode(t)
	if got := f.exchange(code).decode(t)["organization_id"]; got != quarry.ID {
		t.Errorf("the organization is %v", got)
	}

	// This browser is not asked again.
	code = f.get(f.authorizePath()).expectCode(t)
	if got := f.exchange(code).decode(t)["organization_id"]; got != quarry.ID {
		t.Errorf("the organization is %v", got)
	}
}

func TestOrganizationNeedsASignIn(t *testing.T) {
	f := newFixture(t)
	orchard, _ := f.twoOrganizations()
	f.submit(f.openPage(), "organization", "organization_id", orchard.ID).expectProblem(t, "Sign in first")
}

func TestSomebodyElseMaySignInInstead(t *testing.T) {
	f := newFixture(t)
	f.twoOrganizations()
	f.AddUser(authkittest.User{Email: "bo@example.test"})
	page := f.openPage()
	f.submit(page, "sign-in", "email", f.ada.Email).expectStatus(t, 200)
	user := f.exchange(f.submit(page, "sign-in", "email", "bo@example.test").expectCode(t)).decode(t)["user"].(map[string]any)
	if user["email"] != "bo@example.test" {
		t.Errorf("the user is %v", user)
	}
}

func TestOrganizationOfTheRequest(t *testing.T) {
	f := newFixture(t)
	_, quarry := f.twoOrganizations()
	if got := f.exchange(f.code("organization_id", quarry.ID)).decode(t)["organization_id"]; got != quarry.ID {
		t.Errorf("the organization is %v", got)
	}

	f.AddUser(authkittest.User{Email: "bo@example.test"})
	f.submit(f.openPage("organization_id", quarry.ID), "sign-in", "email", "bo@example.test").expectProblem(t, "not a member of Quarry Inc")
}

func TestOnlyOrganizationIsNotAskedFor(t *testing.T) {
	f := newFixture(t)
	orchard, quarry := f.twoOrganizations()
	f.RemoveMembership(f.ada.ID, quarry.ID)
	if got := f.exchange(f.code()).decode(t)["organization_id"]; got != orchard.ID {
		t.Errorf("the organization is %v", got)
	}
}

func TestImpersonationOnThePage(t *testing.T) {
	f := newFixture(t)
	f.keepCookies()
	f.submit(f.openPage(), "impersonate", "email", "nobody@example.test", "by", "support@example.test").expectProblem(t, "Nobody")
	f.submit(f.openPage(), "impersonate", "email", f.ada.Email).expectProblem(t, "support address")

	r := f.submit(f.openPage(), "impersonate", "email", f.ada.Email, "by", "support@example.test", "reason", "ticket 42")
	if r.Header.Get("Set-Cookie") != "" {
		t.Error("support's browser is signed in as Ada from now on")
	}
	auth := f.exchange(r.expectCode(t)).decode(t)
	by := auth["impersonator"].(map[string]any)
	if by["email"] != "support@example.test" || by["reason"] != "ticket 42" || auth["authentication_method"] != "Impersonation" {
		t.Errorf("got %v", auth)
	}
}
