package authkit

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// isNavigation reports whether a browser is about to show the response as a
// page: only then do a redirect to WorkOS and a page of ours make sense.
func isNavigation(r *http.Request) bool {
	if isPrefetch(r) {
		return false
	}
	// Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), which browsers
	// send over https and to loopback hosts.
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	return safe && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// isPrefetch reports whether nobody has asked to see the response yet.
func isPrefetch(r *http.Request) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		purpose := strings.ToLower(r.Header.Get(name))
		if strings.Contains(purpose, "prefetch") || strings.Contains(purpose, "preview") {
			return true
		}
	}
	return false
}

// isUpgrade reports whether the request leaves HTTP behind, as a WebSocket does:
// such a response may never carry a cookie back.
func isUpgrade(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" || r.Method == http.MethodConnect
}

// isHTMX reports whether htmx made the request (https://htmx.org/reference/#headers).
func isHTMX(r *http.Request) bool { return r.Header.Get("HX-Request") == "true" }

// isSameOrigin reports whether a request that changes something was made by our
// own pages, or by no browser at all: the rules of http.CrossOriginProtection,
// with the origin of RedirectURI in the place of the Host header.
func (k *Kit) isSameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		origin := r.Header.Get("Origin")
		return origin == "" || origin == k.origin
	}
	return false
}

// isOwnClick reports whether a navigation in the browser's window was begun on
// our own pages or by typing the address.
func (k *Kit) isOwnClick(r *http.Request) bool {
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" && dest != "document" {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		return k.refererPath(r) != ""
	}
	return false
}

// refererPath returns the path and query of the page of ours from which the
// request was made, or the empty string if it was another's.
func (k *Kit) refererPath(r *http.Request) string {
	return k.ownPath(r.Header.Get("Referer"))
}

// ownPath returns the path and query of an absolute URL of our origin.
func (k *Kit) ownPath(page string) string {
	u, err := url.Parse(page)
	if err != nil || u.User != nil || originOf(u) != k.origin {
		return ""
	}
	return u.RequestURI()
}

// originOf returns the origin of a URL as browsers send it in the Origin header
// (RFC 6454, section 6.2).
func originOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + host
}

// currentPage returns the path and query of the page that the visitor is on or
// asks for, to come back to after a login. It is empty where that cannot be told
// or is no place to come back to.
func (k *Kit) currentPage(r *http.Request) string {
	switch {
	case isNavigation(r) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		// Not r.URL, which http.StripPrefix and routers rewrite.
		return k.returnPath(r.RequestURI)
	case isHTMX(r):
		return k.returnPath(k.ownPath(r.Header.Get("HX-Current-URL")))
	}
	return k.returnPath(k.refererPath(r))
}

// visitorOf returns what WorkOS is told of whoever made the request.
func (k *Kit) visitorOf(r *http.Request) visitor {
	const longest = 512
	agent := r.UserAgent()
	return visitor{IPAddress: k.clientIP(r), UserAgent: strings.ToValidUTF8(agent[:min(len(agent), longest)], "")}
}

// remoteIP returns the address of the connection if it can be the visitor's own:
// a private one is that of a proxy.
func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return ""
	}
	return addr.Unmap().WithZone("").String()
}

// requestPath returns the path that the visitor asked for, before
// http.StripPrefix or a router took a part of it away.
func requestPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return pathOf(r.RequestURI)
	}
	return r.URL.Path
}
