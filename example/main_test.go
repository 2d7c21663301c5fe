package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// setenv sets these WORKOS_ variables and no other.
func setenv(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "WORKOS_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

// complete is a configuration that authkit.New accepts.
func complete() map[string]string {
	return map[string]string{
		"WORKOS_API_KEY":         "sk_test_1",
		"WORKOS_CLIENT_ID":       "client_1",
		"WORKOS_REDIRECT_URI":    "http://localhost:3000/callback",
		"WORKOS_COOKIE_PASSWORD": "Gc2rS9vYx0mJ4nT7wZ1qK5uB8hE3aLdF",
	}
}

func TestConfigure(t *testing.T) {
	t.Run("nothing set is the built-in WorkOS", func(t *testing.T) {
		setenv(t, map[string]string{"WORKOS_API_KEY": ""})
		opts, builtin, err := configure("http://localhost:4000")
		if err != nil {
			t.Fatal(err)
		}
		defer builtin.Close()

		if opts.RedirectURI != "http://localhost:4000/callback" || opts.LogoutReturnTo != "http://localhost:4000/" || opts.BaseURL != builtin.URL() {
			t.Errorf("RedirectURI %s, LogoutReturnTo %s, BaseURL %s", opts.RedirectURI, opts.LogoutReturnTo, opts.BaseURL)
		}
		if _, err := authkit.New(opts); err != nil {
			t.Error(err)
		}
	})
	t.Run("the environment names a WorkOS", func(t *testing.T) {
		variables := complete()
		variables["WORKOS_API_HOSTNAME"], variables["WORKOS_API_PORT"], variables["WORKOS_API_HTTPS"] = "localhost", "4100", "false"
		setenv(t, variables)
		opts, builtin, err := configure("http://localhost:4000")
		if err != nil || builtin != nil {
			t.Fatal(builtin, err)
		}
		if opts.APIKey != "sk_test_1" || opts.ClientID != "client_1" || opts.RedirectURI != "http://localhost:3000/callback" ||
			opts.LogoutReturnTo != "http://localhost:3000/" || opts.BaseURL != "http://localhost:4100" {
			t.Errorf("%q %q %q %q %q", opts.APIKey, opts.ClientID, opts.RedirectURI, opts.LogoutReturnTo, opts.BaseURL)
		}
	})
}

func TestRunRefuses(t *testing.T) {
	without := func(names ...string) map[string]string {
		variables := complete()
		for _, name := range names {
			delete(variables, name)
		}
		return variables
	}
	with := func(name, value string) map[string]string {
		variables := complete()
		variables[name] = value
		return variables
	}
	for _, test := range []struct {
		name      string
		addr      string
		variables map[string]string
		want      []string
	}{
		{"no API key", "", without("WORKOS_API_KEY"), []string{"APIKey (WORKOS_API_KEY) is missing"}},
		{"nothing but a client id", "", map[string]string{"WORKOS_CLIENT_ID": "client_1"},
			[]string{"WORKOS_API_KEY", "WORKOS_REDIRECT_URI", "WORKOS_COOKIE_PASSWORD", "is missing", "built-in WorkOS"}},
		{"nothing but a host", "", map[string]string{"WORKOS_API_HOSTNAME": "localhost"}, []string{"WORKOS_CLIENT_ID"}},
		{"a port that is none", "", with("WORKOS_API_PORT", "many"), []string{`WORKOS_API_PORT is "many"`}},
		{"a short password", "", with("WORKOS_COOKIE_PASSWORD", "hunter2"), []string{"WORKOS_COOKIE_PASSWORD", "7 characters"}},
		{"a callback elsewhere", "", with("WORKOS_REDIRECT_URI", "http://localhost:3000/auth/callback"), []string{`WORKOS_REDIRECT_URI has the path "/auth/callback", want "/callback"`}},
		{"an address that is none", "nowhere", nil, []string{"ADDR", "nowhere"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			setenv(t, test.variables)
			t.Setenv("ADDR", "localhost:0")
			if test.addr != "" {
				t.Setenv("ADDR", test.addr)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel() // what runs all the same stops at once
			var out bytes.Buffer
			err := run(ended, &out)
			if err == nil {
				t.Fatal("it runs")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q shows the password", err)
			}
			if out.Len() > 0 {
				t.Errorf("it greets: %s", &out)
			}
		})
	}
}

func TestTheBuiltInWorkOSWantsThisMachine(t *testing.T) {
	setenv(t, nil)
	listener := namedListener{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 3000}}
	err := runAt(t.Context(), listener, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "ADDR") || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Error(err)
	}
}

func TestLocalURL(t *testing.T) {
	for _, test := range []struct{ ip, want string }{
		{"127.0.0.1", "http://localhost:3000"},
		{"::1", "http://localhost:3000"},
		{"0.0.0.0", "http://localhost:3000"},
		{"::", "http://localhost:3000"},
		{"127.0.0.2", "http://127.0.0.2:3000"},
		{"2001:db8::1", "http://[2001:db8::1]:3000"},
	} {
		if got := localURL(namedListener{addr: &net.TCPAddr{IP: net.ParseIP(test.ip), Port: 3000}}); got != test.want {
			t.Errorf("%s is %s, want %s", test.ip, got, test.want)
		}
	}
}

// namedListener is a listener of which nothing but the address is asked.
type namedListener struct {
	net.Listener
	addr net.Addr
}

func (l namedListener) Addr() net.Addr { return l.addr }

