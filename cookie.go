package authkit

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
)

const (
	// maxCookie bounds a Set-Cookie line, name and attributes included, in
	// bytes. RFC 6265, section 6.1, has browsers keep that much, and some drop
	// what is longer without a word.
	maxCookie = 4096
	// maxParts bounds the cookies of one session; servers and proxies limit the
	// header that brings them back, often to 16 KB.
	maxParts = 4
	// maxCandidates bounds the ways to read several cookies of one name.
	maxCandidates = 16

	loginCookiePrefix = "wos-auth-verifier-"
	markerCookieName  = "wos-auth-marker"

	markerMaxAge  = 10 * time.Second // in the browser
	markerSealAge = 60 * time.Second // in the seal, for clocks that differ
)

// cookies writes and reads the three kinds of cookie that a Kit has: the session
// cookie, perhaps in parts; a login cookie for each login under way; and the
// marker of a login that has just succeeded.
type cookies struct {
	name       string      // of the session cookie
	prefix     string      // "__Host-" or empty: for the names of the others
	attributes http.Cookie // what all of them share
	maxAge     time.Duration

	session *sealer
	login   *sealer
	marker  *sealer
}

func newCookies(opts *Options, secure bool) *cookies {
	passwords := append([]string{opts.CookiePassword}, opts.OldCookiePasswords...)
	c := &cookies{
		name:   opts.CookieName,
		maxAge: opts.CookieMaxAge,
		attributes: http.Cookie{
			Path:     "/",
			Domain:   strings.TrimPrefix(opts.CookieDomain, "."),
			HttpOnly: true,
			Secure:   secure || opts.CookieSameSite == http.SameSiteNoneMode,
			SameSite: opts.CookieSameSite,
		},
		session: newSealer("session", opts.ClientID, opts.CookieMaxAge, passwords),
		login:   newSealer("login", opts.ClientID, 0, passwords),
		marker:  newSealer("marker", opts.ClientID, markerSealAge, passwords),
	}
	if hasPrefixFold(opts.CookieName, "__Host-") {
		c.prefix = "__Host-"
	}
	return c
}

// sealer encrypts and authenticates cookie values for one purpose, with
// AES-256-CTR and HMAC-SHA256 over name, time and ciphertext, as securecookie
// does. The first codec seals, all of them open.
type sealer struct{ codecs []*securecookie.SecureCookie }

// newSealer derives the keys of each password: 32 bytes to authenticate and 32
// to encrypt (HKDF-SHA256, RFC 5869). The info string separates the purposes, so
// that one kind of cookie never passes for another, and the clients, so that two
// applications that share a password do not share sessions. A maxAge of 0 is any.
func newSealer(purpose, clientID string, maxAge time.Duration, passwords []string) *sealer {
	s := &sealer{}
	for _, password := range passwords {
		codec := securecookie.New(
			deriveKey(password, "authkit v1 "+purpose+" authenticate "+clientID),
			deriveKey(password, "authkit v1 "+purpose+" encrypt "+clientID),
		)
		codec.SetSerializer(securecookie.NopEncoder{})
		codec.MaxAge(int(maxAge / time.Second))
		codec.MaxLength(0) // the parts are measured one by one
		s.codecs = append(s.codecs, codec)
	}
	return s
}

func deriveKey(password, info string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(password), nil, info, 32)
	if err != nil {
		panic("authkit: " + err.Error()) // the length is valid
	}
	return key
}

// seal returns plain in base64url; it overwrites plain.
func (s *sealer) seal(name string, plain []byte) (string, error) {
	return s.codecs[0].Encode(name, plain)
}

// open returns what seal was given under the same name. Whatever else it is
// given is no cookie of ours.
func (s *sealer) open(name, value string) ([]byte, bool) {
	if len(value) > maxParts*maxCookie || !canonical(value) {
		return nil, false
	}
	for _, codec := range s.codecs {
		var plain []byte
		if codec.Decode(name, value, &plain) == nil {
			return plain, true
		}
	}
	return nil, false
}

// canonical reports whether value is the one spelling of its bytes in base64url.
// The decoder of securecookie ignores the unused bits of the last character, and
// line breaks.
func canonical(value string) bool {
	if len(value) < 4 || len(value)%4 != 0 || strings.ContainsAny(value, "\r\n") {
		return false
	}
	_, err := base64.URLEncoding.Strict().DecodeString(value[len(value)-4:])
	return err == nil
}

