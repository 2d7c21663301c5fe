package authkit_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/authkit-go/authkit/authkittest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares what a test got with testdata/name, in which what differs from
// run to run is replaced by its name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run go test -update and look at the difference.\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

var varying = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`([?&]state=)[\w-]{43}`), "${1}STATE"},
	{regexp.MustCompile(`([?&]code_challenge=)[\w-]{43}`), "${1}CHALLENGE"},
	{regexp.MustCompile(`([?&]session_id=)session_\w+`), "${1}SESSION"},
	{regexp.MustCompile(`([?&]client_id=)client_\w+`), "${1}CLIENT"},
	{regexp.MustCompile(`(wos-auth-verifier-)[0-9a-f]{16}`), "${1}HASH"},
	{regexp.MustCompile(`(Set-Cookie: [^=]+=)[^;]+`), "${1}SEALED"},
}

// headers shows a response as far as the kit decides it.
func headers(what string, p page) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n%d\n", what, p.StatusCode)
	for _, name := range []string{"Location", "Set-Cookie", "Cache-Control", "Vary", "CDN-Cache-Control", "Expires", "Retry-After"} {
		for _, value := range p.Header.Values(name) {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	text := b.String()
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.name)
	}
	return text + "\n"
}

// Every redirect and every Set-Cookie of the kit.
func TestGoldenRedirectsAndCookies(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		var got strings.Builder
		show := func(what string, p page) page {
			got.WriteString(headers(what, p))
			return p
		}
		b := a.visitor()
		stay := b.stay()
		show("an anonymous page", stay.get("/dashboard?tab=1"))
		show("an anonymous form", stay.send("POST", "/dashboard", ""))
		login := show("login", stay.get("/login?return_to=%2Fdashboard%3Ftab%3D1"))
		show("sign-up", a.visitor().stay().get("/signup"))
		show("callback", stay.get(a.authorize(location(t, login))))
		show("callback again", stay.get("/callback?code=x&state=y"))
		show("callback of another browser", a.visitor().stay().get("/callback?code=x&state=y"))
		show("callback without state", a.visitor().stay().get("/callback?code=x"))
		show("callback with an error", a.visitor().stay().get("/callback?error=access_denied"))
		show("a signed-in page", stay.get("/dashboard"))
		expire()
		show("a refreshed page", stay.get("/dashboard"))
		expire()
		a.workos.Fail(authkittest.Authenticate, 2, authkittest.Fault{Status: 503})
		show("WorkOS down", stay.get("/dashboard"))
		show("logout", stay.send("POST", "/logout", ""))
		show("logout without a session", stay.send("POST", "/logout", ""))

		b = a.signIn()
		a.workos.Revoke(b.get("/dashboard").session().ID)
		expire()
		show("a session that WorkOS has ended", b.stay().get("/dashboard"))
		golden(t, "responses.golden", got.String())
	})
}
