package authkit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

func TestClientCalls(t *testing.T) {
	a := newApplication(t)
	client := a.kit.Client()

	user, err := client.User(context.Background(), "user_01ADA")
	if err != nil || user.Email != ada || user.Metadata()["plan"] != "pro" || user.CreatedAt.IsZero() {
		t.Errorf("user %+v, %v", user, err)
	}

	session := a.signIn().get("/dashboard").session()
	if err := client.RevokeSession(context.Background(), session.ID); err != nil {
		t.Error(err)
	}
	var apiErr *authkit.APIError
	err = client.RevokeSession(context.Background(), session.ID)
	if !errors.As(err, &apiErr) || apiErr.StatusCode != 404 || apiErr.Code != "not_found" || !strings.HasPrefix(apiErr.RequestID, "req_") {
		t.Errorf("revoked twice: %v", err)
	}
	if _, err = client.User(context.Background(), "../../sso/jwks/x"); !errors.As(err, &apiErr) || apiErr.StatusCode != 404 {
		t.Errorf("a user id that is a path: %v", err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client.User(ctx, "user_01ADA"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// WorkOS wraps errors in two envelopes, and proxies in none.
func TestAPIErrors(t *testing.T) {
	for _, c := range []struct {
		body string
		want authkit.APIError
	}{
		{`{"error":"invalid_grant","error_description":"The code 'abc' has expired."}`, authkit.APIError{Code: "invalid_grant", Description: "The code 'abc' has expired."}},
		{`{"code":"not_found","message":"Not found"}`, authkit.APIError{Code: "not_found", Description: "Not found"}},
		{`{"message":"Must use SSO for selected organization"}`, authkit.APIError{Description: "Must use SSO for selected organization"}},
		{`{"error":"a\nforged log line"}`, authkit.APIError{}},
		{`{"error":{"nested":true}}`, authkit.APIError{}},
		{`<html>`, authkit.APIError{}},
		{``, authkit.APIError{}},
	} {
		a := newApplication(t)
		a.workos.Fail(authkittest.Users, 1, authkittest.Fault{Status: 418, Body: c.body, Header: http.Header{"X-Request-Id": {"req_1"}, "Retry-After": {"2"}}})
		_, err := a.kit.Client().User(context.Background(), "user_01ADA")
		c.want.StatusCode, c.want.RequestID, c.want.RetryAfter = 418, "req_1", 2*time.Second
		var got *authkit.APIError
		if !errors.As(err, &got) || *got != c.want {
			t.Errorf("%s: %#v, want %#v", c.body, got, c.want)
		}
		if got.Description != "" && strings.Contains(err.Error(), got.Description) {
			t.Errorf("%q repeats the description", err)
		}
	}
}

// An application may have put an http.RoundTripper of another kind in its place.
func TestDefaultTransportMayBeReplaced(t *testing.T) {
	saved := http.DefaultTransport
	defer func() { http.DefaultTransport = saved }()
	http.DefaultTransport = roundTripper(saved.RoundTrip)
	if _, err := authkit.New(sound()); err != nil {
		t.Error(err)
	}
}

// The key set is public: whatever serves it need not see the API key.
func TestKeySetIsFetchedWithoutTheAPIKey(t *testing.T) {
	a := newApplication(t)
	a.signIn().get("/dashboard").expectSession(t)
	for _, r := range a.workos.Requests(authkittest.KeySet) {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("Authorization %.10q", got)
		}
	}
	for _, r := range a.workos.Requests(authkittest.Authenticate) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+a.opts.APIKey {
			t.Errorf("Authorization %.10q", got)
		}
	}
}

// The client secret goes to WorkOS and nowhere that an answer points at.
func TestSecretFollowsNoRedirect(t *testing.T) {
	var hosts []string
	a := newApplication(t, func(o *authkit.Options) {
		transport := o.HTTPClient.Transport
		o.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			hosts = append(hosts, r.URL.Host)
			return transport.RoundTrip(r)
		})}
	})
	for _, status := range []int{301, 302, 303, 307, 308} {
		a.workos.Fail(authkittest.Any, 1, authkittest.Fault{Status: status, Header: http.Header{"Location": {"https://evil.test/"}}})
		if err := a.kit.Client().RevokeSession(context.Background(), "session_1"); err == nil {
			t.Errorf("%d is a success", status)
		}
	}
	for _, host := range hosts {
		if host != "api.workos.test" {
			t.Errorf("called %s", host)
		}
	}
}

// No way of printing a session, or what it is made of, shows a token.
func TestPrintingShowsNoToken(t *testing.T) {
	a := newApplication(t)
	var s *authkit.Session
	a.mux.Handle("/own", a.kit.WithAuth(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s, _ = authkit.SessionFromContext(r.Context())
	})))
	a.signIn().get("/own")
	auth, err := a.workos.NewSession(ada, "")
	if err != nil {
		t.Fatal(err)
	}
	auth.OAuthTokens = &authkit.OAuthTokens{Provider: "GoogleOAuth", AccessToken: auth.AccessToken, RefreshToken: auth.RefreshToken}

	login := &authkit.Login{Session: s, OAuthTokens: auth.OAuthTokens}

	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{login, *login, s, *s, auth, *auth, auth.OAuthTokens, *auth.OAuthTokens, []any{*s}, struct{ S *authkit.Session }{s}, struct{ S authkit.Session }{*s}} {
			fmt.Fprintf(&printed, verb+"\n", value)
		}
	}
	for _, handler := range []slog.Handler{
		slog.NewTextHandler(&printed, nil), slog.NewJSONHandler(&printed, nil),
	} {
		slog.New(handler).Info("x", "session", s, "value", *s, "auth", auth, "value", *auth, "oauth", auth.OAuthTokens, "login", login, "value", *login)
	}
	encoded, err := json.Marshal([]any{s, *s})
	if err != nil {
		t.Fatal(err)
	}
	printed.Write(encoded)
	expectNoSecrets(t, "what is printed", printed.String(), a.opts)
	if !strings.Contains(printed.String(), s.ID) || !strings.Contains(string(encoded), `"email":"ada@example.test"`) {
		t.Errorf("nothing is left to see: %s", &printed)
	}
}

// Sessions are shared: what one handler appends, another must not see.
func TestAppendingToASessionCopies(t *testing.T) {
	a := newApplication(t)
	a.workos.AddMembership(authkittest.Membership{
		UserID: "user_01ADA", OrganizationID: "org_01ORCHARD", Permissions: []string{"a", "b", "c"}, // decoded with room to spare
	})
	b := a.signIn()
	a.mux.Handle("/own", a.kit.WithAuth(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := authkit.SessionFromContext(r.Context())
		_ = append(s.Permissions, "everything")
		s.User.Metadata()["plan"] = "free"
		if s.User.Metadata()["plan"] != "pro" || cap(s.Permissions) != len(s.Permissions) {
			t.Errorf("%v %v", s.User.Metadata(), s.Permissions)
		}
	})))
	b.get("/own")
	b.get("/own")
}
