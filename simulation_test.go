package authkit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "the one seed to simulate a month with")
	seedsFlag = flag.Uint64("seeds", 3, "how many seeds to simulate a month with")
)

// TestSimulatedMonth lets a population of browsers use an application of three
// replicas for a month, in which everything happens that happens in production,
// and checks that nobody is sent to log in whom WorkOS still knew.
//
// Every decision is drawn from the seed and every event has a moment of its own,
// so that a seed replays: go test -run TestSimulatedMonth -seed N.
func TestSimulatedMonth(t *testing.T) {
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = nil
		for seed := range *seedsFlag {
			seeds = append(seeds, seed+1)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newWorld(t, seed).month() })
		})
	}
}

const (
	simulatedBrowsers = 24
	simulatedReplicas = 3
	simulatedLifetime = 5 * time.Minute
	replayWindow      = 30 * time.Second
	simulatedMonth    = 30 * 24 * time.Hour
)

// world is everything that the simulation has.
type world struct {
	t      *testing.T
	seed   uint64
	end    time.Time
	app    *application // its kit is not used: the replicas have their own
	spy    *spy
	mu     sync.Mutex // guards what follows
	nodes  []*node
	passes []string             // cookie passwords, the one that seals first
	killed map[string]time.Time // sessions that WorkOS ended, and when

	requests, logins, lost, slow, unavailable int
}

// node is a replica: a process that may be replaced by a new one.
type node struct {
	name    string
	kit     *authkit.Kit
	handler http.Handler
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, end: time.Now().Add(simulatedMonth), spy: newSpy(), killed: make(map[string]time.Time)}
	w.app = newApplication(t)
	w.app.workos.Configure(func(s *authkittest.Settings) { s.TokenLifetime = simulatedLifetime })
	w.passes = []string{w.app.opts.CookiePassword}
	for i := range simulatedReplicas {
		w.nodes = append(w.nodes, nil)
		w.start(i, w.passes)
	}
	return w
}

// rand returns a source of decisions of its own for everyone who decides.
func (w *world) rand(who uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, who)) }

// start replaces a replica by a new process, which remembers nothing.
func (w *world) start(i int, passwords []string) {
	n := &node{name: fmt.Sprintf("replica %d since %s", i, time.Now().Format(time.StampNano))}
	opts := w.app.opts
	opts.CookiePassword, opts.OldCookiePasswords = passwords[0], passwords[1:]
	opts.HTTPClient = &http.Client{Transport: w.spy.of(n, w.app.opts.HTTPClient.Transport)}
	kit, err := authkit.New(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	n.kit, n.handler = kit, mount(kit)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[i] = n
}

// node returns the replica that a request reaches now.
func (w *world) node(i int) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[i]
}

func (w *world) count(what *int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*what++
}

func (w *world) fail(format string, args ...any) {
	w.t.Errorf("seed %d, %s: %s", w.seed, time.Now().Format(time.StampMilli), fmt.Sprintf(format, args...))
}

func (w *world) month() {
	var wg sync.WaitGroup
	for _, email := range w.app.users(simulatedBrowsers) {
		b := w.newBrowser(email)
		wg.Go(b.live)
	}
	wg.Go(w.weather)
	wg.Go(w.operations)
	wg.Wait()
	time.Sleep(time.Minute) // what was left running ends

	w.t.Logf("seed %d: %d requests, %d logins, %d refresh calls for %d tokens, %d times 503; sent to log in though WorkOS knew them, having come back after the replay window to a replica that did not remember: %d that lost the answer, %d whose renewal WorkOS took too long for",
		w.seed, w.requests, w.logins, w.spy.calls, len(w.spy.tokens), w.unavailable, w.lost, w.slow)
	if most := w.spy.mostTraded(); most > 2*simulatedReplicas {
		w.fail("a refresh token was traded %d times, want at most %d", most, 2*simulatedReplicas)
	}
}

// moment sleeps for a random time, to the nanosecond, so that no two events
// coincide.
func moment(r *rand.Rand, shortest, longest time.Duration) {
	time.Sleep(shortest + time.Duration(r.Int64N(int64(longest-shortest))))
}

