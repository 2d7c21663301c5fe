package authkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// requestTimeout bounds one exchange with WorkOS, reply included.
	requestTimeout = 10 * time.Second
	// maxReply bounds a reply, in bytes.
	maxReply = 1 << 20
)

// Client speaks the WorkOS HTTP API: what the Kit needs of it, and what an
// application with a Kit is likely to want. It is safe for concurrent use.
//
// Every call is bounded by ten seconds, a reply by 1 MiB, and no redirect is
// followed. Errors are *APIError where WorkOS answered, and wrap the transport's
// otherwise.
type Client struct {
	baseURL  string
	clientID string
	apiKey   string
	http     *http.Client
}

func newClient(opts *Options) *Client {
	var httpClient http.Client
	if opts.HTTPClient != nil {
		httpClient = *opts.HTTPClient
	} else {
		httpClient.Transport = defaultTransport()
	}
	// The client secret goes to WorkOS and nowhere that WorkOS, or someone
	// between us, points at.
	httpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	httpClient.Jar = nil

	return &Client{
		baseURL:  strings.TrimSuffix(opts.BaseURL, "/"),
		clientID: opts.ClientID,
		apiKey:   opts.APIKey,
		http:     &httpClient,
	}
}

// defaultTransport keeps a connection open for each refresh that may be in
// flight; net/http keeps two.
func defaultTransport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // the application has replaced it
	}
	t = t.Clone()
	t.MaxIdleConnsPerHost = maxRefreshes
	t.MaxResponseHeaderBytes = 64 << 10
	return t
}

// AuthorizationParams are the parameters of an authorization request. Empty
// fields are not sent.
type AuthorizationParams struct {
	RedirectURI     string
	State           string
	CodeChallenge   string // base64url(SHA-256(code verifier)), 43 characters; the method is S256
	Provider        string // "authkit" unless ConnectionID is set
	ConnectionID    string
	OrganizationID  string
	ScreenHint      string // "sign-in" or "sign-up"
	LoginHint       string // an e-mail address
	DomainHint      string
	Prompt          string
	MaxAge          string // seconds since the last authentication, in decimal
	InvitationToken string
}

// AuthorizationURL returns the address at which WorkOS signs a user in
// (https://workos.com/docs/reference/authkit/authentication/get-authorization-url).
func (c *Client) AuthorizationURL(p AuthorizationParams) string {
	if p.Provider == "" && p.ConnectionID == "" {
		p.Provider = "authkit"
	}
	query := url.Values{
		"client_id":     {c.clientID},
		"response_type": {"code"},
	}
	if p.CodeChallenge != "" {
		query.Set("code_challenge_method", "S256")
	}
	for name, value := range map[string]string{
		"redirect_uri":     p.RedirectURI,
		"state":            p.State,
		"code_challenge":   p.CodeChallenge,
		"provider":         p.Provider,
		"connection_id":    p.ConnectionID,
		"organization_id":  p.OrganizationID,
		"screen_hint":      p.ScreenHint,
		"login_hint":       p.LoginHint,
		"domain_hint":      p.DomainHint,
		"prompt":           p.Prompt,
		"max_age":          p.MaxAge,
		"invitation_token": p.InvitationToken,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return c.baseURL + "/user_management/authorize?" + query.Encode()
}

// LogoutURL returns the address at which WorkOS ends a session and sends the
// browser on to returnTo, or to the dashboard's default where that is empty
// (https://workos.com/docs/reference/authkit/logout). Whoever knows the session
// id can end the session.
func (c *Client) LogoutURL(sessionID, returnTo string) string {
	query := url.Values{"session_id": {sessionID}}
	if returnTo != "" {
		query.Set("return_to", returnTo)
	}
	return c.baseURL + "/user_management/sessions/logout?" + query.Encode()
}

// Authentication is a successful reply of the token endpoint. It holds secrets:
// printing or logging it shows none of them, encoding it as JSON shows all.
type Authentication struct {
	User                 User          `json:"user"`
	OrganizationID       string        `json:"organization_id"`
	AccessToken          string        `json:"access_token"`
	RefreshToken         string        `json:"refresh_token"`
	AuthenticationMethod string        `json:"authentication_method"`
	Impersonator         *Impersonator `json:"impersonator"`
	OAuthTokens          *OAuthTokens  `json:"oauth_tokens"` // where the dashboard asks for the provider's tokens
}

// Format prints who was authenticated, and no token, for every verb.
func (a Authentication) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "authentication of %s", a.User.ID)
}

// LogValue logs who was authenticated, and no token.
func (a Authentication) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", a.User.ID))
}

// OAuthTokens are the tokens of the identity provider, such as Google, that the
// user signed in with. They are secrets: printing or logging them shows none.
type OAuthTokens struct {
	Provider     string   `json:"provider"`
	AccessToken  string   `json:"access_token"`
	RefreshToken string   `json:"refresh_token"`
	ExpiresAt    int64    `json:"expires_at"` // seconds since 1970
	Scopes       []string `json:"scopes"`
}

// Format prints the provider, and no token, for every verb.
func (t OAuthTokens) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "tokens of %s", t.Provider) }

// LogValue logs the provider, and no token.
func (t OAuthTokens) LogValue() slog.Value {
	return slog.GroupValue(slog.String("provider", t.Provider))
}