// sealSession returns the values of the cookies that hold a session, in order.
// The error is ErrSessionTooLarge, wrapped, if there were more than four.
func (c *cookies) sealSession(auth *Authentication) ([]string, error) {
	packed, err := pack(auth)
	if err != nil {
		return nil, err
	}
	sealed, err := c.session.seal(c.name, packed)
	if err != nil {
		return nil, fmt.Errorf("authkit: seal session: %w", err)
	}

	room := maxCookie - len(c.cookie(c.partName(maxParts-1), "", c.maxAge).String())
	if len(sealed) <= room {
		return []string{sealed}, nil
	}
	// The first part says how many there are, so that a part left over from an
	// earlier session is not taken for one of this.
	room -= len("4.")
	parts := slices.Collect(chunks(sealed, room))
	if len(parts) > maxParts {
		return nil, tooLarge(auth, fmt.Sprintf("%d bytes in %d cookies, want at most %d", len(sealed), len(parts), maxParts))
	}
	parts[0] = strconv.Itoa(len(parts)) + "." + parts[0]
	return parts, nil
}

// chunks yields s in pieces of at most size bytes.
func chunks(s string, size int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(s) > 0 {
			n := min(size, len(s))
			if !yield(s[:n]) {
				return
			}
			s = s[n:]
		}
	}
}

func (c *cookies) partName(i int) string {
	if i == 0 {
		return c.name
	}
	return c.name + "." + strconv.Itoa(i)
}

// sessionValues returns the sealed sessions that the request may carry, parts
// joined. There are several where another host of the domain set cookies of our
// name; the seal decides among them.
func (c *cookies) sessionValues(r *http.Request) []string {
	var whole []string
	for _, first := range named(r, c.name) {
		count, value := splitCount(first.Value)
		values := []string{value}
		for i := 1; i < count; i++ {
			values = combine(values, named(r, c.partName(i)))
		}
		whole = append(whole, values...)
	}
	return whole[:min(len(whole), maxCandidates)]
}

// named returns the cookies of that name, but no more than we care to try.
func named(r *http.Request, name string) []*http.Cookie {
	all := r.CookiesNamed(name)
	return all[:min(len(all), maxCandidates)]
}

// splitCount reads how many parts a session has from the first of them.
func splitCount(first string) (int, string) {
	if len(first) > 2 && first[1] == '.' && '2' <= first[0] && first[0] <= '0'+maxParts {
		return int(first[0] - '0'), first[2:]
	}
	return 1, first
}

// combine appends each of the cookies to each of the values.
func combine(values []string, next []*http.Cookie) []string {
	var combined []string
	for _, value := range values {
		for _, cookie := range next {
			if len(combined) == maxCandidates {
				return combined
			}
			if len(value)+len(cookie.Value) <= maxParts*maxCookie {
				combined = append(combined, value+cookie.Value)
			}
		}
	}
	return combined
}

// probe returns the session cookie's value by a look at the header alone, if
// there is one cookie of our name and it holds a whole session. Anything unusual
// is left to sessionValues.
func (c *cookies) probe(r *http.Request) (string, bool) {
	lines := r.Header["Cookie"]
	if len(lines) != 1 {
		return "", false
	}
	value, found := "", false
	for pair := range strings.SplitSeq(lines[0], ";") {
		name, v, ok := strings.Cut(strings.TrimLeft(pair, " "), "=")
		if !ok || name != c.name {
			continue
		}
		if found {
			return "", false
		}
		value, found = v, true
	}
	return value, found
}

// openSession returns what a sealed session holds, whole and consistent.
func (c *cookies) openSession(value string) (*Authentication, bool) {
	packed, ok := c.session.open(c.name, value)
	if !ok {
		return nil, false
	}
	auth, err := unpack(packed)
	return auth, err == nil
}

// setSession writes a sealed session, and deletes parts that an earlier, larger
// one has left.
func (c *cookies) setSession(w http.ResponseWriter, r *http.Request, parts []string) {
	for i := range maxParts {
		switch name := c.partName(i); {
		case i < len(parts):
			write(w, c.cookie(name, parts[i], c.maxAge))
		case len(named(r, name)) > 0:
			write(w, c.cookie(name, "", -1))
		}
	}
}

// clearSession deletes the session cookie in all its parts.
func (c *cookies) clearSession(w http.ResponseWriter, r *http.Request) {
	c.setSession(w, r, nil)
}

// loginCookieName returns the name of the login cookie for a state: the first 8
// bytes of its SHA-256, in hexadecimal, tell the logins of one browser apart.
func (c *cookies) loginCookieName(state string) string {
	sum := sha256.Sum256([]byte(state))
	return c.prefix + loginCookiePrefix + hex.EncodeToString(sum[:8])
}

// setLogin writes the login cookie of a login that begins, and deletes the oldest
// of those under way if there are too many: together they would outgrow what a
// server accepts as a header.
func (c *cookies) setLogin(w http.ResponseWriter, r *http.Request, f *flow) error {
	name := c.loginCookieName(f.stateParam())
	cookie, err := c.sealLogin(name, f)
	if errors.Is(err, errLoginTooLarge) {
		f.returnTo = "" // the visitor may have made it long, and can do without
		cookie, err = c.sealLogin(name, f)
	}
	if err != nil {
		return err
	}

	underWay := c.openLogins(r)
	for len(underWay) >= maxFlows || len(underWay) > 0 && size(r, underWay)+len(cookie.Value) > maxFlowBytes {
		oldest := oldestOf(underWay)
		c.clear(w, oldest)
		delete(underWay, oldest)
	}
	write(w, cookie)
	return nil
}

