package authkit

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// isolatedKit returns a kit whose WorkOS always answers the same.
func isolatedKit(f testing.TB, status int, body []byte) *Kit {
	f.Helper()
	k, err := New(Options{
		APIKey: "sk_test", ClientID: "client_123", RedirectURI: "https://app.test/callback", CookiePassword: "Zn4kPwq8vRt2LmXc6YbHs1Jd9Gf3Te7u",
		Logger:     slog.New(slog.DiscardHandler),
		HTTPClient: &http.Client{Transport: fixedReply{status, body}},
	})
	if err != nil {
		f.Fatal(err)
	}
	return k
}

type fixedReply struct {
	status int
	body   []byte
}

func (t fixedReply) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: t.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(t.body)), Request: r}, nil
}

// Whatever is accepted as a return path, a browser resolves it to our origin and
// to itself.
func FuzzReturnPath(f *testing.F) {
	for _, seed := range []string{"/", "/a?b#c", "//evil.test", "/\\evil.test", "/%2Fevil.test", "/a/../b", "/\t/x", "https://evil.test", "/login", "/%2e%2e"} {
		f.Add(seed)
	}
	k := isolatedKit(f, 200, nil)
	page, err := url.Parse("https://app.test/some/page?x=1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k.returnPath(s) == "" {
			return
		}
		// A browser drops these and reads a backslash as a slash.
		seen := strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/").Replace(strings.Trim(s, " "))
		if seen != s || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
			t.Fatalf("%q is accepted", s)
		}
		to, err := page.Parse(s)
		if err != nil || to.Scheme != "https" || to.Host != "app.test" || to.User != nil {
			t.Fatalf("%q leads to %v, %v", s, to, err)
		}
		if path := to.Path; path == "/login" || path == "/callback" || strings.Contains(path, "/../") || strings.HasSuffix(path, "/..") {
			t.Fatalf("%q leads to %s", s, path)
		}
	})
}

// No Cookie header that we did not write is a session.
func FuzzCookieHeader(f *testing.F) {
	k := isolatedKit(f, 500, nil)
	parts, err := k.cookies.sealSession(goldenSession())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "wos-session=", "wos-session=2.a; wos-session.1=b", "wos-session=" + parts[0][1:], "wos-auth-marker=x; wos-auth-verifier-0=y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if strings.Contains(header, parts[0]) {
			return
		}
		for _, target := range []string{"/page", "/login", "/callback?code=a&state=b", "/logout"} {
			r := httptest.NewRequest("POST", target, nil)
			r.Header["Cookie"] = []string{header}
			w := httptest.NewRecorder()
			if _, err := k.Authenticate(w, r); !errors.Is(err, ErrNoSession) {
				t.Fatalf("Authenticate: %v", err)
			}
			r.Method = "GET"
			k.Callback(httptest.NewRecorder(), r)
			k.Login(httptest.NewRecorder(), r)
			r.Method = "POST"
			if k.Logout(w, r); w.Header().Get("Location") != "/" {
				t.Fatalf("Logout leads to %q", w.Header().Get("Location"))
			}
		}
	})
}

// What our key sealed is unpacked without a panic, whoever wrote it; and what
// unpacks packs to the same.
func FuzzUnpack(f *testing.F) {
	packed, err := pack(goldenSession())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = unpackFlow(b)
		auth, err := unpack(b)
		if err != nil {
			return
		}
		again, err := pack(auth)
		if err != nil {
			return // a token with an empty segment
		}
		same, err := unpack(again)
		if err != nil || same.AccessToken != auth.AccessToken || same.RefreshToken != auth.RefreshToken || same.User.ID != auth.User.ID {
			t.Fatalf("unpacks to %s, and packed again to %s, %v", asJSON(t, auth), asJSON(t, same), err)
		}
	})
}

