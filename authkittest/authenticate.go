package authkittest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// codeLifetime is how long an authorization code can be exchanged, and how long
// a pending authentication can be completed.
const codeLifetime = 10 * time.Minute

const organizationSelection = "urn:workos:oauth:grant-type:organization-selection"

// code is an authorization code, or an authentication that waits for the choice
// of an organization: a sign-in that is not a session yet.
type code struct {
	userID         string
	organizationID string
	choose         bool // an organization, before there is a session
	method         string
	challenge      string // code_challenge; empty without PKCE
	impersonator   *impersonator
	authTime       time.Time
	issuedAt       time.Time
	browser        string // the hosted session it comes from
	public         bool   // exchanged without a client secret
}

func (c *code) expired() bool { return time.Since(c.issuedAt) > codeLifetime }

// refreshToken is a refresh token and, once it was traded in, what for.
type refreshToken struct {
	session        *session
	retiredAt      time.Time // zero: good
	organizationID string    // as sent when it was traded in
	reply          []byte    // nil once the replay window has passed
}

// tokenRequest is the body of a token request.
type tokenRequest struct {
	GrantType    string
	ClientID     string
	ClientSecret string

	Code         string
	CodeVerifier string

	RefreshToken   string
	OrganizationID string

	PendingAuthenticationToken string

	IPAddress string
	UserAgent string

	header http.Header
}

// authenticationJSON is a successful reply. There is no expires_in.
type authenticationJSON struct {
	User                 *userJSON     `json:"user"`
	OrganizationID       string        `json:"organization_id,omitempty"`
	AccessToken          string        `json:"access_token"`
	RefreshToken         string        `json:"refresh_token"`
	AuthenticationMethod string        `json:"authentication_method,omitempty"`
	Impersonator         *impersonator `json:"impersonator,omitempty"`
}

// serveAuthenticate answers POST /user_management/authenticate, the token
// endpoint.
func (w *WorkOS) serveAuthenticate(rw http.ResponseWriter, r *http.Request) {
	request, fail := readTokenRequest(r)
	if fail != nil {
		refuse(rw, fail)
		return
	}
	reply, fail := w.authenticate(request)
	if fail != nil {
		refuse(rw, fail)
		return
	}
	writeBody(rw, http.StatusOK, reply)
}

func (w *WorkOS) authenticate(r *tokenRequest) ([]byte, *failure) {
	grant := map[string]func(*tokenRequest) ([]byte, *failure){
		"authorization_code":  w.exchange,
		"refresh_token":       w.refreshSession,
		organizationSelection: w.selectOrganization,
	}[r.GrantType]
	switch {
	case r.GrantType == "":
		return nil, oauthFailure("invalid_request", "grant_type is required.")
	case grant == nil:
		return nil, oauthFailure("invalid_request", "The grant type is not supported: "+r.GrantType)
	}
	if fail := w.checkClient(r); fail != nil {
		return nil, fail
	}
	return grant(r)
}

// checkClient checks the credentials. A wrong key in the header counts, but a
// right one there does not replace client_secret.
func (w *WorkOS) checkClient(r *tokenRequest) *failure {
	if r.ClientID == "" {
		return oauthFailure("invalid_request", "client_id is required.")
	}
	if r.ClientID != w.settings.ClientID {
		return oauthFailure("invalid_client", "Invalid client ID.")
	}
	if r.ClientSecret != "" && r.ClientSecret != w.settings.APIKey {
		return unauthorized()
	}
	if h := r.header.Get("Authorization"); h != "" && h != "Bearer "+w.settings.APIKey {
		return unauthorized()
	}
	return nil
}

// exchange trades an authorization code. A client that got its verifier or its
// secret wrong has not used it up.
func (w *WorkOS) exchange(r *tokenRequest) ([]byte, *failure) {
	if r.Code == "" {
		return nil, oauthFailure("invalid_request", "code is required.")
	}
	c := w.codes[r.Code]
	if c == nil || c.expired() {
		return nil, oauthFailure("invalid_grant", fmt.Sprintf("The code '%s' has expired or is invalid.", r.Code))
	}
	if fail := c.checkVerifier(r.CodeVerifier); fail != nil {
		return nil, fail
	}
	if r.ClientSecret == "" && c.challenge == "" {
		return nil, oauthFailure("invalid_request", "client_secret is required.")
	}
	if fail := w.limitSignIns(w.users[c.userID].Email); fail != nil {
		return nil, fail
	}

	delete(w.codes, r.Code)
	c.public = r.ClientSecret == ""
	return w.startSession(c, r)
}

