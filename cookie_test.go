package authkit_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

const next = "Zn4kPwq8vRt2LmXc6YbHs1Jd9Gf3Te7u" // a password to rotate to

// permissions returns n of them, as applications name them.
func permissions(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s%d:%s", []string{"reports", "billing", "members", "projects", "invoices"}[i%5], i/5, []string{"read", "write", "delete", "export"}[i%4]))
	}
	return all
}

// unlike returns n permissions that hardly compress.
func unlike(n int) []string {
	var all []string
	for i := range n {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		all = append(all, fmt.Sprintf("%x:%x", sum[:4], sum[4:6]))
	}
	return all
}

// signInWith signs in someone who has those permissions and every field of a
// user.
func signInWith(t *testing.T, a *application, permissions []string) *browser {
	t.Helper()
	a.workos.AddUser(authkittest.User{
		ID: "user_01M7YPADT133GBAHPVH6H231Y4", Email: "full@example.test", EmailVerified: true,
		FirstName: "Augusta Ada", LastName: "King-Noel", Name: "Augusta Ada King-Noel",
		ProfilePictureURL: "https://workoscdn.com/images/v1/5YbGkPz3yXq1RNjIV0dC8l2f", ExternalID: "cust_48151623",
		Locale: "en-GB", Metadata: map[string]string{"plan": "enterprise", "seat": "42"},
	})
	a.workos.AddMembership(authkittest.Membership{
		UserID: "user_01M7YPADT133GBAHPVH6H231Y4", OrganizationID: "org_01ORCHARD", Role: "admin", Permissions: permissions,
	})
	client, err := a.workos.SignIn(a, "/login?return_to=/public", "full@example.test")
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, client}
}

// sizes returns the length of each Set-Cookie line of the session.
func sizes(p page) (lines []int) {
	for _, line := range p.Header["Set-Cookie"] {
		if strings.HasPrefix(line, "wos-session") {
			lines = append(lines, len(line))
		}
	}
	return lines
}

func TestCookieSizes(t *testing.T) {
	for _, c := range []struct {
		permissions     []string
		cookies, atMost int
	}{
		{permissions(12), 1, 1600}, {permissions(60), 1, 2500}, {unlike(400), 2, 4096},
	} {
		bubble(t, func(t *testing.T, a *application) {
			b := signInWith(t, a, c.permissions)
			expire()
			p := b.get("/dashboard")
			s := p.session()
			if s == nil || !slices.Equal(s.Permissions, c.permissions) {
				t.Fatalf("%s %.200s", p.Status, p.body)
			}
			got, n := sizes(p), len(c.permissions)
			t.Logf("%d permissions and the full user: Set-Cookie of %v bytes", n, got)
			if len(got) != c.cookies {
				t.Errorf("%d permissions: %d cookies, want %d", n, len(got), c.cookies)
			}
			if most := slices.Max(got); most > c.atMost {
				t.Errorf("%d permissions: %d bytes, want at most %d", n, most, c.atMost)
			}
			b.get("/dashboard").expect(t, 200)
			if a.refreshes() != 1 {
				t.Error("the cookie does not come back")
			}
		})
	}
}

func TestPartsThatAreNotNeededAreDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := signInWith(t, a, unlike(400))
		if len(b.cookies()) != 3 || b.cookies()["wos-session.1"] == "" {
			t.Fatalf("cookies %v", b.cookies())
		}
		a.workos.AddMembership(authkittest.Membership{UserID: "user_01M7YPADT133GBAHPVH6H231Y4", OrganizationID: "org_01ORCHARD"})
		expire()
		b.get("/dashboard").expect(t, 200)
		if len(b.cookies()) != 1 {
			t.Errorf("cookies left: %v", b.cookies())
		}

		// A part that a browser keeps all the same does no harm.
		b.setCookie("wos-session.1", "left over")
		b.get("/dashboard").expect(t, 200)
	})
}