// A token that parses is spelled in one way only, and says what encoding/json
// reads in it.
func FuzzToken(f *testing.F) {
	f.Add(goldenSession().AccessToken)
	for _, seed := range []string{"", "..", "e30.e30.", "eyJhbGciOiJub25lIn0.e30.e30"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		parsed, err := parseToken(raw)
		if err != nil {
			if len(raw) > 20 && strings.Contains(err.Error(), raw) {
				t.Fatalf("the error repeats the token: %v", err)
			}
			return
		}
		header, payload, signature, err := decodeToken(raw)
		if err != nil {
			t.Fatal(err)
		}
		var h struct{ Alg, Kid string }
		if json.Unmarshal(header, &h) != nil || h.Alg != "RS256" || h.Kid != parsed.keyID {
			t.Fatalf("header %q", header)
		}
		var c map[string]json.RawMessage
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatalf("payload %q: %v", payload, err)
		}
		var subject string
		if json.Unmarshal(c["sub"], &subject); subject != parsed.subject {
			t.Fatalf("sub %q, encoding/json reads %q", parsed.subject, subject)
		}
		if len(signature) == 0 {
			t.Fatal("no signature")
		}
	})
}

// A key set, whatever it is, yields usable keys or an error.
func FuzzKeySet(f *testing.F) {
	for _, seed := range []string{`{"keys":[]}`, `{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}`, `{"keys":[{"kty":"oct","k":"AA","kid":"b"},null]}`, `<html>`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeySet(b)
		if err == nil && len(keys) == 0 {
			t.Fatal("no keys and no error")
		}
		for id, key := range keys {
			if id == "" || key.N.BitLen() < 2048 || rsa.VerifyPKCS1v15(key, 0, []byte("x"), []byte("y")) == nil {
				t.Fatalf("key %q of %d bits", id, key.N.BitLen())
			}
		}
	})
}

// The callback answers any query without a 5xx of its own making, and repeats
// nothing of it.
func FuzzCallbackQuery(f *testing.F) {
	for _, seed := range []string{"", "code=a&state=b", "error=access_denied", "code=a", "state=%zz", "code=a&code=b&state=c", "error=<script>alert(1)</script>&error_description=x"} {
		f.Add(seed)
	}
	k := isolatedKit(f, 500, nil)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/callback", nil)
		r.URL.RawQuery = query
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		w := httptest.NewRecorder()
		k.Callback(w, r)
		if w.Code >= 500 || w.Code < 300 {
			t.Fatalf("status %d", w.Code)
		}
		if to := w.Header().Get("Location"); to != "" && to != "/login" {
			t.Fatalf("leads to %q", to)
		}
		for _, values := range r.URL.Query() {
			for _, value := range values {
				if strings.ContainsAny(value, "<>\"'") && strings.Contains(w.Body.String(), value) && len(value) > 3 {
					t.Fatalf("the page repeats %q", value)
				}
			}
		}
	})
}

// Whatever WorkOS replies, it is either tokens and a user or an error that
// repeats nothing of it.
func FuzzReply(f *testing.F) {
	f.Add(200, []byte(`{"user":{"id":"u"},"access_token":"a.b.c","refresh_token":"r"}`))
	f.Add(400, []byte(`{"error":"invalid_grant","error_description":"secret"}`))
	f.Add(400, []byte(`{"code":"x","message":{}}`))
	f.Add(200, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		k := isolatedKit(t, status, body)
		auth, err := k.client.refresh(context.Background(), "ref", "", visitor{})
		if err == nil {
			if status != 200 || auth.User.ID == "" || auth.AccessToken == "" || auth.RefreshToken == "" {
				t.Fatalf("status %d: %s", status, asJSON(t, auth))
			}
			return
		}
		var apiErr *APIError
		if errors.As(err, &apiErr) && len(apiErr.Description) > 8 && strings.Contains(err.Error(), apiErr.Description) {
			t.Fatalf("the error repeats the description: %v", err)
		}
		if terminal(err) && (apiErr == nil || apiErr.StatusCode == 200) {
			t.Fatalf("status %d ends a session: %v", status, err)
		}
	})
}