// checkVerifier checks the code verifier: RFC 7636, section 4.6.
func (c *code) checkVerifier(verifier string) *failure {
	digest := sha256.Sum256([]byte(verifier))
	switch {
	case c.challenge == "" && verifier != "":
		return plainFailure(http.StatusBadRequest, "code_challenge_not_found",
			"A code verifier was given, but the authorization request had no code challenge.")
	case c.challenge != "" && verifier == "":
		return oauthFailure("invalid_request", "code_verifier is required.")
	case c.challenge != "" && base64.RawURLEncoding.EncodeToString(digest[:]) != c.challenge:
		return oauthFailure("invalid_grant", "The code verifier does not match the code challenge.")
	}
	return nil
}

// selectOrganization completes an authentication that was answered
// organization_selection_required.
func (w *WorkOS) selectOrganization(r *tokenRequest) ([]byte, *failure) {
	if r.ClientSecret == "" {
		return nil, oauthFailure("invalid_request", "client_secret is required.")
	}
	c := w.pending[r.PendingAuthenticationToken]
	if c == nil || c.expired() {
		return nil, plainFailure(http.StatusBadRequest, "invalid_pending_authentication_token",
			"The pending authentication token has expired or is invalid.")
	}
	if w.membership(c.userID, r.OrganizationID) == nil {
		return nil, w.notInOrganization(r.OrganizationID)
	}

	delete(w.pending, r.PendingAuthenticationToken)
	c.organizationID, c.choose = r.OrganizationID, false
	return w.startSession(c, r)
}

// startSession makes a session of a sign-in, or asks for its organization.
func (w *WorkOS) startSession(c *code, r *tokenRequest) ([]byte, *failure) {
	user := w.users[c.userID]
	if c.choose {
		token := newID("pending_")
		c.issuedAt = time.Now()
		w.pending[token] = c
		return nil, &failure{status: http.StatusForbidden, body: message{
			Code:                       "organization_selection_required",
			Message:                    "The user must choose an organization to finish their authentication.",
			PendingAuthenticationToken: token,
			Organizations:              w.organizationsOf(c.userID),
			User:                       w.userJSON(user),
		}}
	}

	s := w.newSession(c, r)
	user.LastSignInAt = s.createdAt
	reply, fail := w.issue(s, s.organizationID)
	if fail != nil {
		return nil, fail
	}
	w.sessions[s.id] = s
	w.order = append(w.order, s)
	return reply, nil
}

// refreshSession trades a refresh token for a new pair.
//
// The token that was traded in is answered with the very same bytes for the
// length of the replay window, as long as the session lives and the organization
// asked for is the same; otherwise it is an invalid_grant. Neither harms the pair
// that it was traded for.
//
// Without organization_id the token is for the organization of the sign-in: a
// switch lasts as long as every refresh names it, and so the SDKs always do.
func (w *WorkOS) refreshSession(r *tokenRequest) ([]byte, *failure) {
	if r.RefreshToken == "" {
		return nil, oauthFailure("invalid_request", "refresh_token is required.")
	}
	token := w.refresh[r.RefreshToken]
	if token == nil {
		return nil, oauthFailure("invalid_grant", "Invalid refresh token.")
	}
	s := token.session
	if r.ClientSecret == "" && !s.public {
		return nil, oauthFailure("invalid_request", "client_secret is required.")
	}
	if s.status(w.settings) != active {
		return nil, oauthFailure("invalid_grant", "Session has already ended.")
	}
	if !token.retiredAt.IsZero() {
		return w.replay(token, r)
	}
	organizationID, fail := w.refreshInto(s, r.OrganizationID)
	if fail != nil {
		return nil, fail
	}
	return w.rotate(token, r, organizationID)
}

func (w *WorkOS) replay(token *refreshToken, r *tokenRequest) ([]byte, *failure) {
	late := time.Since(token.retiredAt) > w.settings.ReplayWindow || w.settings.ReplayWindow == 0
	if late || token.reply == nil || token.organizationID != r.OrganizationID {
		return nil, oauthFailure("invalid_grant", "Refresh token already exchanged.")
	}
	return token.reply, nil
}

// refreshInto returns the organization that a refresh is for: the one asked for,
// if the user may enter it, or that of the sign-in.
func (w *WorkOS) refreshInto(s *session, organizationID string) (string, *failure) {
	if organizationID == "" {
		organizationID = s.organizationID
	}
	if organizationID == "" {
		return "", nil
	}
	if w.membership(s.userID, organizationID) == nil {
		return "", w.notInOrganization(organizationID)
	}
	return organizationID, w.checkDemands(s, w.organizations[organizationID])
}

