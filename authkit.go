// Package authkit signs users in to net/http applications with WorkOS AuthKit.
//
// A Kit has three handlers and one middleware:
//
//	kit, err := authkit.New(authkit.Options{ … })
//	mux.HandleFunc("/login", kit.Login)
//	mux.HandleFunc("/callback", kit.Callback)
//	mux.HandleFunc("/logout", kit.Logout)
//	mux.Handle("/dashboard", kit.WithAuth(dashboard)) // chi: r.Use(kit.WithAuth)
//
//	s, ok := authkit.SessionFromContext(r.Context()) // in a handler behind it
//
// # A login
//
// An anonymous browser that asks for /dashboard is redirected to
// /login?return_to=%2Fdashboard. [Kit.Login] makes up a state and a PKCE
// verifier, seals them with the return path into a login cookie that lives ten
// minutes, and redirects to WorkOS with the state and the verifier's hash.
// WorkOS signs the user in and redirects to /callback with a code and the state.
// [Kit.Callback] finds the login cookie of that state, so it knows that this
// browser began the login, and redeems the code with the verifier and the API
// key. It verifies the access token, a JWT, against the key set of the client,
// seals it with the refresh token and the user into the session cookie, and
// redirects to /dashboard.
//
// # A request
//
// [Kit.WithAuth] unseals the session cookie, verifies the access token, and
// passes the request on with the [Session] in its context. Access tokens live
// for minutes. Shortly before one expires, one request trades the refresh token
// for a new pair and brings the new session cookie back; others go on meanwhile.
// A refresh token works once, so requests that carry the same one share a single
// call, and those that arrive late get what it brought from memory.
//
// A session ends when WorkOS says so or the user logs out, and for no other
// reason: while WorkOS cannot be reached, valid tokens are served, and expired
// ones get 503 and keep their session.
//
// # Cookies
//
// All are sealed with gorilla/securecookie (AES-256-CTR and HMAC-SHA256) under
// keys derived from Options.CookiePassword, a pair for each kind and client;
// HttpOnly, Path=/, SameSite=Lax by default, and Secure unless RedirectURI is
// http on a loopback host:
//
//	wos-session              the session; wos-session.1 to .3 where it is large
//	wos-auth-verifier-<hash> a login under way, ten minutes, five at the most
//	wos-auth-marker          a login that has just succeeded, ten seconds; it
//	                         keeps a browser without cookies from going round
//
// Nothing is stored on the server, so any number of replicas may share the work.
// What a replica remembers (verified sessions, traded refresh tokens, logouts)
// is bounded and saves calls; it starts no goroutine that outlives its work.
package authkit

import (
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Kit signs users in to one application. It is safe for concurrent use, has no
// goroutine that outlives its work, and needs no closing; idle connections to
// WorkOS are net/http's.
type Kit struct {
	redirectURI    string
	origin         string // of RedirectURI: the application's own
	callbackPath   string
	loginPath      string
	loginReturnTo  string
	logoutReturnTo string
	refreshBefore  time.Duration

	onLogin           func(*http.Request, *Login) error
	onUnauthenticated http.Handler
	onError           func(http.ResponseWriter, *http.Request, error)
	clientIP          func(*http.Request) string
	logger            *slog.Logger

	client    *Client
	cookies   *cookies
	keys      *keySet
	tokens    *verifier
	refreshes *refresher
	verified  *memory[verifiedSession] // by sealed cookie
}

// New returns a Kit. It makes no network call and reads no environment; see
// OptionsFromEnv. The error names every fault of the options at once, with the
// environment variable of each field, and never shows a secret.
func New(opts Options) (*Kit, error) {
	opts.setDefaults()
	if err := opts.check(); err != nil {
		return nil, err
	}

	redirectURI, _ := absoluteURL(opts.RedirectURI)
	k := &Kit{
		redirectURI:       opts.RedirectURI,
		origin:            originOf(redirectURI),
		callbackPath:      redirectURI.Path,
		loginPath:         opts.LoginPath,
		loginReturnTo:     opts.LoginReturnTo,
		logoutReturnTo:    opts.LogoutReturnTo,
		refreshBefore:     opts.RefreshBefore,
		onLogin:           opts.OnLogin,
		onUnauthenticated: opts.OnUnauthenticated,
		onError:           opts.OnError,
		clientIP:          opts.ClientIP,
		logger:            opts.Logger,
		client:            newClient(&opts),
		cookies:           newCookies(&opts, redirectURI.Scheme == "https"),
		verified:          newMemory[verifiedSession](opts.SessionCacheSize, 16),
	}
	k.keys = &keySet{fetch: k.client.keySet, logger: k.logger}
	k.tokens = &verifier{clientID: opts.ClientID, issuers: trimSlashes(opts.Issuers), keys: k.keys}
	k.refreshes = newRefresher(k)
	return k, nil
}

func trimSlashes(issuers []string) []string {
	var trimmed []string
	for _, issuer := range issuers {
		trimmed = append(trimmed, strings.TrimSuffix(issuer, "/"))
	}
	return trimmed
}

// Client returns the WorkOS API client that the Kit itself uses.
func (k *Kit) Client() *Client { return k.client }
