package authkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"
)

// Session is a signed-in user, as the verified access token and the sealed
// cookie tell it.
//
// One Session is shared by all requests that carry its cookie: treat it as
// read-only. Appending to its slices copies them; changing their elements would
// be seen by others. Encoding it as JSON, printing it or logging it never shows a
// token.
type Session struct {
	ID                   string        `json:"id"`                              // sid: what WorkOS revokes and logs out
	User                 User          `json:"user"`                            // as of the last login or refresh
	OrganizationID       string        `json:"organization_id,omitempty"`       // org_id: empty outside an organization
	Role                 string        `json:"role,omitempty"`                  // role: the highest one in the organization
	Roles                []string      `json:"roles,omitempty"`                 // roles
	Permissions          []string      `json:"permissions,omitempty"`           // permissions
	Entitlements         []string      `json:"entitlements,omitempty"`          // entitlements
	FeatureFlags         []string      `json:"feature_flags,omitempty"`         // feature_flags
	Impersonator         *Impersonator `json:"impersonator,omitempty"`          // act: nil unless someone acts as the user
	AuthenticationMethod string        `json:"authentication_method,omitempty"` // "SSO", "Password", "GoogleOAuth", …
	AuthenticatedAt      time.Time     `json:"authenticated_at,omitzero"`       // auth_time: zero where the token has none
	ExpiresAt            time.Time     `json:"expires_at"`                      // exp of the access token, not of the session

	token        *token // the access token; nil in a session made for tests
	refreshToken string
	refreshAt    time.Time // when the access token nears its expiry; see Options.RefreshBefore
	owner        *Kit      // whose it is: another kit's session is none of ours
}

// User is a WorkOS user. Fields that WorkOS sends as null are empty.
type User struct {
	ID                string    `json:"id"` // "user_…": the subject of the access token
	Email             string    `json:"email"`
	EmailVerified     bool      `json:"email_verified"`
	FirstName         string    `json:"first_name,omitempty"`
	LastName          string    `json:"last_name,omitempty"`
	Name              string    `json:"name,omitempty"`
	ProfilePictureURL string    `json:"profile_picture_url,omitempty"`
	ExternalID        string    `json:"external_id,omitempty"` // your own identifier, if you gave WorkOS one
	Locale            string    `json:"locale,omitempty"`
	LastSignInAt      time.Time `json:"last_sign_in_at,omitzero"`
	CreatedAt         time.Time `json:"created_at,omitzero"`
	UpdatedAt         time.Time `json:"updated_at,omitzero"`

	metadata map[string]string
}

// Impersonator is the member of the application's staff who acts as the user
// (https://workos.com/docs/user-management/impersonation).
type Impersonator struct {
	Email  string `json:"email"`
	Reason string `json:"reason,omitempty"`
}

// AccessToken returns the verified access token, a JWT, for calls to services
// that check it themselves. It is valid until ExpiresAt.
func (s *Session) AccessToken() string {
	if s.token == nil {
		return ""
	}
	return s.token.raw
}

// Claims decodes the payload of the verified access token into dst, as
// json.Unmarshal does: for what a JWT template adds.
func (s *Session) Claims(dst any) error {
	if s.token == nil {
		return errors.New("authkit: decode claims: the session has no access token")
	}
	_, payload, _, err := decodeToken(s.token.raw)
	if err == nil {
		err = json.Unmarshal(payload, dst)
	}
	if err != nil {
		return fmt.Errorf("authkit: decode claims: %w", err)
	}
	return nil
}

// Format prints whose session it is, and no token, for every verb.
func (s Session) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "session %s of %s", s.ID, s.User.ID)
}

// LogValue logs whose session it is, and no token.
func (s Session) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", s.ID), slog.String("user", s.User.ID))
}

// Metadata returns a copy of the user's metadata: at most 50 keys, set by the
// application at WorkOS.
func (u User) Metadata() map[string]string { return maps.Clone(u.metadata) }

// userFields has the fields of User without its methods, so that its JSON forms
// can be built on them.
type userFields User

// MarshalJSON encodes the user under the names that WorkOS uses, its metadata
// among them.
func (u User) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		userFields
		Metadata map[string]string `json:"metadata,omitempty"`
	}{userFields(u), u.metadata})
}

