package authkittest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// AppURL is where a Browser finds the application under test.
	AppURL = "https://app.test"

	// memoryURL is where a WorkOS answers that has not been told to Listen.
	memoryURL = "https://api.workos.test"

	// maxBody bounds a request body, in bytes.
	maxBody = 1 << 20
)

// WorkOS is an environment of WorkOS that lives in memory: its users, its
// organizations, its sessions, its keys and its hosted sign-in page. It is an
// http.Handler and all its methods are safe for concurrent use.
//
// The package documentation tells what it does as production does.
type WorkOS struct {
	mux            *http.ServeMux
	endpoints      map[string]Endpoint // by the pattern in mux
	cookiePassword string

	configuring sync.Mutex // one Configure at a time

	mu       sync.Mutex // guards what follows; never held while waiting for anything
	settings Settings
	url      string
	server   *http.Server

	users         map[string]*User
	userOrder     []string
	byEmail       map[string]string // lower-case address to user id
	organizations map[string]*Organization
	memberships   map[string][]*Membership // by user id, in the order they were added
	impersonators map[string]*impersonator // by lower-case address: of the next sign-in

	pages    map[string]*authorization // sign-in pages that wait for a visitor
	codes    map[string]*code
	pending  map[string]*code // by pending_authentication_token
	browsers map[string]*hostedSession
	sessions map[string]*session
	order    []*session
	refresh  map[string]*refreshToken
	apiKeys  map[string]*apiKey

	keys      []signingKey // the key set; the last one signs
	rotations int

	faults   []*queuedFault
	hanging  map[chan struct{}]struct{}
	requests []arrival
	calls    map[Endpoint]int
	inFlight map[Endpoint]int
	most     map[Endpoint]int
	windows  map[string]*rateWindow
}

// Settings are what an administrator sets in the dashboard of WorkOS, and
// switches for what tests want otherwise. Change them with Configure.
type Settings struct {
	// ClientID and APIKey are the credentials of the application. The default
	// is a random "client_…" and a random "sk_test_…".
	ClientID, APIKey string

	// RedirectURIs and LogoutRedirectURIs are registered: the addresses to
	// which WorkOS may send the browser after a login and after a logout. They
	// are compared as a whole. Loopback hosts, on any port, and AppURL are
	// always allowed. The first of LogoutRedirectURIs is where a logout without
	// return_to ends; where there is none, a small page says so. The default is
	// none.
	RedirectURIs, LogoutRedirectURIs []string

	// TokenLifetime is the life of an access token, in whole seconds. The
	// default is 5 minutes.
	TokenLifetime time.Duration

	// ReplayWindow is how long a refresh token that has been traded in is
	// answered with the pair that it was traded for. The default is 30 seconds;
	// 0 refuses it at once.
	ReplayWindow time.Duration

	// SessionLifetime ends a session that long after the sign-in, and
	// InactivityTimeout that long after its last refresh. The default of both
	// is 0, never.
	SessionLifetime, InactivityTimeout time.Duration

	// Issuer is the iss of access tokens. The default is URL().
	Issuer string

	// Claims are added to every access token, as a JWT template would. They may
	// replace any claim but iss, sub, exp, iat, nbf and jti, and have at most
	// 3072 bytes as JSON: beyond, token requests fail with token_too_big. The
	// default is none.
	Claims map[string]any

	// RateLimit turns on production's rate limits. The default is off.
	RateLimit bool

	// ChangeSessionID gives a session a new id at every refresh, as the
	// emulator that comes with the workos npm package does. Production keeps
	// the id, and that is the default.
	ChangeSessionID bool

	// ClockOffset is how far the clock of WorkOS is ahead of ours: in iat, exp,
	// auth_time, Date and every other time that it tells. How long it waits for
	// anything is measured without. The default is 0.
	ClockOffset time.Duration
}

// New returns a WorkOS with nobody in it. It serves at once, without a socket,
// whoever asks through HTTPClient or Browser, and needs no Close unless it was
// told to Listen.
func New() *WorkOS {
	w := &WorkOS{
		cookiePassword: rand.Text() + rand.Text(),
		url:            memoryURL,
		settings: Settings{
			ClientID:      newID("client_"),
			APIKey:        "sk_test_" + rand.Text(),
			TokenLifetime: 5 * time.Minute,
			ReplayWindow:  30 * time.Second,
		},

		users:         map[string]*User{},
		byEmail:       map[string]string{},
		organizations: map[string]*Organization{},
		memberships:   map[string][]*Membership{},
		impersonators: map[string]*impersonator{},

		pages:    map[string]*authorization{},
		codes:    map[string]*code{},
		pending:  map[string]*code{},
		browsers: map[string]*hostedSession{},
		sessions: map[string]*session{},
		refresh:  map[string]*refreshToken{},
		apiKeys:  map[string]*apiKey{},

		hanging:  map[chan struct{}]struct{}{},
		calls:    map[Endpoint]int{},
		inFlight: map[Endpoint]int{},
		most:     map[Endpoint]int{},
		windows:  map[string]*rateWindow{},
	}
	w.route()
	return w
}