// grant is the body of a token request. The fields that are left empty are not
// sent.
type grant struct {
	GrantType      string `json:"grant_type"`
	ClientID       string `json:"client_id"`
	ClientSecret   string `json:"client_secret"`
	Code           string `json:"code,omitempty"`
	CodeVerifier   string `json:"code_verifier,omitempty"`
	RefreshToken   string `json:"refresh_token,omitempty"`
	OrganizationID string `json:"organization_id,omitempty"`
	visitor
}

// visitor is what WorkOS is told of whoever made the request.
type visitor struct {
	IPAddress string `json:"ip_address,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// exchange redeems an authorization code, which works once.
func (c *Client) exchange(ctx context.Context, code, verifier string, from visitor) (*Authentication, error) {
	auth, err := c.authenticate(ctx, grant{
		GrantType: "authorization_code", Code: code, CodeVerifier: verifier, visitor: from,
	})
	if err != nil {
		return nil, fmt.Errorf("exchange code: %w", err)
	}
	return auth, nil
}

// refresh trades a refresh token for a new pair. WorkOS answers the same token
// with the same pair for about 30 seconds, and with invalid_grant from then on.
func (c *Client) refresh(ctx context.Context, refreshToken, organizationID string, from visitor) (*Authentication, error) {
	auth, err := c.authenticate(ctx, grant{
		GrantType: "refresh_token", RefreshToken: refreshToken, OrganizationID: organizationID, visitor: from,
	})
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	return auth, nil
}

func (c *Client) authenticate(ctx context.Context, g grant) (*Authentication, error) {
	g.ClientID, g.ClientSecret = c.clientID, c.apiKey

	var auth Authentication
	if err := c.call(ctx, http.MethodPost, "/user_management/authenticate", g, &auth); err != nil {
		return nil, err
	}
	if auth.User.ID == "" || auth.AccessToken == "" || auth.RefreshToken == "" {
		return nil, errors.New("the reply lacks the user or a token")
	}
	return &auth, nil
}

// keySet fetches the client's public keys, a JWK set (RFC 7517, section 5).
func (c *Client) keySet(ctx context.Context) ([]byte, error) {
	body, err := c.do(ctx, http.MethodGet, "/sso/jwks/"+url.PathEscape(c.clientID), nil)
	if err != nil {
		return nil, fmt.Errorf("fetch key set: %w", err)
	}
	return body, nil
}

// User returns a user of the environment as WorkOS knows them now
// (https://workos.com/docs/reference/authkit/user/get).
func (c *Client) User(ctx context.Context, userID string) (*User, error) {
	var user User
	if err := c.call(ctx, http.MethodGet, "/user_management/users/"+url.PathEscape(userID), nil, &user); err != nil {
		return nil, fmt.Errorf("authkit: get user: %w", err)
	}
	return &user, nil
}

// RevokeSession ends a session at WorkOS
// (https://workos.com/docs/reference/authkit/session/revoke). Its access tokens
// stay valid until they expire; the next refresh signs the user out. A session
// that is over already is an *APIError with status 404.
func (c *Client) RevokeSession(ctx context.Context, sessionID string) error {
	body := map[string]string{"session_id": sessionID}
	if err := c.call(ctx, http.MethodPost, "/user_management/sessions/revoke", body, nil); err != nil {
		return fmt.Errorf("authkit: revoke session: %w", err)
	}
	return nil
}

// call sends body as JSON and decodes the reply into reply; either may be nil.
func (c *Client) call(ctx context.Context, method, path string, body, reply any) error {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return err
		}
	}
	b, err := c.do(ctx, method, path, encoded)
	if err != nil || reply == nil {
		return err
	}
	if err := unmarshalLoosely(b, reply); err != nil {
		// The error of encoding/json may quote the reply, which holds tokens.
		return errors.New("the reply is not the JSON that WorkOS documents")
	}
	return nil
}

// do returns the body of a reply with status 200, and an *APIError for any
// other.
func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, method, c.baseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "authkit-go")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// The key set is public: whatever serves it need not see the key.
	if !strings.HasPrefix(path, "/sso/jwks/") {
		req.Header.Set("Authorization", "Bearer "+c.apiKey)
	}

	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()

	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, fmt.Errorf("read reply: %w", err)
	}
	if len(b) > maxReply {
		return nil, fmt.Errorf("the reply is longer than %d bytes", maxReply)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, newAPIError(resp, b)
	}
	return b, nil
}

// newAPIError reads either of the two envelopes that WorkOS wraps errors in, and
// makes do with neither: proxies answer in HTML.
func newAPIError(resp *http.Response, body []byte) *APIError {
	var envelope struct {
		Error            string `json:"error"`
		ErrorDescription string `json:"error_description"`
		Code             string `json:"code"`
		Message          string `json:"message"`
	}
	e := &APIError{
		StatusCode: resp.StatusCode,
		RequestID:  plainCode(resp.Header.Get("X-Request-ID"), ""),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
	}
	if json.Unmarshal(body, &envelope) != nil {
		return e
	}
	e.Code, e.Description = envelope.Error, envelope.ErrorDescription
	if e.Code == "" {
		e.Code = envelope.Code
	}
	if e.Description == "" {
		e.Description = envelope.Message
	}
	e.Code = plainCode(e.Code, "")
	return e
}

// retryAfter reads a Retry-After header in either of its forms (RFC 9110,
// section 10.2.3). What it cannot read is a second, what is absent zero.
func retryAfter(v string) time.Duration {
	if v == "" {
		return 0
	}
	wait := time.Second
	if seconds, err := strconv.ParseInt(v, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		wait = time.Until(at)
	}
	return max(wait, time.Second)
}
