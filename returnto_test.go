package authkit_test

import (
	"net/url"
	"strings"
	"testing"
)

// returnTo is where a login leads that was asked to return to path, through the
// public handlers to the final Location.
func (a *application) returnTo(t *testing.T, path string) string {
	t.Helper()
	b := a.visitor()
	p := b.stay().get(a.authorize(begin(t, b, "/login?return_to="+url.QueryEscape(path))))
	p.expect(t, 302)
	return p.Header.Get("Location")
}

func TestReturnPathsThatAreLocalComeBackByteForByte(t *testing.T) {
	a := newApplication(t)
	for _, path := range []string{
		"/", "/a", "/a/", "/a/b.c?d=e&f=g#h", "/?", "/#", "/a?b=//c", "/a?b=https://c.test/", "/a#//b",
		"/a%2Fb", "/a%2F%2Fb", "/a%20b", "/caf%C3%A9", "/café", "/日本語?q=日本語", "/a+b?c=d+e", "/a;b=c", "/a:b", "/a@b",
		"/.well-known/x", "/...", "/a/..b", "/a/b..", "/~ada", "/%7Eada", "/a?x=%0d%0a", "/login2", "/logins/x", "/x/login", "/a?b=/login",
		"/%252e%252e/a", "/%252F%252Fevil.test", "/" + strings.Repeat("x", 2047),
	} {
		if got := a.returnTo(t, path); got != path {
			t.Errorf("return_to %q leads to %q", path, got)
		}
	}
}

func TestReturnPathsThatAreNotLocalBecomeTheDefault(t *testing.T) {
	a := newApplication(t)
	for _, path := range []string{
		"", "a", "?a", "#a", "../a", "./a",
		"https://evil.test/", "http:evil.test", "https:/evil.test", "https:///evil.test", "//evil.test", "///evil.test", "////evil.test",
		"/\\evil.test", "\\/evil.test", "\\\\evil.test", "/\\/evil.test", "/a\\b", "/%5Cevil.test", "/%5c%5cevil.test",
		"/\t/evil.test", "/\n/evil.test", "/\r\n/evil.test", "\t//evil.test", " //evil.test", "/a\x00b", "/a\x7fb", "/%09/evil.test", "/%0a/evil.test", "/%00", "/%7f",
		"/%2Fevil.test", "/%2f%2fevil.test", "//%2Fevil.test", "/a//b", "//", "/.//evil.test", "/..//evil.test", "/a/../..//evil.test",
		"/.", "/..", "/./a", "/a/../b", "/a/..", "/%2e", "/%2e%2e/a", "/.%2e/a", "/a/%2E%2E/b",
		"javascript:alert(1)", "data:text/html,x", "//user@evil.test", "https://app.test/", "https://app.test@evil.test/", "//app.test/", "http://app.test:80/",
		"/%zz", "/%", "/a ", "/ ", "/\xff", "/a?\xff", "/login", "/login?return_to=/x", "/callback", "/callback?code=x&state=y", "/%6cogin", "/callback#x",
		"/" + strings.Repeat("x", 2048),
	} {
		if got := a.returnTo(t, path); got != "/" {
			t.Errorf("return_to %q leads to %q", path, got)
		}
	}
	b := a.visitor()
	if got := b.stay().get(a.authorize(begin(t, b, "/login?return_to=/a&return_to=/b"))).Header.Get("Location"); got != "/" {
		t.Errorf("two return_to lead to %q", got)
	}
}
