// Package authkittest is httptest for AuthKit: a WorkOS that lives in the test,
// or behind the application on a developer's machine, and does what production
// does.
//
// A test seeds it with users, gives its Options to authkit.New, and gets a
// browser that is signed in:
//
//	workos := authkittest.New()
//	workos.AddUser(authkittest.User{Email: "ada@example.test", FirstName: "Ada"})
//
//	app := newApplication(workos.Options()) // your http.Handler, with a kit inside
//
//	ada, err := workos.SignIn(app, "/dashboard", "ada@example.test")
//	if err != nil {
//		t.Fatal(err)
//	}
//	resp, err := ada.Get(authkittest.AppURL + "/dashboard")
//
// No socket is opened and no time passes that the test does not want to pass: in
// a bubble of testing/synctest, time.Sleep(24 * time.Hour) takes no time, and
// tokens expire. WorkOS itself is told what to do wrong with Fail, and asked what
// reached it with Requests, Calls and MostInFlight. A test that needs another
// WorkOS than its neighbour makes another one; they share nothing but the cost of
// an RSA key.
//
// For local development, Listen on a port and print URL: whoever opens the
// application's login finds a page to sign in on, with the seeded users to choose
// from and no password.
//
// # What it does
//
// It serves what a kit needs of https://api.workos.com: authorize, with the
// hosted page behind it, authenticate, the key set, logout, revoke, users and
// their sessions, API keys of customers. Where production and the emulators
// differ it does what production does:
//
//   - An authorization code works once, for ten minutes. A wrong code verifier is
//     refused and does not use it up.
//   - A refresh token is traded for a new pair. For 30 seconds the old one is
//     answered with the very same pair, byte for byte; then it is an
//     invalid_grant. The session keeps its id and its auth_time.
//   - After a logout or a revocation no refresh works. Access tokens stay valid
//     until they expire.
//   - Errors come in the two envelopes of production, {"error",
//     "error_description"} and {"code", "message"}, and on the redirect to the
//     application with error, error_description and state.
//   - The key set belongs to one client id. Tokens have no aud.
//   - The browser stays signed in to WorkOS itself, in a cookie: the next
//     authorization is answered without a page, unless it asks for one with
//     prompt=login, max_age or screen_hint=sign-up. A logout or a revocation of
//     the application's session ends that, too.
//   - An API key that is unknown, expired or revoked is no error: its validation
//     answers null.
//
// # Where it decides
//
// What the documentation of WorkOS leaves open is decided for the client's worse,
// so that a kit that works here works there:
//
//   - A refresh without organization_id is for the organization of the sign-in,
//     even after a switch to another.
//   - A retired refresh token sent for another organization than before is an
//     invalid_grant, inside the replay window as well.
//   - A session that was begun with the client secret needs it for every refresh;
//     the Authorization header does not replace it.
//   - A user of one organization signs in to it without being asked; a user of
//     several is asked on the page, and then not again in that browser. Providers
//     other than authkit have no page to ask on: the exchange of their code
//     answers organization_selection_required.
//   - Errors in the form of an authorization request stay on a page of WorkOS;
//     those that name a connection or an organization go back to the application.
//   - Every sign-in is a session of its own, also in one browser.
//   - A logout with a return_to that is not registered is refused, and ends
//     nothing.
//   - The validation of an API key tells in last_used_at when it was validated
//     before.
//   - Rate limits, where turned on, count in windows that begin with the first
//     request. The limit of ten sign-ins for an address applies to codes, not to
//     refreshes.
package authkittest
