package authkittest

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// User is somebody who can sign in. What is empty the API tells as null.
type User struct {
	ID                string // "user_…"; the default is a new one
	Email             string // found whatever its case
	EmailVerified     bool
	FirstName         string
	LastName          string
	Name              string
	ProfilePictureURL string
	ExternalID        string
	Locale            string
	Metadata          map[string]string

	CreatedAt    time.Time // the default is now
	UpdatedAt    time.Time // set by AddUser and UpdateUser
	LastSignInAt time.Time // set by every sign-in
}

// Organization is a customer of the application, of which users are members.
type Organization struct {
	ID           string // "org_…"; the default is a new one
	Name         string
	Entitlements []string // a claim of every token in the organization
	FeatureFlags []string // a claim of every token in the organization

	// RequireSSO and RequireMFA turn away a session that did not meet them when
	// its user signed in: refreshing it into the organization, or within it once
	// the demand is there, answers sso_required or mfa_enrollment. Signing in to
	// the organization meets both.
	RequireSSO, RequireMFA bool
}

// Membership puts a user into an organization.
type Membership struct {
	UserID         string
	OrganizationID string
	Role           string   // the highest one; the default is "member"
	Roles          []string // the default is Role alone
	Permissions    []string
}

// impersonator is a member of staff who acts as a user.
type impersonator struct {
	Email  string  `json:"email"`
	Reason *string `json:"reason"`
}

// AddUser adds u and returns it with its id and its times filled in. A user of
// the same id, or without an id one of the same address, is replaced.
func (w *WorkOS) AddUser(u User) User {
	w.mu.Lock()
	defer w.mu.Unlock()

	added := *w.putUser(u)
	added.Metadata = u.Metadata // the caller's own
	return added
}

// UpdateUser replaces the user with the id of u, as an edit in the dashboard
// would; access tokens and sealed sessions learn of it at their next refresh.
func (w *WorkOS) UpdateUser(u User) { w.AddUser(u) }

func (w *WorkOS) putUser(u User) *User {
	address := strings.ToLower(u.Email)
	u.ID = cmp.Or(u.ID, w.byEmail[address], newID("user_"))
	u.Metadata = maps.Clone(u.Metadata)
	u.UpdatedAt = time.Now()

	if old := w.users[u.ID]; old != nil {
		delete(w.byEmail, strings.ToLower(old.Email))
		u.CreatedAt = cmp.Or(u.CreatedAt, old.CreatedAt)
		u.LastSignInAt = cmp.Or(u.LastSignInAt, old.LastSignInAt)
	} else {
		u.CreatedAt = cmp.Or(u.CreatedAt, u.UpdatedAt)
		w.userOrder = append(w.userOrder, u.ID)
	}
	w.users[u.ID] = &u
	if address != "" {
		w.byEmail[address] = u.ID
	}
	return &u
}

// userByEmail returns nil where nobody has the address.
func (w *WorkOS) userByEmail(email string) *User {
	return w.users[w.byEmail[strings.ToLower(strings.TrimSpace(email))]]
}

// AddOrganization adds o and returns it with its id filled in. An organization
// of the same id is replaced, its members stay.
func (w *WorkOS) AddOrganization(o Organization) Organization {
	w.mu.Lock()
	defer w.mu.Unlock()

	o.ID = cmp.Or(o.ID, newID("org_"))
	kept := o
	kept.Entitlements = slices.Clone(o.Entitlements)
	kept.FeatureFlags = slices.Clone(o.FeatureFlags)
	w.organizations[o.ID] = &kept
	return o
}

// AddMembership makes a user a member of an organization, or changes the role
// and the permissions of one who is.
func (w *WorkOS) AddMembership(m Membership) {
	m.Role = cmp.Or(m.Role, "member")
	m.Roles = slices.Clone(m.Roles)
	if len(m.Roles) == 0 {
		m.Roles = []string{m.Role}
	}
	m.Permissions = slices.Clone(m.Permissions)

	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.membership(m.UserID, m.OrganizationID); old != nil {
		*old = m
		return
	}
	w.memberships[m.UserID] = append(w.memberships[m.UserID], &m)
}