func TestMixedPartsAreNoSession(t *testing.T) {
	a := newApplication(t)
	first, second := signInWith(t, a, unlike(400)), signInWith(t, a, unlike(400))
	first.setCookie("wos-session.1", second.cookies()["wos-session.1"])
	first.get("/dashboard", fetch...).expect(t, 401)

	third := signInWith(t, a, unlike(400))
	whole := third.cookies()
	third.setCookie("wos-session", "2."+whole["wos-session.1"])
	third.setCookie("wos-session.1", strings.TrimPrefix(whole["wos-session"], "2."))
	third.get("/dashboard", fetch...).expect(t, 401)
}

func TestSessionThatCannotFitFailsAtTheCallback(t *testing.T) {
	for promise, seed := range map[string]struct {
		user   authkittest.User
		grants []string
		names  string
	}{
		"permissions":        {names: "the claim permissions", grants: unlike(3000)},
		"metadata":           {names: "the user's metadata", user: authkittest.User{Metadata: map[string]string{"a": hard(9000), "b": hard(9001)}}},
		"a great deal of it": {names: "the user's metadata", user: authkittest.User{Metadata: map[string]string{"a": hard(40000), "b": hard(40001)}}},
	} {
		t.Run(promise, func(t *testing.T) {
			var got error
			a := newApplication(t, func(o *authkit.Options) {
				o.OnError = func(w http.ResponseWriter, _ *http.Request, err error) { got = err; w.WriteHeader(500) }
			})
			seed.user.ID, seed.user.Email = "user_01ADA", ada
			a.workos.UpdateUser(seed.user)
			a.workos.AddMembership(authkittest.Membership{UserID: "user_01ADA", OrganizationID: "org_01ORCHARD", Permissions: seed.grants})
			b := a.visitor()
			p := b.stay().get(a.authorize(begin(t, b, "/login")))
			p.expect(t, 500)
			if !errors.Is(got, authkit.ErrSessionTooLarge) || !strings.Contains(got.Error(), seed.names) {
				t.Errorf("error %v, want it to name %s", got, seed.names)
			}
			if len(b.cookies()) != 0 {
				t.Errorf("cookies left: %v", b.cookies())
			}
		})
	}
}

// hard returns n characters that hardly compress.
func hard(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		sum := sha256.Sum256([]byte{byte(n), byte(i), byte(i >> 8)})
		b.WriteString(base64.RawStdEncoding.EncodeToString(sum[:]))
	}
	return b.String()[:n]
}

// A session that outgrows its cookies at a refresh is served for as long as its
// token lives, and the old cookie stays: there is nothing better to bring.
func TestSessionThatOutgrowsItsCookiesIsServed(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		b := a.signIn()
		a.workos.UpdateUser(authkittest.User{ID: "user_01ADA", Email: ada, Metadata: map[string]string{"a": hard(9000), "b": hard(9001)}})
		expire()
		for range 3 {
			p := b.get("/dashboard")
			p.expectSession(t)
			if p.Header["Set-Cookie"] != nil {
				t.Errorf("sets %.80q", p.Header["Set-Cookie"])
			}
			time.Sleep(time.Minute)
		}
		if !a.log.has("session_too_large") || a.refreshes() != 1 {
			t.Errorf("%d refreshes; log %s", a.refreshes(), a.log)
		}
	})
}

