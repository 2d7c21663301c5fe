package authkittest

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The states of a session, as the API names them.
const (
	active  = "active"
	expired = "expired"
	revoked = "revoked"
)

// session is a session of the application, from the exchange of a code to a
// logout, a revocation or its expiry.
type session struct {
	id                    string
	userID                string
	organizationID        string // of the sign-in
	currentOrganizationID string // of the last token
	method                string // authentication_method
	impersonator          *impersonator
	ssoIn, mfaIn          string // the organization whose demand the sign-in met
	ipAddress, userAgent  string
	browser               string // the hosted session it comes from
	public                bool   // refreshed without a client secret

	authTime  time.Time
	createdAt time.Time
	activeAt  time.Time // the last exchange or refresh
	endedAt   time.Time

	retired []*refreshToken // whose replies may still be replayed, oldest first
}

func (s *session) status(settings Settings) string {
	lifetime, timeout := settings.SessionLifetime, settings.InactivityTimeout
	switch {
	case !s.endedAt.IsZero():
		return revoked
	case lifetime > 0 && time.Since(s.createdAt) >= lifetime, timeout > 0 && time.Since(s.activeAt) >= timeout:
		return expired
	}
	return active
}

// newSession is the session that a sign-in leads to. WorkOS does not have it yet.
func (w *WorkOS) newSession(c *code, r *tokenRequest) *session {
	now := time.Now()
	s := &session{
		id:             newID("session_"),
		userID:         c.userID,
		organizationID: c.organizationID,
		method:         c.method,
		impersonator:   c.impersonator,
		ipAddress:      r.IPAddress,
		userAgent:      r.UserAgent,
		browser:        c.browser,
		public:         c.public,
		authTime:       c.authTime,
		createdAt:      now,
		activeAt:       now,
	}
	// The hosted page sends the user to the identity provider, or to enrol a
	// second factor, where the organization says so.
	if w.methodIn(c.organizationID, c.method) == "SSO" {
		s.ssoIn = c.organizationID
	}
	if o := w.organizations[c.organizationID]; o != nil && o.RequireMFA {
		s.mfaIn = o.ID
	}
	return s
}

// startSessionAs signs a user in without a browser, and returns the reply of the
// token endpoint.
func (w *WorkOS) startSessionAs(email, organizationID string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()

	user := w.userByEmail(email)
	if user == nil {
		return nil, unknownUser(email)
	}
	if organizationID == "" {
		organizationID = w.firstOrganization(user.ID)
	} else if w.membership(user.ID, organizationID) == nil {
		return nil, fmt.Errorf("authkittest: %s is not a member of the organization %q", email, organizationID)
	}

	c := &code{
		userID:         user.ID,
		organizationID: organizationID,
		method:         w.methodIn(organizationID, "Password"),
		authTime:       time.Now(),
	}
	w.impersonated(c, w.takeImpersonator(user))
	reply, fail := w.startSession(c, &tokenRequest{})
	if fail != nil {
		return nil, fmt.Errorf("authkittest: the token endpoint answers %d %s", fail.status, encode(fail.body))
	}
	return reply, nil
}

func unknownUser(email string) error {
	return fmt.Errorf("authkittest: no user has the address %q: AddUser them first", email)
}

// firstOrganization is where a sign-in goes that nobody is there to choose for.
func (w *WorkOS) firstOrganization(userID string) string {
	for _, o := range w.organizationsOf(userID) {
		return o.ID
	}
	return ""
}

// methodIn is the authentication_method of a sign-in to an organization.
func (w *WorkOS) methodIn(organizationID, method string) string {
	if o := w.organizations[organizationID]; o != nil && o.RequireSSO {
		return "SSO"
	}
	return method
}

// impersonated makes a sign-in an impersonation, unless by is nil.
func (w *WorkOS) impersonated(c *code, by *impersonator) {
	if by != nil {
		c.impersonator, c.method = by, "Impersonation"
	}
}

// Revoke ends a session, as an administrator would in the dashboard, and tells
// whether there was one to end. Access tokens stay valid until they expire; the
// next login of that browser asks again.
func (w *WorkOS) Revoke(sessionID string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.end(sessionID)
}

// end ends a session, and with it the browser's at WorkOS: the next login asks
// again.
func (w *WorkOS) end(sessionID string) bool {
	s := w.sessions[sessionID]
	if s == nil || s.status(w.settings) != active {
		return false
	}
	s.endedAt = time.Now()
	s.forgetReplies(-1)
	delete(w.browsers, s.browser)
	return true
}