func (w *WorkOS) notInOrganization(id string) *failure {
	if w.organizations[id] == nil {
		return oauthFailure("organization_not_found", fmt.Sprintf("The organization '%s' could not be found.", id))
	}
	return oauthFailure("organization_membership_not_found",
		fmt.Sprintf("The user is not a member of the organization '%s'.", id))
}

// checkDemands turns away a session whose sign-in did not meet what the
// organization demands.
func (w *WorkOS) checkDemands(s *session, o *Organization) *failure {
	demand := oauthError{
		Email:                      w.users[s.userID].Email,
		PendingAuthenticationToken: newID("pending_"),
	}
	switch {
	case o.RequireSSO && s.ssoIn != o.ID:
		demand.Error = "sso_required"
		demand.ErrorDescription = "User must authenticate using one of the matching connections."
		demand.ConnectionIDs = []string{connectionID(o.ID)}
	case o.RequireMFA && s.mfaIn != o.ID:
		demand.Error = "mfa_enrollment"
		demand.ErrorDescription = "The user must enroll in MFA to finish authenticating."
	default:
		return nil
	}
	return &failure{status: http.StatusBadRequest, body: demand}
}

// rotate retires a refresh token and remembers what it was traded for.
func (w *WorkOS) rotate(token *refreshToken, r *tokenRequest, organizationID string) ([]byte, *failure) {
	s := token.session
	previous := *s
	s.activeAt = time.Now()
	if w.settings.ChangeSessionID {
		s.id = newID("session_")
	}
	reply, fail := w.issue(s, organizationID)
	if fail != nil {
		*s = previous
		return nil, fail
	}

	w.sessions[s.id] = s
	token.retiredAt, token.organizationID, token.reply = s.activeAt, r.OrganizationID, reply
	s.forgetReplies(w.settings.ReplayWindow)
	s.retired = append(s.retired, token)
	return reply, nil
}

// forgetReplies keeps a session that is refreshed for months small.
func (s *session) forgetReplies(window time.Duration) {
	for len(s.retired) > 0 && time.Since(s.retired[0].retiredAt) > window {
		s.retired[0].reply = nil
		s.retired = s.retired[1:]
	}
}

// issue writes the reply with a new pair of tokens.
func (w *WorkOS) issue(s *session, organizationID string) ([]byte, *failure) {
	accessToken, fail := w.accessToken(s, organizationID)
	if fail != nil {
		return nil, fail
	}
	token := newID("ref_")
	w.refresh[token] = &refreshToken{session: s}
	s.currentOrganizationID = organizationID

	return encode(authenticationJSON{
		User:                 w.userJSON(w.users[s.userID]),
		OrganizationID:       organizationID,
		AccessToken:          accessToken,
		RefreshToken:         token,
		AuthenticationMethod: s.method,
		Impersonator:         s.impersonator,
	}), nil
}

// readTokenRequest reads a body of JSON or of a form.
func readTokenRequest(r *http.Request) (*tokenRequest, *failure) {
	body, err := readBody(r)
	if err != nil {
		return nil, plainFailure(http.StatusBadRequest, "invalid_request_body", "Problems parsing JSON")
	}

	request := &tokenRequest{header: r.Header}
	for name, field := range map[string]*string{
		"grant_type":                   &request.GrantType,
		"client_id":                    &request.ClientID,
		"client_secret":                &request.ClientSecret,
		"code":                         &request.Code,
		"code_verifier":                &request.CodeVerifier,
		"refresh_token":                &request.RefreshToken,
		"organization_id":              &request.OrganizationID,
		"pending_authentication_token": &request.PendingAuthenticationToken,
		"ip_address":                   &request.IPAddress,
		"user_agent":                   &request.UserAgent,
	} {
		value, ok := body[name].(string)
		if !ok && body[name] != nil {
			return nil, invalidParameter(name, name+" must be a string")
		}
		*field = value
	}
	return request, nil
}

// readBody is decodeBody for a request that ServeHTTP took in.
func readBody(r *http.Request) (map[string]any, error) {
	raw, _ := io.ReadAll(r.Body) // in memory already
	return decodeBody(r.Header, raw)
}

// decodeBody returns the members of a JSON object, or the fields of a form.
func decodeBody(header http.Header, raw []byte) (map[string]any, error) {
	mediaType, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	if mediaType != "application/x-www-form-urlencoded" {
		var body map[string]any
		err := json.Unmarshal(raw, &body)
		return body, err
	}

	form, err := url.ParseQuery(string(raw))
	body := map[string]any{}
	for name := range form {
		body[name] = form.Get(name)
	}
	return body, err
}