func TestCookieAttributes(t *testing.T) {
	for _, c := range []struct {
		promise string
		change  func(*authkit.Options)
		want    string // after name and value
	}{
		{"the default", nil, "; Path=/; Max-Age=34560000; HttpOnly; Secure; SameSite=Lax"},
		{"a domain", func(o *authkit.Options) { o.CookieDomain = "app.test" }, "; Path=/; Domain=app.test; Max-Age=34560000; HttpOnly; Secure; SameSite=Lax"},
		{"a domain with a dot", func(o *authkit.Options) { o.CookieDomain = ".app.test" }, "; Path=/; Domain=app.test; Max-Age=34560000; HttpOnly; Secure; SameSite=Lax"},
		{"a shorter life", func(o *authkit.Options) { o.CookieMaxAge = time.Hour }, "; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		{"SameSite=None", func(o *authkit.Options) { o.CookieSameSite = http.SameSiteNoneMode }, "; Path=/; Max-Age=34560000; HttpOnly; Secure; SameSite=None"},
		{"http on this machine", func(o *authkit.Options) { o.RedirectURI = "http://localhost:3000/callback" }, "; Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax"},
		{"SameSite=None forces Secure", func(o *authkit.Options) {
			o.RedirectURI, o.CookieSameSite = "http://localhost:3000/callback", http.SameSiteNoneMode
		}, "; Path=/; Max-Age=34560000; HttpOnly; Secure; SameSite=None"},
	} {
		t.Run(c.promise, func(t *testing.T) {
			var change []func(*authkit.Options)
			if c.change != nil {
				change = append(change, c.change)
			}
			a := newApplication(t, change...)
			login := answer(a, request("GET", "/login", navigate...))
			r := request("GET", a.authorize(location(t, login)), navigate...)
			addCookies(r, login)
			p := answer(a, r)
			p.expect(t, 302)
			if got := attributes(p.setCookie("wos-session")); got != c.want {
				t.Errorf("attributes %q, want %q", got, c.want)
			}

			// What deletes a cookie has the same name, path and domain.
			gone := request("POST", "/logout")
			addCookies(gone, p)
			want := strings.Replace(c.want, "Max-Age=34560000", "Max-Age=0", 1)
			want = strings.Replace(want, "Max-Age=3600", "Max-Age=0", 1)
			if got := attributes(answer(a, gone).setCookie("wos-session")); got != want {
				t.Errorf("deletes with %q, want %q", got, want)
			}
		})
	}
}

func attributes(line string) string {
	_, attributes, _ := strings.Cut(line, ";")
	return ";" + attributes
}

func addCookies(r *http.Request, from page) {
	for _, c := range from.Cookies() {
		if c.MaxAge >= 0 {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
}

func TestHostPrefixNamesEveryCookie(t *testing.T) {
	a := newApplication(t, func(o *authkit.Options) { o.CookieName = "__Host-session" })
	login := answer(a, request("GET", "/login", navigate...))
	r := request("GET", a.authorize(location(t, login)), navigate...)
	addCookies(r, login)
	p := answer(a, r)
	p.expect(t, 302)
	for _, c := range append(login.Cookies(), p.Cookies()...) {
		if !strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("cookie %s", c.Name)
		}
	}
	if p.setCookie("__Host-session") == "" || p.setCookie("__Host-wos-auth-marker") == "" {
		t.Errorf("Set-Cookie %q", p.Header["Set-Cookie"])
	}
}

// Whatever a browser brings that is not a session of ours is no session.
func TestHostileCookies(t *testing.T) {
	a := newApplication(t)
	b := a.signIn()
	good := b.cookies()["wos-session"]
	marker := b.cookies()["wos-auth-marker"]
	login := answer(a, request("GET", "/login", navigate...))
	loginCookie := login.Cookies()[0]

	stranger := newApplication(t)
	strangers := stranger.signIn().cookies()["wos-session"]

	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, "c%d=v; ", i)
	}

	for promise, header := range map[string]string{
		"empty":                           "wos-session=",
		"one byte":                        "wos-session=x",
		"not base64":                      "wos-session=%%%%",
		"zeros":                           "wos-session=" + strings.Repeat("A", 1200),
		"64 KiB":                          "wos-session=" + strings.Repeat("A", 64<<10),
		"another kit's":                   "wos-session=" + strangers,
		"half":                            "wos-session=" + good[:len(good)/2],
		"its last byte missing":           "wos-session=" + good[:len(good)-1],
		"twice the same after another":    "wos-session=" + good + good,
		"in capitals":                     "wos-session=" + strings.ToUpper(good),
		"under another name":              "wos-session2=" + good,
		"under the name of a part":        "wos-session.1=" + good,
		"a part count without parts":      "wos-session=4." + good,
		"a part count that is none":       "wos-session=9." + good,
		"the marker's":                    "wos-session=" + marker,
		"a login cookie's":                "wos-session=" + loginCookie.Value,
		"five thousand cookies":           many.String() + "x=y",
		"five thousand of our name":       strings.Repeat("wos-session=x; ", 5000),
		"five thousand login cookies":     strings.Repeat("wos-auth-verifier-x=x; ", 5000),
		"a header that is no cookie list": ";;;=;=;\"",
	} {
		t.Run(promise, func(t *testing.T) {
			for _, target := range []string{"/dashboard", "/login", "/callback?code=x&state=y"} {
				p := answer(a, request("GET", target, with(fetch, "Cookie", header)...))
				if p.StatusCode >= 500 || p.session() != nil {
					t.Errorf("%s: %s %.100s", target, p.Status, p.body)
				}
			}
			answer(a, request("GET", "/dashboard", with(fetch, "Cookie", header)...)).expect(t, 401)
			answer(a, request("POST", "/logout", "Cookie", header)).expectRedirect(t, 303, "/")
		})
	}
	if n := a.refreshes(); n != 0 {
		t.Errorf("%d refreshes for cookies that are none", n)
	}
}