func (c *cookies) sealLogin(name string, f *flow) (*http.Cookie, error) {
	sealed, err := c.login.seal(name, f.pack())
	if err != nil {
		return nil, fmt.Errorf("authkit: seal login: %w", err)
	}
	cookie := c.cookie(name, sealed, flowMaxAge)
	if len(f.callerState) > maxCallerState || len(cookie.String()) > maxCookie {
		return nil, errLoginTooLarge
	}
	return cookie, nil
}

// size returns the length of the cookies of those logins.
func size(r *http.Request, flows map[string]*flow) int {
	total := 0
	for _, cookie := range r.Cookies() {
		if flows[cookie.Name] != nil {
			total += len(cookie.Value)
		}
	}
	return total
}

func oldestOf(flows map[string]*flow) string {
	var oldest string
	for name, f := range flows {
		if oldest == "" || f.startedAt.Before(flows[oldest].startedAt) {
			oldest = name
		}
	}
	return oldest
}

// openLogins returns the logins under way that the request carries, by the names
// of their cookies. What does not open with our key is not ours: the ports of
// one host share their cookies.
func (c *cookies) openLogins(r *http.Request) map[string]*flow {
	flows := make(map[string]*flow)
	tried := 0
	for _, cookie := range r.Cookies() {
		if !strings.HasPrefix(cookie.Name, c.prefix+loginCookiePrefix) {
			continue
		}
		if tried++; tried > maxCandidates {
			break
		}
		if f, ok := c.openLogin(cookie.Name, cookie.Value); ok {
			flows[cookie.Name] = f
		}
	}
	return flows
}

func (c *cookies) openLogin(name, value string) (*flow, bool) {
	plain, ok := c.login.open(name, value)
	if !ok {
		return nil, false
	}
	return unpackFlow(plain)
}

// findLogin returns the login that the state belongs to, if this browser began
// one.
func (c *cookies) findLogin(r *http.Request, state string) (*flow, bool) {
	name := c.loginCookieName(state)
	for _, cookie := range named(r, name) {
		if f, ok := c.openLogin(name, cookie.Value); ok && f.hasState(state) {
			return f, true
		}
	}
	return nil, false
}

// setMarker leaves word that a login has just succeeded, for WithAuth to find
// when the session that came with it is missing.
func (c *cookies) setMarker(w http.ResponseWriter) error {
	name := c.prefix + markerCookieName
	sealed, err := c.marker.seal(c.markerSealName(), []byte{packVersion})
	if err != nil {
		return fmt.Errorf("authkit: seal marker: %w", err)
	}
	write(w, c.cookie(name, sealed, markerMaxAge))
	return nil
}

// markerSealName ties a marker to the session cookie that it speaks of: several
// kits on one host share the browser's one.
func (c *cookies) markerSealName() string { return markerCookieName + " of " + c.name }

func (c *cookies) hasMarker(r *http.Request) bool {
	name := c.prefix + markerCookieName
	for _, cookie := range named(r, name) {
		if _, ok := c.marker.open(c.markerSealName(), cookie.Value); ok {
			return true
		}
	}
	return false
}

// clear deletes a cookie.
func (c *cookies) clear(w http.ResponseWriter, name string) {
	write(w, c.cookie(name, "", -1))
}

// clearAll deletes every cookie of ours that the request carries.
func (c *cookies) clearAll(w http.ResponseWriter, r *http.Request) {
	c.clearSession(w, r)
	for name := range c.openLogins(r) {
		c.clear(w, name)
	}
	if name := c.prefix + markerCookieName; len(named(r, name)) > 0 {
		c.clear(w, name)
	}
}

// cookie builds every cookie of the kit, those that delete one among them: a
// browser deletes only what has the same name, domain and path. A negative
// maxAge deletes.
func (c *cookies) cookie(name, value string, maxAge time.Duration) *http.Cookie {
	cookie := c.attributes
	cookie.Name, cookie.Value = name, value
	cookie.MaxAge = int(maxAge / time.Second)
	if maxAge < 0 {
		cookie.MaxAge = -1
	}
	return &cookie
}

// write adds a Set-Cookie line, in place of an earlier one for the same cookie,
// and keeps the response out of every cache. CDN-Cache-Control (RFC 9213) and
// Expires are there for handlers that override Cache-Control, and for
// http.FileServer, whose errors delete it.
func write(w http.ResponseWriter, cookie *http.Cookie) {
	h := w.Header()
	h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		return strings.HasPrefix(line, cookie.Name+"=")
	})
	h.Add("Set-Cookie", cookie.String())
	h.Set("CDN-Cache-Control", "no-store")
	h.Set("Expires", "0")
}