// RemoveMembership takes a user out of an organization. Sessions in it learn of
// it at their next refresh: organization_membership_not_found.
func (w *WorkOS) RemoveMembership(userID, organizationID string) {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.memberships[userID] = slices.DeleteFunc(w.memberships[userID], func(m *Membership) bool {
		return m.OrganizationID == organizationID
	})
}

// membership returns nil where the user is not a member.
func (w *WorkOS) membership(userID, organizationID string) *Membership {
	for _, m := range w.memberships[userID] {
		if m.OrganizationID == organizationID {
			return m
		}
	}
	return nil
}

// Impersonate makes the next sign-in as email an impersonation by the support
// address by, as starting one in the dashboard would. The reason may be empty.
func (w *WorkOS) Impersonate(email, by, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.impersonators[strings.ToLower(email)] = &impersonator{by, orNull(reason)}
}

// takeImpersonator returns who impersonates the user at this sign-in, or nil.
func (w *WorkOS) takeImpersonator(u *User) *impersonator {
	address := strings.ToLower(u.Email)
	by := w.impersonators[address]
	delete(w.impersonators, address)
	return by
}

// connectionID is the SSO connection of an organization.
func connectionID(organizationID string) string {
	return "conn_" + strings.TrimPrefix(organizationID, "org_")
}

func (w *WorkOS) organizationByConnection(id string) *Organization {
	for _, o := range w.organizations {
		if connectionID(o.ID) == id {
			return o
		}
	}
	return nil
}

// organizationJSON is an organization as an error lists it.
type organizationJSON struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// organizationsOf lists what a user is a member of.
func (w *WorkOS) organizationsOf(userID string) []organizationJSON {
	var list []organizationJSON
	for _, m := range w.memberships[userID] {
		if o := w.organizations[m.OrganizationID]; o != nil {
			list = append(list, organizationJSON{o.ID, o.Name})
		}
	}
	return list
}

// userJSON is a user as the API tells one.
type userJSON struct {
	Object            string            `json:"object"`
	ID                string            `json:"id"`
	Email             string            `json:"email"`
	EmailVerified     bool              `json:"email_verified"`
	FirstName         *string           `json:"first_name"`
	LastName          *string           `json:"last_name"`
	Name              *string           `json:"name"`
	ProfilePictureURL *string           `json:"profile_picture_url"`
	LastSignInAt      *string           `json:"last_sign_in_at"`
	ExternalID        *string           `json:"external_id"`
	Metadata          map[string]string `json:"metadata"`
	Locale            *string           `json:"locale"`
	CreatedAt         *string           `json:"created_at"`
	UpdatedAt         *string           `json:"updated_at"`
}

func (w *WorkOS) userJSON(u *User) *userJSON {
	metadata := u.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	return &userJSON{
		Object:            "user",
		ID:                u.ID,
		Email:             u.Email,
		EmailVerified:     u.EmailVerified,
		FirstName:         orNull(u.FirstName),
		LastName:          orNull(u.LastName),
		Name:              orNull(u.Name),
		ProfilePictureURL: orNull(u.ProfilePictureURL),
		LastSignInAt:      w.timestamp(u.LastSignInAt),
		ExternalID:        orNull(u.ExternalID),
		Metadata:          metadata,
		Locale:            orNull(u.Locale),
		CreatedAt:         w.timestamp(u.CreatedAt),
		UpdatedAt:         w.timestamp(u.UpdatedAt),
	}
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// serveUser answers GET /user_management/users/{id}.
func (w *WorkOS) serveUser(rw http.ResponseWriter, r *http.Request) {
	user := w.users[r.PathValue("id")]
	if user == nil {
		refuse(rw, userNotFound())
		return
	}
	writeJSON(rw, http.StatusOK, w.userJSON(user))
}

func userNotFound() *failure {
	return plainFailure(http.StatusNotFound, "not_found", "User not found")
}