func TestEveryBitOfTheCookieCounts(t *testing.T) {
	a := newApplication(t)
	good := a.signIn().cookies()["wos-session"]
	a.restart() // nothing is remembered
	answer(a, request("GET", "/dashboard", with(fetch, "Cookie", "wos-session="+good)...)).expectSession(t)
	for i := range good {
		for bit := range 8 {
			flipped := []byte(good)
			flipped[i] ^= 1 << bit
			p := answer(a, request("GET", "/dashboard", with(fetch, "Cookie", "wos-session="+string(flipped))...))
			if p.StatusCode != 401 {
				t.Fatalf("byte %d, bit %d: %s", i, bit, p.Status)
			}
		}
	}
}

// The user in the seal must be the token's.
func TestSealedUserMustBeTheTokens(t *testing.T) {
	a := newApplication(t)
	auth, err := a.workos.NewSession(ada, "")
	if err != nil {
		t.Fatal(err)
	}
	auth.User.ID = "user_01EVE"
	cookie, err := a.kit.SealSession(auth)
	if err != nil {
		t.Fatal(err)
	}
	a.page(t.Context(), cookie).expect(t, 302)
}

// A session that is over does not stand before one that is not.
func TestOtherSessionsAreTried(t *testing.T) {
	a := newApplication(t)
	good := a.signIn()
	over := a.signIn()
	header := "wos-session=" + over.cookies()["wos-session"] + "; wos-session=" + good.cookies()["wos-session"]
	over.stay().send("POST", "/logout", "").expect(t, 303)
	p := answer(a, request("GET", "/dashboard", with(fetch, "Cookie", header)...))
	if p.expectSession(t); p.Header["Set-Cookie"] != nil {
		t.Errorf("sets %q", p.Header["Set-Cookie"])
	}
}

// Two applications with one password, by mistake, do not read each other's
// cookies.
func TestSessionsOfAnotherClientDoNotOpen(t *testing.T) {
	a := newApplication(t)
	b := a.signIn()
	a.opts.ClientID = "client_other"
	a.restart()
	b.get("/dashboard", fetch...).expect(t, 401)
	if a.refreshes() != 0 {
		t.Error("another client's refresh token is sent")
	}
}

// Sessions in several cookies are remembered, too.
func TestLargeSessionsAreVerifiedOnce(t *testing.T) {
	a := newApplication(t)
	b := signInWith(t, a, unlike(400))
	b.get("/dashboard").expect(t, 200)
	var first, second *authkit.Session
	a.mux.Handle("/first", a.kit.WithAuth(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { first, _ = authkit.SessionFromContext(r.Context()) })))
	a.mux.Handle("/second", a.kit.WithAuth(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { second, _ = authkit.SessionFromContext(r.Context()) })))
	b.get("/first")
	b.get("/second")
	if first == nil || first != second {
		t.Error("the second request does not get the session of the first")
	}
}

