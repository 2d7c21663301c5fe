package main

import (
	"fmt"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// greeting introduces the built-in WorkOS, whose address it wants.
const greeting = `Behind it is a built-in WorkOS, at %s. It asks for no
password, and forgets everything when it stops. Its users:

  ada@orchard.example  administrator of Orchard Ltd
  bo@orchard.example   member of Orchard Ltd
  cy@quarry.example    in two organizations, and asked which
  dee@orchard.example  impersonated by support@example.com the first time

To use yours, set WORKOS_API_KEY, WORKOS_CLIENT_ID, WORKOS_REDIRECT_URI and
WORKOS_COOKIE_PASSWORD, in the environment or in .env.

`

// startWorkOS starts a WorkOS on a port of its own and returns the options to use
// it with. It is for an application on the same machine.
func startWorkOS(appURL string) (authkit.Options, *authkittest.WorkOS, error) {
	workos := authkittest.New()
	seed(workos)
	if err := workos.Listen("localhost:0"); err != nil {
		return authkit.Options{}, nil, fmt.Errorf("built-in WorkOS: %w", err)
	}

	opts := workos.Options()
	opts.RedirectURI = appURL + callbackPath
	opts.LogoutReturnTo = appURL + "/"
	return opts, workos, nil
}

// seed adds somebody for every page of the application.
func seed(workos *authkittest.WorkOS) {
	// Short, so that one can watch the refresh.
	workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = time.Minute })

	orchard := workos.AddOrganization(authkittest.Organization{
		ID:           "org_orchard",
		Name:         "Orchard Ltd",
		Entitlements: []string{"audit-logs", "sso"},
		FeatureFlags: []string{"new-reports"},
	}).ID
	quarry := workos.AddOrganization(authkittest.Organization{
		ID:           "org_quarry",
		Name:         "Quarry Inc",
		FeatureFlags: []string{"bulk-export"},
	}).ID

	admin := authkittest.Membership{Role: "admin", Permissions: []string{"billing:manage", "members:invite", "members:remove", "reports:read", "reports:write"}}
	member := authkittest.Membership{Role: "member", Permissions: []string{"reports:read", "reports:write"}}
	guest := authkittest.Membership{Role: "guest", Permissions: []string{"reports:read"}}

	ada := addUser(workos, "Ada", "Park", "ada@orchard.example")
	join(workos, ada, orchard, admin)
	bo := addUser(workos, "Bo", "Lind", "bo@orchard.example")
	join(workos, bo, orchard, member)
	cy := addUser(workos, "Cy", "Moreno", "cy@quarry.example")
	join(workos, cy, orchard, guest)
	join(workos, cy, quarry, admin)
	dee := addUser(workos, "Dee", "Okafor", "dee@orchard.example")
	join(workos, dee, orchard, member)
	workos.Impersonate("dee@orchard.example", "support@example.com", "ticket 42")
}

// addUser returns the new user's id.
func addUser(workos *authkittest.WorkOS, first, last, email string) string {
	return workos.AddUser(authkittest.User{FirstName: first, LastName: last, Email: email, EmailVerified: true}).ID
}

// join makes a user a member like another.
func join(workos *authkittest.WorkOS, userID, organizationID string, like authkittest.Membership) {
	like.UserID, like.OrganizationID = userID, organizationID
	workos.AddMembership(like)
}