// weather is what happens to WorkOS and between us.
func (w *world) weather() {
	r := w.rand(1 << 40)
	for time.Now().Before(w.end) {
		moment(r, time.Minute, 3*time.Hour)
		workos := w.app.workos
		// An answer that is lost right before an outage is beyond anyone's help:
		// what was in store and has not happened does not.
		workos.Heal()
		switch r.IntN(8) {
		case 0: // an outage
			workos.Fail(authkittest.Authenticate, -1, authkittest.Fault{Status: []int{500, 502, 503, 504, 429}[r.IntN(5)]})
			moment(r, time.Minute, 20*time.Minute)
			workos.Heal()
		case 1: // an outage of everything, without an answer
			workos.Fail(authkittest.Any, -1, authkittest.Fault{Handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
			moment(r, time.Minute, 10*time.Minute)
			workos.Heal()
		case 2:
			workos.Fail(authkittest.Authenticate, 1, authkittest.Fault{DropReply: true})
		case 3:
			workos.Fail(authkittest.Authenticate, 1+r.IntN(3), authkittest.Fault{Delay: time.Duration(r.Int64N(int64(9 * time.Second)))})
		case 4:
			workos.Fail(authkittest.KeySet, 1, authkittest.Fault{Status: 503})
		case 5:
			offset := time.Duration(r.IntN(61)-30) * time.Second
			workos.Configure(func(s *authkittest.Settings) { s.ClockOffset = offset })
		case 6: // an administrator ends somebody's session
			if active := workos.ActiveSessions(); len(active) > 0 {
				id := active[r.IntN(len(active))]
				w.mu.Lock()
				w.killed[id] = time.Now()
				w.mu.Unlock()
				workos.Revoke(id)
			}
		case 7:
			workos.RotateKeys()
			moment(r, 2*time.Hour, 5*time.Hour)
			workos.RetireKeys()
		}
	}
}

// operations is what happens to the replicas: restarts, rolling deploys, and a
// new cookie password, which every replica opens before any seals with it.
func (w *world) operations() {
	r := w.rand(1 << 41)
	for generation := 0; time.Now().Before(w.end); generation++ {
		moment(r, time.Hour, 24*time.Hour)
		switch r.IntN(3) {
		case 0:
			w.start(r.IntN(simulatedReplicas), w.passes)
		case 1:
			w.roll(r, w.passes)
		case 2:
			next := fmt.Sprintf("%s%08d", next, generation)
			w.roll(r, append(slices.Clone(w.passes), next))
			w.passes = append([]string{next}, w.passes...)
			w.roll(r, w.passes)
		}
	}
}

func (w *world) roll(r *rand.Rand, passwords []string) {
	for i := range simulatedReplicas {
		w.start(i, passwords)
		moment(r, time.Second, 5*time.Minute)
	}
}

// simulated is a browser and who sits before it.
type simulated struct {
	w     *world
	email string
	rand  *rand.Rand
	jar   http.CookieJar

	mu   sync.Mutex      // guards lost: tabs share it
	lost map[string]bool // refresh tokens of the requests whose answer was lost
}

func (w *world) newBrowser(email string) *simulated {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var number uint64
	fmt.Sscanf(email, "user%d@", &number)
	return &simulated{w: w, email: email, jar: jar, rand: w.rand(number), lost: make(map[string]bool)}
}

// live is a month: visits, and hours or days between them.
func (b *simulated) live() {
	moment(b.rand, 0, 12*time.Hour)
	for time.Now().Before(b.w.end) {
		b.visit()
		if b.rand.IntN(10) == 0 {
			moment(b.rand, 24*time.Hour, 5*24*time.Hour)
		} else {
			moment(b.rand, 20*time.Minute, 14*time.Hour)
		}
	}
}

// visit is a while of clicks, with up to five tabs loading at once.
func (b *simulated) visit() {
	for range 1 + b.rand.IntN(12) {
		var wg sync.WaitGroup
		for range 1 + b.rand.IntN(5)*b.rand.IntN(2) {
			tab := rand.New(rand.NewPCG(b.rand.Uint64(), 0))
			wg.Go(func() { b.load(tab) })
		}
		wg.Wait()
		moment(b.rand, 100*time.Millisecond, 4*time.Minute)
	}
}

// load asks for the dashboard as one tab does, over a network that may lose the
// answer, and before somebody who may not wait for it.
func (b *simulated) load(r *rand.Rand) {
	moment(r, 0, 300*time.Millisecond)
	lost := r.IntN(40) == 0
	ctx, cancel := context.WithCancel(b.w.t.Context())
	defer cancel()
	if r.IntN(25) == 0 { // closes the tab
		lost = true
		time.AfterFunc(time.Duration(r.Int64N(int64(2*time.Second))), cancel)
	}
	p, sent := b.send(ctx, r, "/dashboard", lost)
	b.w.count(&b.w.requests)
	if lost {
		return
	}

	switch {
	case p.StatusCode == http.StatusOK:
		b.check(p)
	case p.StatusCode == http.StatusServiceUnavailable:
		b.w.count(&b.w.unavailable)
		if p.setCookie("wos-session") != "" {
			b.w.fail("%s: a 503 touches the session cookie", b.email)
		}
	case p.StatusCode == http.StatusFound:
		b.judge(sent)
		b.login(r)
	default:
		b.w.fail("%s: %s", b.email, p.Status)
	}
}

// send makes a request to some replica, with the cookies of now, and takes those
// of the answer unless it is lost.
func (b *simulated) send(ctx context.Context, r *rand.Rand, target string, lost bool) (page, sent) {
	moment(r, time.Millisecond, 200*time.Millisecond)
	req := httptest.NewRequest("GET", target, nil).WithContext(ctx)
	for i := 0; i < len(navigate); i += 2 {
		req.Header.Set(navigate[i], navigate[i+1])
	}
	for _, c := range b.jar.Cookies(appURL) {
		req.AddCookie(c)
	}
	sent := sent{node: b.w.node(r.IntN(simulatedReplicas))}
	sent.session, sent.token = sent.node.kit.Carried(req)
	if lost {
		b.mu.Lock()
		b.lost[sent.token] = true
		b.mu.Unlock()
	}
	rec := httptest.NewRecorder()
	sent.node.handler.ServeHTTP(rec, req)
	moment(r, time.Millisecond, 200*time.Millisecond)
	p := page{rec.Result(), rec.Body.String()}
	if !lost {
		b.jar.SetCookies(appURL, p.Cookies())
	}
	return p, sent
}

// sent is what a request carried, and which replica it reached.
type sent struct {
	node           *node
	session, token string // the session id and the refresh token, empty if nobody was signed in
}

// check looks at a page that was shown: it is hers, and not for longer than
// WorkOS allows.
func (b *simulated) check(p page) {
	s := p.session()
	if s == nil || s.User.Email != b.email {
		b.w.fail("%s is shown the page of %+v", b.email, s)
		return
	}
	b.w.mu.Lock()
	killed, ended := b.w.killed[s.ID]
	b.w.mu.Unlock()
	if late := simulatedLifetime + clockDifference; ended && time.Since(killed) > late {
		b.w.fail("%s is served %v after WorkOS ended the session", b.email, time.Since(killed))
	}
}

// clockDifference is how far clocks may be apart, and an answer on its way.
const clockDifference = 61 * time.Second

// judge decides whether a browser was rightly sent to log in.
func (b *simulated) judge(s sent) {
	if s.token == "" || !slices.Contains(b.w.app.workos.ActiveSessions(), s.session) {
		return // nobody was signed in, or WorkOS has ended it
	}
	traded, forgotten := b.w.spy.forgotten(s)
	b.mu.Lock()
	lost := b.lost[s.token]
	b.mu.Unlock()
	switch {
	case forgotten && lost:
		b.w.count(&b.w.lost)
	case forgotten && traded.slow:
		b.w.count(&b.w.slow)
	default:
		b.w.fail("%s is sent to log in by %s, and WorkOS knows the session; token %s first sent %v ago, answered %d times, slow %v",
			b.email, s.node.name, s.token, time.Since(traded.first), traded.count, traded.slow)
	}
}

// login signs in again, unless WorkOS is down.
func (b *simulated) login(r *rand.Rand) {
	begun, _ := b.send(b.w.t.Context(), r, "/login?return_to=/dashboard", false)
	if begun.StatusCode != http.StatusFound {
		return
	}
	to, err := begun.Location()
	if err != nil {
		b.w.fail("%s: login leads to %v", b.email, err)
		return
	}
	callback, ok := b.w.signInAt(to.String(), b.email)
	if !ok {
		return
	}
	p, _ := b.send(b.w.t.Context(), r, callback, false)
	if p.StatusCode == http.StatusFound && p.Header.Get("Location") == "/dashboard" {
		b.w.count(&b.w.logins)
	}
}

// signInAt fills WorkOS's form, and is false if WorkOS is down.
func (w *world) signInAt(login, email string) (callback string, ok bool) {
	client := w.app.workos.Browser(http.NotFoundHandler())
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	get, err := http.NewRequestWithContext(ctx, "GET", login, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	shown, err := client.Do(get)
	if err != nil {
		return "", false
	}
	body, err := io.ReadAll(shown.Body)
	shown.Body.Close()
	form := signInForm.FindStringSubmatch(string(body))
	if err != nil || form == nil {
		return "", false
	}
	post, err := http.NewRequestWithContext(ctx, "POST", w.app.workos.URL()+form[1],
		strings.NewReader("action=sign-in&transaction="+form[2]+"&email="+email))
	if err != nil {
		w.t.Fatal(err)
	}
	post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sent, err := client.Do(post)
	if err != nil {
		return "", false
	}
	sent.Body.Close()
	to, err := sent.Location()
	if err != nil {
		return "", false
	}
	return to.RequestURI(), true
}

// spy sees what the replicas send to WorkOS, and what they are told.
type spy struct {
	mu     sync.Mutex
	calls  int
	tokens map[string]*trade
}

// trade is what became of a refresh token.
type trade struct {
	first  time.Time           // when it was first sent
	count  int                 // how often it was answered with a pair
	slow   bool                // an answer took longer than a request waits that has a valid token
	holder map[*node]time.Time // who got the answer, and how long they remember it
}

func newSpy() *spy {
	return &spy{tokens: make(map[string]*trade)}
}

// of returns the transport of a replica.
func (s *spy) of(n *node, transport http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
		var grant struct {
			RefreshToken string `json:"refresh_token"`
		}
		_ = json.Unmarshal(sent, &grant) // the key set is asked for without a body
		if grant.RefreshToken == "" {
			return transport.RoundTrip(r)
		}

		t := s.sent(grant.RefreshToken)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(got))
		if err != nil {
			return nil, err
		}
		s.answered(n, t, got)
		return resp, nil
	})
}

func (s *spy) sent(token string) *trade {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.tokens[token] == nil {
		s.tokens[token] = &trade{first: time.Now(), holder: make(map[*node]time.Time)}
	}
	return s.tokens[token]
}

func (s *spy) answered(n *node, t *trade, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var reply struct {
		AccessToken string `json:"access_token"`
	}
	_ = json.Unmarshal(body, &reply) // an outage answers anything
	if reply.AccessToken != "" {
		t.count++
		t.holder[n] = time.Now().Add(simulatedLifetime - clockDifference)
		t.slow = t.slow || time.Since(t.first) > 2*time.Second
	}
}

// forgotten returns the trade of a token, and whether it was made longer ago than
// WorkOS's replay window and the replica does not remember it.
func (s *spy) forgotten(r sent) (trade, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[r.token]
	if t == nil {
		return trade{}, false
	}
	return *t, time.Since(t.first) > replayWindow && time.Now().After(t.holder[r.node])
}

func (s *spy) mostTraded() int {
	most := 0
	for _, t := range s.tokens {
		most = max(most, t.count)
	}
	return most
}