func TestDotEnv(t *testing.T) {
	write := func(content string) string {
		file := filepath.Join(t.TempDir(), ".env")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}

	t.Run("need not exist", func(t *testing.T) {
		if err := loadDotEnv(filepath.Join(t.TempDir(), ".env")); err != nil {
			t.Error(err)
		}
	})
	t.Run("sets what the environment does not", func(t *testing.T) {
		setenv(t, map[string]string{"WORKOS_CLIENT_ID": "of the environment", "WORKOS_API_KEY": ""})
		os.Unsetenv("WORKOS_API_KEY") // t.Setenv puts it back
		if err := loadDotEnv(write("# mine\nWORKOS_API_KEY=sk_file\nWORKOS_CLIENT_ID=\"client_file\"\n")); err != nil {
			t.Fatal(err)
		}
		if key, id := os.Getenv("WORKOS_API_KEY"), os.Getenv("WORKOS_CLIENT_ID"); key != "sk_file" || id != "of the environment" {
			t.Errorf("WORKOS_API_KEY is %q, WORKOS_CLIENT_ID is %q", key, id)
		}
	})
	t.Run("shows no secret of a file that it cannot read", func(t *testing.T) {
		for _, content := range []string{"WORKOS_COOKIE-PASSWORD=hunter2", "WORKOS_COOKIE_PASSWORD='hunter2"} {
			err := loadDotEnv(write(content))
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Error(err)
			}
		}
	})
}

func TestLogger(t *testing.T) {
	for value, debug := range map[string]bool{"": false, "debug": true, "info": false} {
		t.Setenv("LOG", value)
		if got := newLogger(io.Discard).Enabled(t.Context(), slog.LevelDebug); got != debug {
			t.Errorf("LOG=%q logs at debug level: %v", value, got)
		}
	}
}

// newVisitor returns a client that navigates as a browser does, on the network.
func newVisitor(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: navigator{transport}}
}

type navigator struct{ http.RoundTripper }

func (n navigator) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return n.RoundTripper.RoundTrip(r)
}

// start has run write to a pipe and returns the address that it prints, and what
// stops it and returns its error.
func start(t *testing.T, run func(context.Context, io.Writer) error) (address string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	printed, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, out)
		out.CloseWithError(err)
		ended <- err
	}()

	lines := bufio.NewScanner(printed)
	for address == "" && lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); strings.HasPrefix(line, "http://") {
			address = line
		}
	}
	if address == "" {
		t.Fatalf("no address is printed: %v", lines.Err())
	}
	go io.Copy(io.Discard, printed)

	return address, func() error {
		cancel()
		return <-ended
	}
}

func TestRun(t *testing.T) {
	setenv(t, nil)
	t.Setenv("ADDR", "localhost:0")
	address, stop := start(t, run)

	visitor := newVisitor(t)
	get(t, visitor, address+"/").wants(t, http.StatusOK, "Sign in once")
	get(t, visitor, address+"/dashboard").press(t, visitor, "sign-in", "email", "ada@orchard.example").
		wants(t, http.StatusOK, "Ada Park")
	p := post(t, visitor, address+"/logout", nil)
	p.wants(t, http.StatusOK, "Sign in once")
	if p.Request.URL.String() != address+"/" {
		t.Errorf("the logout ends at %s", p.Request.URL)
	}

	if err := stop(); err != nil {
		t.Errorf("it stops with %v", err)
	}
	if resp, err := visitor.Get(address); err == nil {
		resp.Body.Close()
		t.Error("it still answers")
	}
}

func TestRunWithAnotherWorkOS(t *testing.T) {
	workos := authkittest.New()
	seed(workos)
	if err := workos.Listen("localhost:0"); err != nil {
		t.Fatal(err)
	}
	defer workos.Close()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	api, err := url.Parse(workos.URL())
	if err != nil {
		t.Fatal(err)
	}
	opts := workos.Options()
	setenv(t, map[string]string{
		"WORKOS_API_KEY":         opts.APIKey,
		"WORKOS_CLIENT_ID":       opts.ClientID,
		"WORKOS_REDIRECT_URI":    localURL(listener) + "/callback",
		"WORKOS_COOKIE_PASSWORD": opts.CookiePassword,
		"WORKOS_API_HOSTNAME":    api.Hostname(),
		"WORKOS_API_PORT":        api.Port(),
		"WORKOS_API_HTTPS":       "false",
	})
	address, stop := start(t, func(ctx context.Context, out io.Writer) error { return runAt(ctx, listener, out) })

	visitor := newVisitor(t)
	get(t, visitor, address+"/admin").press(t, visitor, "sign-in", "email", "ada@orchard.example").
		wants(t, http.StatusOK, "Notes of org_orchard")
	get(t, visitor, address+"/dashboard").wants(t, http.StatusOK, "Ada Park")
	if calls := workos.Calls(authkittest.Authenticate); calls != 1 {
		t.Errorf("%d calls of the token endpoint, want 1", calls)
	}
	post(t, visitor, address+"/logout", nil).wants(t, http.StatusOK, "Sign in once.")
	if err := stop(); err != nil {
		t.Errorf("it stops with %v", err)
	}
}

// closing tells when a listener is closed.
type closing struct {
	net.Listener
	closed chan struct{}
}

func (c closing) Close() error {
	err := c.Listener.Close()
	if err == nil {
		close(c.closed)
	}
	return err
}

func TestRequestsUnderWayAreAnswered(t *testing.T) {
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-closed // serve stops listening before it waits for us
		io.WriteString(w, "done")
	})
	served := make(chan error, 1)
	go func() { served <- serve(ctx, closing{listener, closed}, slow) }()

	get(t, newVisitor(t), localURL(listener)).wants(t, http.StatusOK, "done")
	if err := <-served; err != nil {
		t.Error(err)
	}
}
