package authkit

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// maxReturnTo bounds a return path, in bytes: with it the login cookie still
// fits the 4,096 bytes that every browser keeps.
const maxReturnTo = 2048

// localPath reports whether s is a path of this site and of nothing else: what
// a browser, which follows the WHATWG URL standard and not RFC 3986, resolves
// to our own origin whatever page it is on.
func localPath(s string) bool {
	if len(s) == 0 || len(s) > maxReturnTo || s[0] != '/' || !utf8.ValidString(s) {
		return false
	}
	// Servers and browsers drop a blank at the end.
	if strings.ContainsFunc(s, isControlOrBackslash) || strings.HasSuffix(s, " ") {
		return false
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return false
	}

	raw, _, _ := strings.Cut(s, "#")
	raw, _, _ = strings.Cut(raw, "?")
	if strings.Contains(raw, "//") {
		return false
	}
	// Some proxies decode the path once before the browser sees it.
	return !strings.HasPrefix(u.Path, "//") &&
		!strings.ContainsFunc(u.Path, isControlOrBackslash) &&
		!hasDotSegment(u.Path)
}

// isControlOrBackslash finds what browsers drop from a URL (tab, CR, LF) or
// read as a slash.
func isControlOrBackslash(r rune) bool {
	return r < 0x20 || r == 0x7f || r == '\\'
}

func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// pathOf returns the unescaped path of a local path or an absolute URL.
func pathOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Path
}

// returnPath returns s if the visitor may be sent there after a login, and the
// empty string otherwise.
func (k *Kit) returnPath(s string) string {
	if !localPath(s) || k.leadsBack(pathOf(s)) {
		return ""
	}
	return s
}

// leadsBack reports whether a path is that of the login or the callback, which
// are no destinations: they would start over.
func (k *Kit) leadsBack(path string) bool {
	return path == k.loginPath || path == k.callbackPath
}
