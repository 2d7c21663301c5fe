package authkit_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// BenchmarkRSAVerify is the yardstick: what verifying one signature costs.
func BenchmarkRSAVerify(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("yardstick"))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWithAuth is a request through the middleware, with a session of 12
// permissions: valid and seen before, valid and not seen before, expired (which
// includes the refresh by authkittest, and there the making of a signature), and
// anonymous.
func BenchmarkWithAuth(b *testing.B) {
	b.Run("valid", func(b *testing.B) { benchmarkValid(b, 0) })
	b.Run("valid-cold", func(b *testing.B) { benchmarkValid(b, -1) })
	b.Run("expired", benchmarkExpired)
	b.Run("anonymous", func(b *testing.B) {
		a := newApplication(b)
		benchmark(b, a, http.StatusFound, request("GET", "/dashboard", navigate...))
	})
}

func benchmarkValid(b *testing.B, cacheSize int) {
	a := newApplication(b, func(o *authkit.Options) { o.SessionCacheSize = cacheSize })
	benchmark(b, a, http.StatusOK, request("GET", "/dashboard", with(navigate, "Cookie", a.cookieHeader(b))...))
}

func benchmarkExpired(b *testing.B) {
	a := newApplication(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		offset := func(d time.Duration) {
			a.workos.Configure(func(s *authkittest.Settings) { s.ClockOffset = d })
		}
		offset(-10 * time.Minute)
		r := request("GET", "/dashboard", with(navigate, "Cookie", a.cookieHeader(b))...)
		offset(0)
		w := httptest.NewRecorder()
		handler := a.kit.WithAuth(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
		b.StartTimer()
		if handler.ServeHTTP(w, r); w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}

// cookieHeader returns the Cookie header of a browser that Ada is signed in
// with, with a token as old as WorkOS's clock says.
func (a *application) cookieHeader(b *testing.B) string {
	b.Helper()
	a.workos.AddMembership(authkittest.Membership{UserID: "user_01ADA", OrganizationID: "org_01ORCHARD", Role: "admin", Permissions: permissions(12)})
	auth, err := a.workos.NewSession(ada, "org_01ORCHARD")
	if err != nil {
		b.Fatal(err)
	}
	header, err := a.kit.SealSession(auth)
	if err != nil {
		b.Fatal(err)
	}
	return header
}

func benchmark(b *testing.B, a *application, status int, r *http.Request) {
	handler := a.kit.WithAuth(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	w := &discard{header: make(http.Header)}
	handler.ServeHTTP(w, r) // fetches the key set
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		handler.ServeHTTP(w, r)
		if w.status != status {
			b.Fatal(w.status)
		}
	}
}

// discard is a ResponseWriter that costs nothing.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkSessionMemory reports what a verified session of 12 permissions takes
// in memory, its cookie included.
func BenchmarkSessionMemory(b *testing.B) {
	const sessions = 2000
	a := newApplication(b, func(o *authkit.Options) { o.SessionCacheSize = 2 * sessions })
	requests := make([]*http.Request, sessions)
	for i := range requests {
		requests[i] = request("GET", "/dashboard", with(fetch, "Cookie", a.cookieHeader(b))...)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}

	for b.Loop() {
		a.restart()
		handler := a.kit.WithAuth(http.NotFoundHandler())
		before := heap()
		for _, r := range requests {
			// A server does not keep the request; the cookie must not keep it alive.
			handler.ServeHTTP(&discard{header: make(http.Header)}, r.Clone(r.Context()))
		}
		b.ReportMetric(float64(heap()-before)/sessions, "bytes/session")
	}
	runtime.KeepAlive(requests)
}