// UnmarshalJSON decodes a user as WorkOS sends it. A field of another type than
// documented is left empty: nobody should fail to sign in for a date.
func (u *User) UnmarshalJSON(b []byte) error {
	var decoded struct {
		userFields
		Metadata     map[string]string `json:"metadata"`
		LastSignInAt looseTime         `json:"last_sign_in_at"`
		CreatedAt    looseTime         `json:"created_at"`
		UpdatedAt    looseTime         `json:"updated_at"`
	}
	if err := unmarshalLoosely(b, &decoded); err != nil {
		return err
	}
	*u = User(decoded.userFields)
	u.metadata = decoded.Metadata
	u.LastSignInAt, u.CreatedAt, u.UpdatedAt = time.Time(decoded.LastSignInAt), time.Time(decoded.CreatedAt), time.Time(decoded.UpdatedAt)
	return nil
}

// looseTime is a time that is zero where it is not RFC 3339.
type looseTime time.Time

func (t *looseTime) UnmarshalJSON(b []byte) error {
	_ = (*time.Time)(t).UnmarshalJSON(b)
	return nil
}

// unmarshalLoosely is json.Unmarshal that leaves out what has another type than
// its field.
func unmarshalLoosely(b []byte, dst any) error {
	err := json.Unmarshal(b, dst)
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		return nil // encoding/json has gone on with the rest
	}
	return err
}

// newSession joins what WorkOS said of the user and what the token claims.
func (k *Kit) newSession(auth *Authentication, t *token) *Session {
	s := &Session{
		ID:                   t.sessionID,
		User:                 auth.User,
		OrganizationID:       t.organizationID,
		Role:                 t.role,
		Roles:                t.roles,
		Permissions:          t.permissions,
		Entitlements:         t.entitlements,
		FeatureFlags:         t.featureFlags,
		Impersonator:         auth.Impersonator,
		AuthenticationMethod: auth.AuthenticationMethod,
		AuthenticatedAt:      t.authenticatedAt,
		ExpiresAt:            t.expiresAt,
		token:                t,
		refreshToken:         auth.RefreshToken,
		refreshAt:            t.expiresAt.Add(-k.refreshMargin(t.lifetime())),
		owner:                k,
	}
	if s.Impersonator == nil && t.actor != "" {
		s.Impersonator = &Impersonator{Email: t.actor}
	}
	return s
}

// unverifiedSession is newSession for a token that is not verified. One that does
// not even parse counts as expired: the refresh token is good all the same. There
// is no session if the token is another user's.
func (k *Kit) unverifiedSession(auth *Authentication) (*Session, bool) {
	t, err := parseToken(auth.AccessToken)
	if err != nil {
		t = &token{raw: auth.AccessToken}
	}
	return k.newSession(auth, t), t.subject == "" || t.subject == auth.User.ID
}

// refreshMargin returns how long before its expiry a token of the given life is
// refreshed: Options.RefreshBefore, bounded so that a token is left alone for
// three quarters of its life.
func (k *Kit) refreshMargin(lifetime time.Duration) time.Duration {
	margin := k.refreshBefore
	switch {
	case margin < 0:
		return 0
	case margin == 0 && lifetime <= 5*time.Minute:
		margin = 30 * time.Second
	case margin == 0:
		margin = time.Minute
	}
	return min(margin, lifetime/4)
}

// fresh reports whether the session can be served as it is, without a thought
// of refreshing it.
func (s *Session) fresh(now time.Time) bool { return now.Before(s.refreshAt) }

// alive reports whether the access token has not expired (RFC 7519, section
// 4.1.4). No skew is granted: what reads the token downstream grants none.
func (s *Session) alive(now time.Time) bool { return now.Before(s.ExpiresAt) }

type sessionKey struct{}

// SessionFromContext returns the session that WithAuth or WithOptionalAuth put
// into the request's context. It is false where nobody is signed in, and behind
// no middleware of a Kit.
func SessionFromContext(ctx context.Context) (*Session, bool) {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s, s != nil
}

// ContextWithSession returns a context that carries a session, to test handlers
// that call SessionFromContext. Most applications need it nowhere else.
func ContextWithSession(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}