// ActiveSessions returns the ids of the sessions that can be refreshed, oldest
// first.
func (w *WorkOS) ActiveSessions() []string {
	w.mu.Lock()
	defer w.mu.Unlock()

	var ids []string
	for _, s := range w.order {
		if s.status(w.settings) == active {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// serveLogout answers GET /user_management/sessions/logout. Whoever knows the
// session id may end the session; an unknown one is no error.
func (w *WorkOS) serveLogout(rw http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	sessionID, returnTo := query.Get("session_id"), query.Get("return_to")
	if sessionID == "" {
		w.refusePage(rw, r, plainFailure(http.StatusUnprocessableEntity, "invalid_request", "session_id is required"))
		return
	}
	if returnTo != "" && !allowed(returnTo, w.settings.LogoutRedirectURIs) {
		w.refusePage(rw, r, plainFailure(http.StatusBadRequest, "invalid_redirect_uri",
			"return_to is not registered as a sign-out redirect: "+returnTo))
		return
	}

	if s := w.sessions[sessionID]; s != nil {
		w.forgetBrowser(rw, r, s.browser)
	}
	w.end(sessionID)
	if returnTo == "" && len(w.settings.LogoutRedirectURIs) > 0 {
		returnTo = w.settings.LogoutRedirectURIs[0]
	}
	if returnTo == "" {
		w.page(rw, http.StatusOK, "signed-out", page{Title: "You are signed out"})
		return
	}
	redirect(rw, returnTo)
}

// serveRevoke answers POST /user_management/sessions/revoke.
func (w *WorkOS) serveRevoke(rw http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	sessionID, _ := body["session_id"].(string)
	switch {
	case err != nil:
		refuse(rw, plainFailure(http.StatusBadRequest, "invalid_request_body", "Problems parsing JSON"))
	case sessionID == "":
		refuse(rw, plainFailure(http.StatusBadRequest, "invalid_request", "session_id is required"))
	case !w.end(sessionID):
		refuse(rw, plainFailure(http.StatusNotFound, "not_found", "Session not found"))
	default:
		writeJSON(rw, http.StatusOK, map[string]bool{"success": true})
	}
}

// sessionJSON is a session as the API tells one.
type sessionJSON struct {
	Object         string        `json:"object"`
	ID             string        `json:"id"`
	UserID         string        `json:"user_id"`
	OrganizationID *string       `json:"organization_id"`
	IPAddress      *string       `json:"ip_address"`
	UserAgent      *string       `json:"user_agent"`
	AuthMethod     string        `json:"auth_method"`
	Status         string        `json:"status"`
	ExpiresAt      *string       `json:"expires_at"`
	EndedAt        *string       `json:"ended_at"`
	Impersonator   *impersonator `json:"impersonator,omitempty"`
	CreatedAt      *string       `json:"created_at"`
	UpdatedAt      *string       `json:"updated_at"`
}

func (w *WorkOS) sessionJSON(s *session) sessionJSON {
	// expires_at is never null: without a limit of our own it is a year away.
	lifetime := w.settings.SessionLifetime
	if lifetime == 0 {
		lifetime = 365 * 24 * time.Hour
	}
	return sessionJSON{
		Object:         "session",
		ID:             s.id,
		UserID:         s.userID,
		OrganizationID: orNull(s.currentOrganizationID),
		IPAddress:      orNull(s.ipAddress),
		UserAgent:      orNull(s.userAgent),
		AuthMethod:     authMethod(s.method),
		Status:         s.status(w.settings),
		ExpiresAt:      w.timestamp(s.createdAt.Add(lifetime)),
		EndedAt:        w.timestamp(s.endedAt),
		Impersonator:   s.impersonator,
		CreatedAt:      w.timestamp(s.createdAt),
		UpdatedAt:      w.timestamp(cmp.Or(s.endedAt, s.activeAt)),
	}
}

// authMethod is what a session calls an authentication_method.
func authMethod(method string) string {
	switch {
	case strings.HasSuffix(method, "OAuth"):
		return "oauth"
	case method == "MagicAuth":
		return "magic_code"
	}
	return strings.ToLower(method) // password, sso, impersonation
}

// list is a page of a list.
type list struct {
	Object       string        `json:"object"`
	Data         []sessionJSON `json:"data"`
	ListMetadata struct {
		Before *string `json:"before"`
		After  *string `json:"after"`
	} `json:"list_metadata"`
}

// serveUserSessions answers GET /user_management/users/{id}/sessions: those that
// are active, the newest first unless order is asc.
func (w *WorkOS) serveUserSessions(rw http.ResponseWriter, r *http.Request) {
	if w.users[r.PathValue("id")] == nil {
		refuse(rw, userNotFound())
		return
	}
	var of []sessionJSON
	for _, s := range w.order {
		if s.userID == r.PathValue("id") && s.status(w.settings) == active {
			of = append(of, w.sessionJSON(s))
		}
	}
	reply, err := paginate(of, r.URL.Query())
	if err != nil {
		refuse(rw, invalidParameter("query", err.Error()))
		return
	}
	writeJSON(rw, http.StatusOK, reply)
}

// paginate cuts a list, given oldest first, as limit, order, before and after
// say.
func paginate(all []sessionJSON, query url.Values) (*list, error) {
	limit, err := strconv.Atoi(cmp.Or(query.Get("limit"), "10"))
	if err != nil || limit < 1 || limit > 100 {
		return nil, errors.New("limit must be a number from 1 to 100")
	}
	switch cmp.Or(query.Get("order"), "desc") {
	case "asc":
	case "desc":
		slices.Reverse(all)
	default:
		return nil, errors.New("order must be asc or desc")
	}

	at := func(id string) int {
		return slices.IndexFunc(all, func(s sessionJSON) bool { return s.ID == id })
	}
	from, to := 0, len(all)
	if i := at(query.Get("after")); i >= 0 {
		from = i + 1
	}
	if i := at(query.Get("before")); i >= 0 {
		to = i
		from = max(from, to-limit)
	}
	to = min(to, from+limit)

	page := &list{Object: "list", Data: append([]sessionJSON{}, all[from:max(from, to)]...)}
	if len(page.Data) > 0 && from > 0 {
		page.ListMetadata.Before = &page.Data[0].ID
	}
	if n := len(page.Data); n > 0 && to < len(all) {
		page.ListMetadata.After = &page.Data[n-1].ID
	}
	return page, nil
}