// A session that is remembered does not keep the request's header alive.
func TestCacheKeepsTheCookieAndNotTheHeader(t *testing.T) {
	a := newApplication(t)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	var cookies []string
	for range 50 {
		cookies = append(cookies, a.sealed(ada))
	}
	a.page(t.Context(), a.sealed(ada)).expectSession(t)
	before := heap()
	for _, cookie := range cookies {
		a.page(t.Context(), cookie+"junk="+strings.Repeat("x", 500<<10)).expectSession(t)
	}
	if each := int64(heap()-before) / int64(len(cookies)); each > 20<<10 {
		t.Errorf("%d bytes for each session", each)
	}
	runtime.KeepAlive(a)
}

// A sibling subdomain may set cookies of our name: the seal decides.
func TestSeveralCookiesOfOurName(t *testing.T) {
	a := newApplication(t)
	b := a.signIn()
	good := "wos-session=" + b.cookies()["wos-session"]
	for _, header := range []string{
		"wos-session=planted; " + good,
		good + "; wos-session=planted",
		strings.Repeat("wos-session=planted; ", 9) + good,
	} {
		answer(a, request("GET", "/dashboard", with(fetch, "Cookie", header)...)).expectSession(t)
	}

	large := signInWith(t, a, unlike(400)).cookies()
	header := "wos-session=2.planted; wos-session=" + large["wos-session"] + "; wos-session.1=planted; wos-session.1=" + large["wos-session.1"]
	answer(a, request("GET", "/dashboard", with(fetch, "Cookie", header)...)).expect(t, 200)
}

// The next password is opened everywhere before it seals anywhere: nobody is
// signed out. An old password that is removed signs out those it sealed.
func TestPasswordRotationLosesNobody(t *testing.T) {
	a := newApplication(t)
	first := a.opts.CookiePassword
	b := a.signIn()

	step := func(password string, old ...string) *browser {
		a.opts.CookiePassword, a.opts.OldCookiePasswords = password, old
		a.restart()
		b.get("/dashboard", fetch...).expectSession(t)
		return a.signIn()
	}
	step(first, next)
	sealedByNext := step(next, first)

	a.opts.OldCookiePasswords = nil
	a.restart()
	b.get("/dashboard", fetch...).expect(t, 401)
	sealedByNext.get("/dashboard", fetch...).expectSession(t)
}

func TestCookieOlderThanItsMaxAgeIsNoSession(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		kept := a.signIn().frozen()
		time.Sleep(59 * time.Minute)
		kept.get("/dashboard", fetch...).expectSession(t)
		time.Sleep(2 * time.Minute)
		a.restart()
		kept.get("/dashboard", fetch...).expect(t, 401)
	}, func(o *authkit.Options) { o.CookieMaxAge = time.Hour })
}

// Of two sessions of ours the newer counts, whatever their order: one was left
// behind by another CookieDomain.
func TestNewestOfSeveralSessionsCounts(t *testing.T) {
	bubble(t, func(t *testing.T, a *application) {
		old := a.signIn().cookies()["wos-session"]
		expire()
		newer := a.signIn()
		id := newer.get("/dashboard").session().ID
		for _, header := range []string{
			"wos-session=" + old + "; wos-session=" + newer.cookies()["wos-session"],
			"wos-session=" + newer.cookies()["wos-session"] + "; wos-session=" + old,
		} {
			p := answer(a, request("GET", "/dashboard", with(fetch, "Cookie", header)...))
			if s := p.session(); s == nil || s.ID != id {
				t.Errorf("session %v, want %s", s, id)
			}
		}
		if a.refreshes() != 0 {
			t.Errorf("%d refreshes of the older session", a.refreshes())
		}
	}, func(o *authkit.Options) { o.SessionCacheSize = -1 }) // the cache would answer first
}