func (w *WorkOS) route() {
	w.mux, w.endpoints = http.NewServeMux(), map[string]Endpoint{}
	for _, r := range []struct {
		pattern  string
		endpoint Endpoint
		serve    http.HandlerFunc
	}{
		{"GET /user_management/authorize", Authorize, w.serveAuthorize},
		{"POST " + signInPath, SignInPage, w.serveSignIn},
		{"POST /user_management/authenticate", Authenticate, w.serveAuthenticate},
		{"GET /sso/jwks/{client_id}", KeySet, w.serveKeySet},
		{"GET /user_management/sessions/logout", Logout, w.serveLogout},
		{"POST /user_management/sessions/revoke", RevokeSession, w.withKey(w.serveRevoke)},
		{"GET /user_management/users/{id}", Users, w.withKey(w.serveUser)},
		{"GET /user_management/users/{id}/sessions", UserSessions, w.withKey(w.serveUserSessions)},
		{"POST /api_keys/validations", ValidateAPIKey, w.withKey(w.serveValidateAPIKey)},
		{"/", "", serveNotFound},
	} {
		w.mux.HandleFunc(r.pattern, r.serve)
		w.endpoints[r.pattern] = r.endpoint
	}
}

// ServeHTTP answers a request as api.workos.com would, unless Fail has something
// else in store for it.
func (w *WorkOS) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	_, pattern := w.mux.Handler(r)
	endpoint := w.endpoints[pattern]
	w.enter(endpoint)
	left := sync.OnceFunc(func() { w.leave(endpoint) })
	defer left()

	rw.Header().Set("X-Request-ID", newID("req_"))
	rw.Header().Set("Date", w.clock().UTC().Format(http.TimeFormat))

	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		refuse(rw, &failure{status: http.StatusRequestEntityTooLarge, body: message{Message: "Payload Too Large"}})
		return
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client left while it was still talking
	}
	r = r.WithContext(r.Context()) // a copy, whose body may change
	r.Body = io.NopCloser(bytes.NewReader(body))
	grant := w.record(endpoint, r, body)

	fault, healed := w.takeFault(endpoint, grant)
	defer w.forget(healed)
	fault.hold(r, healed)
	if fault.Handler != nil {
		fault.Handler(rw, r)
		return
	}

	reply := &reply{header: rw.Header().Clone()}
	if fault.answers() {
		fault.answer(reply)
	} else {
		w.work(reply, r, endpoint, grant)
	}
	left() // before the client can know
	reply.send(rw, fault)
}

// work answers a request into memory, with all of WorkOS to itself.
func (w *WorkOS) work(reply *reply, r *http.Request, endpoint Endpoint, grant string) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if fail := w.rateLimit(endpoint, r, grant); fail != nil {
		refuse(reply, fail)
		return
	}
	w.mux.ServeHTTP(reply, r)
}

// withKey requires the API key of the application.
func (w *WorkOS) withKey(serve http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+w.settings.APIKey {
			refuse(rw, unauthorized())
			return
		}
		serve(rw, r)
	}
}

// URL is where this WorkOS answers: "https://api.workos.test", which HTTPClient
// and Browser reach in memory, and from Listen on the address of its socket.
func (w *WorkOS) URL() string {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.url
}

// Listen opens a socket at addr, such as "localhost:0", and serves it until
// Close. From then on URL is its address, "http://localhost:…".
func (w *WorkOS) Listen(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second}
	if err := w.serveAt(listenURL(addr, listener), server); err != nil {
		listener.Close()
		return err
	}
	go server.Serve(listener)
	return nil
}

// listenURL keeps the host that the caller named, for cookies are kept by host:
// "localhost" and "127.0.0.1" are two sites to a browser.
func listenURL(addr string, listener net.Listener) string {
	host, _, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return "http://" + net.JoinHostPort(host, port)
}

func (w *WorkOS) serveAt(url string, server *http.Server) error {
	w.mu.Lock()
	defer w.mu.Unlock()

	if w.server != nil {
		return errors.New("authkittest: listening already")
	}
	w.url, w.server = url, server
	return nil
}

// Close stops listening. It ends what Fail has hanging, gives requests under way
// two seconds to finish and then breaks them off. It does nothing to a WorkOS
// that does not listen.
func (w *WorkOS) Close() error {
	w.mu.Lock()
	server := w.server
	w.server = nil
	w.mu.Unlock()
	if server == nil {
		return nil
	}
	w.Heal()

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if server.Shutdown(ctx) == nil {
		return nil
	}
	return server.Close()
}

// Configure lets change alter the settings. They hold from the next request on.
// It panics where JSON cannot express the Claims.
func (w *WorkOS) Configure(change func(*Settings)) {
	w.configuring.Lock()
	defer w.configuring.Unlock()

	// change runs without the lock, so that it may ask for URL.
	settings := w.currentSettings()
	change(&settings)
	settings = settings.clone()
	encode(settings.Claims)

	w.mu.Lock()
	defer w.mu.Unlock()
	w.settings = settings
}

func (w *WorkOS) currentSettings() Settings {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.settings.clone()
}

func (s Settings) clone() Settings {
	s.Claims = maps.Clone(s.Claims)
	s.RedirectURIs = slices.Clone(s.RedirectURIs)
	s.LogoutRedirectURIs = slices.Clone(s.LogoutRedirectURIs)
	return s
}

// clock is what the clock of WorkOS shows.
func (w *WorkOS) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.told(time.Now())
}

// told is how WorkOS tells the time t.
func (w *WorkOS) told(t time.Time) time.Time { return t.Add(w.settings.ClockOffset) }

// timestamp is t as the API writes it: RFC 3339, in milliseconds, or null.
func (w *WorkOS) timestamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := w.told(t).UTC().Format("2006-01-02T15:04:05.000Z")
	return &s
}

func (w *WorkOS) issuer() string { return cmp.Or(w.settings.Issuer, w.url) }

func serveNotFound(rw http.ResponseWriter, r *http.Request) {
	refuse(rw, &failure{status: http.StatusNotFound, body: message{Message: "Cannot " + r.Method + " " + r.URL.Path}})
}
