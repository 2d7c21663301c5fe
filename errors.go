package authkit

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"
)

var (
	// ErrNoSession means that nobody is signed in: the request carries no
	// session cookie that we sealed, its session was logged out, or WorkOS has
	// ended it. Send the visitor to log in.
	ErrNoSession = errors.New("authkit: no session")

	// ErrUnavailable means that a session could not be judged, because WorkOS or
	// its key set cannot be reached or does not answer as it should. The visitor
	// is not signed out: answer 503, leave the cookie alone and let them retry.
	ErrUnavailable = errors.New("authkit: WorkOS is unavailable")

	// ErrStateMismatch means that a callback does not belong to a login that
	// this browser began within the last ten minutes: a forged or repeated
	// callback, a login cookie that was lost, or a login that took too long.
	ErrStateMismatch = errors.New("authkit: the callback belongs to no login of this browser")

	// ErrSessionTooLarge means that a session does not fit into the four cookies
	// of 4,096 bytes that it may take. The wrapping error names the largest part
	// of it, which is where to cut: usually a JWT template or the permissions.
	ErrSessionTooLarge = errors.New("authkit: the session does not fit its cookies")
)

// AuthorizationError is what WorkOS says on the callback when a login ended
// without an authorization code (RFC 6749, section 4.1.2.1).
//
// Anyone can send such a callback: treat both fields as text of a stranger.
type AuthorizationError struct {
	Code        string // error: at most 64 letters, digits and "_-."; "unknown" if it was anything else
	Description string // error_description: at most 512 bytes, never shown or logged by the kit
}

func (e *AuthorizationError) Error() string {
	return "authkit: WorkOS refused the login: " + e.Code
}

// APIError is an answer of the WorkOS API that is not a success.
// Its text never holds the Description, in which WorkOS repeats codes and
// addresses.
type APIError struct {
	StatusCode  int           // the HTTP status
	Code        string        // error, or code: WorkOS uses both; empty where the answer had none
	Description string        // error_description, or message
	RequestID   string        // X-Request-ID: what WorkOS's support asks for
	RetryAfter  time.Duration // Retry-After, zero where there was none
}

func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "WorkOS answered %d", e.StatusCode)
	if e.Code != "" {
		fmt.Fprintf(&b, " %s", e.Code)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Errors that no caller branches on. Those that leave the package begin with its
// name; what they wrap does not.
var (
	errMisconfigured = errors.New("authkit: check the configuration")
	errLoginRefused  = errors.New("authkit: OnLogin refused the login")
	errCodeRefused   = errors.New("authkit: WorkOS refused the code")
	errBadCallback   = errors.New("authkit: the callback has no single code and state")
	errCookieLost    = errors.New("authkit: the browser does not keep the session cookie")
	errGuardedLogin  = errors.New("authkit: Login or Callback is behind WithAuth, where nobody can reach it to log in")
	errCrossOrigin   = errors.New("authkit: a request from another site")
	errNotPage       = errors.New("authkit: a login begins on a page, not in a background request")
	errMethod        = errors.New("authkit: method not allowed")
	errLoginTooLarge = fmt.Errorf("authkit: LoginParams.State does not fit the login cookie, want at most %d bytes", maxCallerState)

	errLoggedOut    = errors.New("the session was logged out")
	errPaused       = errors.New("refreshing is paused after repeated failures")
	errTooMany      = errors.New("too many refreshes in flight")
	errTooSlow      = errors.New("the refresh takes too long, or the browser has left")
	errTokenExpired = errors.New("the access token has expired")
	errUnknownKey   = errors.New("the access token's key is not in the key set")
)

// terminal reports whether WorkOS has said that the session is over. Nothing
// else may end one: a wrong API key or a proxy's 404 is our fault, not the
// user's.
func terminal(err error) bool {
	var apiErr *APIError
	if !errors.As(err, &apiErr) {
		return false
	}
	switch apiErr.Code {
	case "invalid_grant", "mfa_enrollment", "sso_required":
		return true
	}
	return false
}

// transient reports whether a status says that the same request may succeed
// later.
func transient(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
}

// diagnose tells whether it is our set-up or WorkOS that does not work, for an
// error of the token endpoint that says nothing of the session or the code.
func diagnose(err error) error {
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		refused := apiErr.StatusCode == http.StatusUnauthorized
		if refused || apiErr.Code == "invalid_client" || apiErr.Code == "unauthorized_client" {
			return misconfigured(err, "APIKey (WORKOS_API_KEY) and ClientID (WORKOS_CLIENT_ID) must belong together")
		}
	}
	return unavailable(err)
}

// misconfigured wraps a fault of the set-up that only an answer of WorkOS shows:
// credentials that it refuses, or a token that it has just issued and that we
// cannot accept. Logging in again would end the same way, so it is reported and
// never retried.
func misconfigured(cause error, hint string) error {
	return fmt.Errorf("%w: %s: %w", errMisconfigured, hint, cause)
}

// unavailableError is an ErrUnavailable with its cause and the time after which
// a retry is worth while, 0 if nobody said.
type unavailableError struct {
	cause      error
	retryAfter time.Duration
}

func unavailable(cause error) error {
	if errors.Is(cause, ErrUnavailable) {
		return cause
	}
	e := &unavailableError{cause: cause}
	var apiErr *APIError
	if errors.As(cause, &apiErr) {
		e.retryAfter = apiErr.RetryAfter
	}
	return e
}

func (e *unavailableError) Error() string { return ErrUnavailable.Error() + ": " + e.cause.Error() }

func (e *unavailableError) Is(target error) bool { return target == ErrUnavailable }

func (e *unavailableError) Unwrap() error { return e.cause }

// plainCode returns an error code as it stands if it looks like one, so that
// text from outside reaches neither a log nor a page.
func plainCode(s, otherwise string) string {
	if s == "" || len(s) > 64 {
		return otherwise
	}
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && c != '_' && c != '-' && c != '.' {
			return otherwise
		}
	}
	return s
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// recovered, deferred, turns a panic into an error: in a goroutine of ours a
// panic of the application's HTTP client would end the process. The value is
// not printed unless it is the runtime's, for it may hold anything.
func recovered(err *error) {
	switch cause := recover().(type) {
	case nil:
	case runtime.Error:
		*err = fmt.Errorf("panic: %w", cause)
	default:
		*err = fmt.Errorf("panic with a %T", cause)
	}
}
