package authkittest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkit-go/authkit/authkittest"
)

// browse asks app for something, in memory.
func browse(t *testing.T, app http.HandlerFunc, r *http.Request) (*http.Response, string, error) {
	t.Helper()
	resp, err := authkittest.New().Browser(app).Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func appRequest(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, authkittest.AppURL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHandlerSeesWhatAServerWouldShow(t *testing.T) {
	type key struct{}
	r := appRequest(t, "POST", "/a%2Fb?c=d", strings.NewReader("body")).WithContext(context.WithValue(t.Context(), key{}, "secret"))
	app := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintln(w, r.Method, r.RequestURI, r.URL.Path, r.URL.Host, r.Host, r.Proto, r.ContentLength, r.TLS != nil, string(body))
		if r.Context().Value(key{}) != nil {
			t.Error("the client's context reaches the handler")
		}
		if r.Header.Get("Connection") != "" || r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("the header is %v", r.Header)
		}
		if r.RemoteAddr == "" || r.UserAgent() == "" {
			t.Errorf("RemoteAddr is %q, the agent %q", r.RemoteAddr, r.UserAgent())
		}
	}
	_, body, err := browse(t, app, r)
	if want := "POST /a%2Fb?c=d /a/b  app.test HTTP/1.1 4 true body\n"; err != nil || body != want {
		t.Errorf("got %q, %v, want %q", body, err, want)
	}
}

func TestClientSeesWhatAServerWouldSend(t *testing.T) {
	for _, c := range []struct {
		name   string
		method string
		app    http.HandlerFunc
		status int
		length int64
		body   string
		kind   string
	}{
		{"nothing", "GET", func(http.ResponseWriter, *http.Request) {}, 200, 0, "", ""},
		{"text", "GET", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, 200, 5, "hello", "text/plain; charset=utf-8"},
		{"a status", "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); w.WriteHeader(500) }, 404, 0, "", ""},
		{"no content", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "x"); err != http.ErrBodyNotAllowed {
				t.Errorf("got %v", err)
			}
		}, 204, 0, "", ""},
		{"HEAD", "HEAD", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "7")
			io.WriteString(w, "1234567")
		}, 200, 7, "", "text/plain; charset=utf-8"},
		{"a stream", "GET", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "a")
			http.NewResponseController(w).Flush()
			io.WriteString(w, "b")
		}, 200, -1, "ab", "text/plain; charset=utf-8"},
		{"more than the buffer", "GET", func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				w.Write(make([]byte, 50<<10))
			}
		}, 200, -1, strings.Repeat("\x00", 150<<10), "application/octet-stream"},
		{"too much", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1")
			io.WriteString(w, "1")
			if _, err := io.WriteString(w, "22"); err != http.ErrContentLength {
				t.Errorf("got %v", err)
			}
		}, 200, 1, "1", "text/plain; charset=utf-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body, err := browse(t, c.app, appRequest(t, c.method, "/", nil))
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || resp.ContentLength != c.length || body != c.body || resp.Header.Get("Content-Type") != c.kind {
				t.Errorf("got %s, %d bytes, %.20q, %s", resp.Status, resp.ContentLength, body, resp.Header)
			}
			if resp.Header.Get("Date") == "" || resp.Header.Get("Connection") != "" || resp.Request == nil {
				t.Errorf("got %v", resp)
			}
		})
	}
}

// A client and a server made outside a bubble work in one, and in the next.
func TestInMemoryInBubbles(t *testing.T) {
	f := newFixture(t)
	browser := f.Browser(http.NotFoundHandler())
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
			resp, err := browser.Get(authkittest.AppURL)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		})
	}
	f.get("/sso/jwks/"+f.clientID).expectStatus(t, 200)
}

func TestBrokenConnections(t *testing.T) {
	defer log.SetOutput(log.Writer())
	log.SetOutput(io.Discard)
	for _, c := range []struct {
		name string
		app  http.HandlerFunc
		want error
	}{
		{"before the header", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, io.EOF},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic("oh") }, io.EOF},
		{"what was not flushed is lost", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x"); panic(http.ErrAbortHandler) }, io.EOF},
		{"within the body", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "x")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, io.ErrUnexpectedEOF},
		{"less than it said", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "x")
		}, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := browse(t, c.app, appRequest(t, "GET", "/", nil)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestStreamArrivesAsItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				io.WriteString(w, "tick")
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
			}
		})
		resp, err := authkittest.New().Browser(app).Get(authkittest.AppURL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start := time.Now()
		for i := range 3 {
			if _, err := io.ReadFull(resp.Body, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			if at := time.Since(start); at != time.Duration(i)*time.Second {
				t.Errorf("tick %d came after %s", i, at)
			}
		}
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("it ends with %q, %v", rest, err)
		}
	})
}

func TestHandlerLearnsThatTheClientLeft(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(cancel func(), body io.Closer)
	}{
		{"by its context", func(cancel func(), _ io.Closer) { cancel() }},
		{"by closing the body", func(_ func(), body io.Closer) { body.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var left bool
				app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.(http.Flusher).Flush()
					<-r.Context().Done()
					left = true
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				resp, err := authkittest.New().Browser(app).Do(appRequest(t, "GET", "/", nil).WithContext(ctx))
				if err != nil {
					t.Fatal(err)
				}
				c.leave(cancel, resp.Body)
				synctest.Wait()
				if !left {
					t.Error("the handler waits")
				}
			})
		})
	}
}

func TestBodyEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		resp, err := authkittest.New().Browser(app).Do(appRequest(t, "GET", "/", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCancelledRequestIsNotSent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	app := func(http.ResponseWriter, *http.Request) { t.Error("it was sent") }
	if _, _, err := browse(t, app, appRequest(t, "GET", "/", nil).WithContext(ctx)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A request body is closed whatever happens, and not by two.
func TestRequestBodyIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := &closeCounter{Reader: strings.NewReader("x")}
		if _, _, err := browse(t, func(http.ResponseWriter, *http.Request) {}, appRequest(t, "POST", "/", body)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if body.closed != 1 {
			t.Errorf("the body was closed %d times", body.closed)
		}
	})
}

type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error {
	c.closed++
	return nil
}
