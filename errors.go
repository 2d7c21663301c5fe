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
	fmt.Fprintf(&b, "authkit: WorkOS answered %d", e.StatusCode)
	if e.Code != "" {
		fmt.Fprintf(&b, " %s", e.Code)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

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

// unavailableError is an ErrUnavailable with its cause and the time after which
// a retry is worth while.
type unavailableError struct {
	cause      error
	retryAfter time.Duration
}

func unavailable(cause error) error {
	var already *unavailableError
	if errors.As(cause, &already) {
		return cause
	}
	e := &unavailableError{cause: cause}
	var apiErr *APIError
	if errors.As(cause, &apiErr) {
		e.retryAfter = apiErr.RetryAfter
	}
	return e
}

func (e *unavailableError) Error() string {
	return ErrUnavailable.Error() + ": " + strings.TrimPrefix(e.cause.Error(), "authkit: ")
}

func (e *unavailableError) Is(target error) bool { return target == ErrUnavailable }

func (e *unavailableError) Unwrap() error { return e.cause }

// configurationError is a fault of the set-up that only an answer of WorkOS
// shows: credentials that it refuses, or a token that it has just issued and that
// we cannot accept. Logging in again would end the same way, so it is reported
// and never retried.
type configurationError struct {
	cause error
	hint  string // what to set
}

func (e *configurationError) Error() string {
	return "authkit: " + strings.TrimPrefix(e.cause.Error(), "authkit: ") + ": " + e.hint
}

func (e *configurationError) Unwrap() error { return e.cause }

// diagnose tells whether it is our set-up or WorkOS that does not work, for an
// error of the token endpoint that says nothing of the session or the code.
func diagnose(err error) error {
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		refused := apiErr.StatusCode == http.StatusUnauthorized
		if refused || apiErr.Code == "invalid_client" || apiErr.Code == "unauthorized_client" {
			return &configurationError{err, "check that APIKey (WORKOS_API_KEY) and ClientID (WORKOS_CLIENT_ID) belong together"}
		}
	}
	return unavailable(err)
}

// loginRefusedError is what OnLogin returned.
type loginRefusedError struct{ cause error }

func (e *loginRefusedError) Error() string {
	return "authkit: OnLogin refused the login: " + e.cause.Error()
}

func (e *loginRefusedError) Unwrap() error { return e.cause }

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
		*err = fmt.Errorf("authkit: panic: %w", cause)
	default:
		*err = fmt.Errorf("authkit: panic with a %T", cause)
	}
}
