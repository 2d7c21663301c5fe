package authkittest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// Endpoint is a part of the API, to Fail it and to ask what reached it.
type Endpoint string

// The endpoints of a WorkOS.
const (
	Any            Endpoint = "*"                  // every one, unknown paths included
	Authorize      Endpoint = "authorize"          // GET /user_management/authorize
	SignInPage     Endpoint = "sign-in page"       // POST of the form that Authorize shows
	Authenticate   Endpoint = "authenticate"       // POST /user_management/authenticate
	KeySet         Endpoint = "key set"            // GET /sso/jwks/{client_id}
	Logout         Endpoint = "logout"             // GET /user_management/sessions/logout
	RevokeSession  Endpoint = "revoke"             // POST /user_management/sessions/revoke
	Users          Endpoint = "users"              // GET /user_management/users/{id}
	UserSessions   Endpoint = "user sessions"      // GET /user_management/users/{id}/sessions
	ValidateAPIKey Endpoint = "api key validation" // POST /api_keys/validations
)

// Fault is something that goes wrong with a request. Its fields may be combined:
// first Delay, then Hang; then Handler, or else Status with Header and Body, in
// place of the work; then DropReply or CutAfter spoil the reply, though not that
// of a Handler. The zero Fault does the work, and so lets a request through in a
// queue of others.
type Fault struct {
	Grant string // only requests with this grant_type; the default is all

	Delay time.Duration // before anything else, unless the client leaves

	Status int         // answer this instead of doing the work; 200 where only Body or Header is set
	Header http.Header // of that answer; Content-Type is application/json where Body is JSON
	Body   string      // of that answer

	// CutAfter sends the header and that many bytes of the body under a longer
	// Content-Length, and then breaks the connection. Negative: no byte.
	CutAfter int

	// DropReply does the work and breaks the connection before the first byte
	// of the reply. Over a socket, http.Transport then repeats a GET by itself
	// where the connection was not new.
	DropReply bool

	// Hang gives no answer until the client leaves, or until Heal, after which
	// the work is done.
	Hang bool

	Handler http.HandlerFunc // anything else; it finds the body unread
}

// queuedFault is a Fault that waits for its requests.
type queuedFault struct {
	endpoint Endpoint
	left     int // negative: no end
	fault    Fault
}

// Fail lets the next times requests to an endpoint meet f; a negative number
// means all until Heal. Faults queue: each request takes the first that is meant
// for it, for its endpoint or Any.
func (w *WorkOS) Fail(e Endpoint, times int, f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if times != 0 {
		w.faults = append(w.faults, &queuedFault{e, times, f})
	}
}

// Heal forgets all faults and lets the requests go on that hang.
func (w *WorkOS) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.faults = nil
	for hang := range w.hanging {
		close(hang)
		delete(w.hanging, hang)
	}
}

// takeFault returns what a request is to meet, the zero Fault for nothing, and
// what Heal closes if it is to hang.
func (w *WorkOS) takeFault(e Endpoint, grant string) (f Fault, healed chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()

	for i, q := range w.faults {
		if q.endpoint != e && q.endpoint != Any || q.fault.Grant != "" && q.fault.Grant != grant {
			continue
		}
		if q.left > 0 {
			q.left--
		}
		if q.left == 0 {
			w.faults = append(w.faults[:i:i], w.faults[i+1:]...)
		}
		if q.fault.Hang {
			// Made here, in the bubble of whoever asks, so that testing/synctest
			// sees that nothing moves.
			healed = make(chan struct{})
			w.hanging[healed] = struct{}{}
		}
		return q.fault, healed
	}
	return Fault{}, nil
}

// hold lets a request wait: for its Delay, and for Heal if it is to hang.
func (f Fault) hold(r *http.Request, healed <-chan struct{}) {
	if f.Delay > 0 {
		wait(r, time.After(f.Delay))
	}
	if f.Hang {
		wait(r, healed)
	}
}

// answers tells whether the fault stands in for the work.
func (f Fault) answers() bool { return f.Status != 0 || f.Body != "" || f.Header != nil }

// answer writes the reply that the fault prescribes.
func (f Fault) answer(reply *reply) {
	if json.Valid([]byte(f.Body)) {
		reply.header.Set("Content-Type", "application/json; charset=utf-8")
	}
	maps.Copy(reply.header, f.Header)
	reply.status = f.Status
	io.WriteString(reply, f.Body)
}

// forget forgets a request that hung, or nothing.
func (w *WorkOS) forget(healed chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()

	delete(w.hanging, healed)
}

// wait waits for done. Where the client leaves first, nobody is there to answer.
func wait[T any](r *http.Request, done <-chan T) {
	select {
	case <-done:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// reply is a response that nobody has seen yet.
type reply struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (p *reply) Header() http.Header         { return p.header }
func (p *reply) Write(b []byte) (int, error) { return p.body.Write(b) }

func (p *reply) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
	}
}

// send sends the reply as far as the fault lets it.
func (p *reply) send(rw http.ResponseWriter, f Fault) {
	if f.DropReply {
		panic(http.ErrAbortHandler)
	}
	if p.status == 0 {
		p.status = http.StatusOK
	}
	body, length, cut := p.body.Bytes(), p.body.Len(), f.CutAfter
	if cut != 0 {
		body = body[:min(max(cut, 0), length)]
		length = max(length, len(body)+1)
	}
	clear(rw.Header())
	maps.Copy(rw.Header(), p.header)
	rw.Header().Set("Content-Length", strconv.Itoa(length))
	rw.WriteHeader(p.status)
	rw.Write(body)
	if cut != 0 {
		http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
}
