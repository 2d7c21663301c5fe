package authkittest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

// overBoth runs a test in memory and over a socket.
func overBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Run("in memory", func(t *testing.T) { test(t, newFixture(t)) })
	t.Run("over a socket", func(t *testing.T) {
		f := newFixture(t)
		f.listen()
		test(t, f)
	})
}

// attempt asks for the key set and returns what came of it.
func (f *fixture) attempt() (*http.Response, []byte, error) {
	resp, err := f.client.Do(f.request("GET", "/sso/jwks/"+f.clientID, nil))
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// awaitCalls waits until that many requests for the key set arrived.
func (f *fixture) awaitCalls(n int) {
	for f.Calls(authkittest.KeySet) < n {
		runtime.Gosched()
	}
}

func TestFaultStatus(t *testing.T) {
	overBoth(t, func(t *testing.T, f *fixture) {
		f.Fail(authkittest.KeySet, 2, authkittest.Fault{
			Status: 503, Header: http.Header{"Retry-After": {"7"}}, Body: "<h1>Bad day</h1>",
		})
		for range 2 {
			r := f.get("/sso/jwks/"+f.clientID).expectStatus(t, 503)
			if r.Header.Get("Retry-After") != "7" || string(r.body) != "<h1>Bad day</h1>" || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
				t.Errorf("got %v %s", r.Header, r.body)
			}
		}
		f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
	})
}

func TestFaultBodyAlone(t *testing.T) {
	f := newFixture(t)
	f.Fail(authkittest.KeySet, 1, authkittest.Fault{Body: `{"keys":[]}`})
	r := f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
	if string(r.body) != `{"keys":[]}` || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		t.Errorf("got %v %s", r.Header, r.body)
	}
}

func TestFaultCutAfter(t *testing.T) {
	overBoth(t, func(t *testing.T, f *fixture) {
		for _, c := range []struct{ cut, want int }{{10, 10}, {-1, 0}, {1 << 20, len(f.get("/sso/jwks/" + f.clientID).body)}} {
			f.Fail(authkittest.KeySet, 1, authkittest.Fault{CutAfter: c.cut})
			resp, body, err := f.attempt()
			if !errors.Is(err, io.ErrUnexpectedEOF) || len(body) != c.want {
				t.Errorf("cut after %d: got %d bytes and %v", c.cut, len(body), err)
				continue
			}
			if resp.StatusCode != 200 || resp.ContentLength <= int64(c.want) {
				t.Errorf("cut after %d: the header says %s, %d bytes", c.cut, resp.Status, resp.ContentLength)
			}
		}
	})
}

func TestFaultCutOfACannedAnswer(t *testing.T) {
	f := newFixture(t)
	f.Fail(authkittest.KeySet, 1, authkittest.Fault{Status: 500, Body: "0123456789", CutAfter: 4})
	if resp, body, err := f.attempt(); !errors.Is(err, io.ErrUnexpectedEOF) || string(body) != "0123" || resp.StatusCode != 500 {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestFaultDropReplyDoesTheWork(t *testing.T) {
	overBoth(t, func(t *testing.T, f *fixture) {
		_, token := f.session("")
		f.Fail(authkittest.Authenticate, 1, authkittest.Fault{DropReply: true})
		body := `{"grant_type":"refresh_token","client_id":"` + f.clientID + `","client_secret":"` + f.apiKey + `","refresh_token":"` + token + `"}`
		_, err := f.client.Do(f.request("POST", "/user_management/authenticate", strings.NewReader(body)))
		if !errors.Is(err, io.EOF) {
			t.Fatalf("got %v", err)
		}
		// The token is spent: past the replay window nothing can bring it back.
		f.Configure(func(s *authkittest.Settings) { s.ReplayWindow = 0 })
		f.refresh(token).expectOAuth(t, 400, "invalid_grant")
	})
}

func TestFaultHangUntilTheClientLeaves(t *testing.T) {
	overBoth(t, func(t *testing.T, f *fixture) {
		f.Fail(authkittest.KeySet, 1, authkittest.Fault{Hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			f.awaitCalls(1)
			cancel()
		}()
		_, err := f.client.Do(f.request("GET", "/sso/jwks/"+f.clientID, nil).WithContext(ctx))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestFaultHangUntilHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.Fail(authkittest.KeySet, -1, authkittest.Fault{Hang: true})
		time.AfterFunc(time.Hour, f.Heal)
		start := time.Now()
		f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
		if waited := time.Since(start); waited != time.Hour {
			t.Errorf("it waited %s", waited)
		}
		f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
	})
}

func TestFaultHangEndsWithClose(t *testing.T) {
	f := newFixture(t)
	f.listen()
	f.Fail(authkittest.KeySet, 1, authkittest.Fault{Hang: true})
	done := make(chan error)
	go func() {
		_, _, err := f.attempt()
		done <- err
	}()
	f.awaitCalls(1)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

func TestFaultDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.Fail(authkittest.KeySet, -1, authkittest.Fault{Delay: 3 * time.Second})
		start := time.Now()
		f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("it waited %s", waited)
		}

		f.client.Timeout = time.Second
		_, _, err := f.attempt()
		if waited := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || waited != 4*time.Second {
			t.Errorf("after %s: %v", waited, err)
		}
	})
}

func TestFaultHandler(t *testing.T) {
	overBoth(t, func(t *testing.T, f *fixture) {
		f.Fail(authkittest.Authenticate, 1, authkittest.Fault{Handler: func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(http.StatusTeapot)
			io.Copy(rw, r.Body)
		}})
		r := f.token("grant_type", "x").expectStatus(t, 418)
		if !strings.Contains(string(r.body), `"grant_type":"x"`) {
			t.Errorf("the handler got %s", r.body)
		}
	})
}

func TestFaultsQueue(t *testing.T) {
	f := newFixture(t)
	f.Fail(authkittest.KeySet, 1, authkittest.Fault{Status: 500})
	f.Fail(authkittest.KeySet, 1, authkittest.Fault{}) // one gets through
	f.Fail(authkittest.Any, 2, authkittest.Fault{Status: 502})
	f.Fail(authkittest.KeySet, 0, authkittest.Fault{Status: 599})
	f.Fail(authkittest.KeySet, -1, authkittest.Fault{Status: 503})
	for i, want := range []int{500, 200, 502, 0, 503, 503, 503} {
		if want == 0 {
			f.refresh("x").expectStatus(t, 502) // any endpoint
			continue
		}
		if got := f.get("/sso/jwks/" + f.clientID).StatusCode; got != want {
			t.Errorf("request %d: got %d, want %d", i, got, want)
		}
	}
	f.Heal()
	f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
}

func TestFaultOfOneGrant(t *testing.T) {
	f := newFixture(t)
	_, token := f.session("")
	f.Fail(authkittest.Authenticate, 1, authkittest.Fault{Grant: "refresh_token", Status: 500})
	f.exchange(f.code()).expectStatus(t, 200)
	f.refresh(token).expectStatus(t, 500)
	f.refresh(token).expectStatus(t, 200)
}

func TestRequestsAreRecorded(t *testing.T) {
	f := newFixture(t)
	f.refresh("ref_1", "organization_id", "org_1")
	f.get("/sso/jwks/"+f.clientID+"?a=1", "User-Agent", "test")
	f.get("/nowhere")

	if f.Calls(authkittest.Authenticate) != 1 || f.Calls(authkittest.Users) != 0 || f.Calls(authkittest.Any) != 3 {
		t.Errorf("calls: %d, %d, %d", f.Calls(authkittest.Authenticate), f.Calls(authkittest.Users), f.Calls(authkittest.Any))
	}
	refresh := f.Requests(authkittest.Authenticate)[0]
	if refresh.Method != "POST" || refresh.Body["refresh_token"] != "ref_1" || refresh.Body["organization_id"] != "org_1" {
		t.Errorf("got %+v", refresh)
	}
	all := f.Requests(authkittest.Any)
	if len(all) != 3 || all[1].Query.Get("a") != "1" || all[1].Header.Get("User-Agent") != "test" || all[1].Body != nil || all[2].Path != "/nowhere" {
		t.Errorf("got %+v", all)
	}
}

func TestMostInFlight(t *testing.T) {
	overBoth(t, func(t *testing.T, f *fixture) {
		for range 10 {
			f.get("/sso/jwks/" + f.clientID)
		}
		if n := f.MostInFlight(authkittest.KeySet); n != 1 {
			t.Errorf("one after the other are %d at a time", n)
		}

		f.Fail(authkittest.KeySet, -1, authkittest.Fault{Hang: true})
		done := make(chan error)
		for range 3 {
			go func() {
				_, _, err := f.attempt()
				done <- err
			}()
		}
		f.awaitCalls(13)
		f.Heal()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := f.MostInFlight(authkittest.KeySet); n != 3 {
			t.Errorf("three at a time are %d", n)
		}
	})
}
