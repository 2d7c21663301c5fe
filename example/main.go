// Command example is an application that signs its users in with WorkOS AuthKit.
//
//	go run ./example
//
// prints an address to open. With nothing set, it brings a WorkOS of its own,
// with a few users to sign in as. To use a real one, set these in the
// environment or in a file called .env:
//
//	WORKOS_API_KEY          sk_…
//	WORKOS_CLIENT_ID        client_…
//	WORKOS_REDIRECT_URI     http://localhost:3000/callback, registered in the dashboard
//	WORKOS_COOKIE_PASSWORD  openssl rand -base64 32
//
// WORKOS_API_HOSTNAME, WORKOS_API_PORT and WORKOS_API_HTTPS=false point it at
// another server, such as an emulator on this machine; authkit.OptionsFromEnv
// lists the rest. ADDR is where it listens, "localhost:3000" by default, and
// LOG=debug has it say more.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
	"github.com/joho/godotenv"
)

const (
	defaultAddr  = "localhost:3000"
	callbackPath = "/callback"

	// grace is how long requests may take once the application is told to stop.
	grace = 10 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal stops the application in good order, a second one at once.
	context.AfterFunc(ctx, stop)

	err := loadDotEnv(".env")
	if err == nil {
		slog.SetDefault(newLogger(os.Stderr))
		err = run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

// loadDotEnv sets the variables of a file that the environment does not set. It
// need not exist.
func loadDotEnv(file string) error {
	err := godotenv.Load(file)
	var pathError *fs.PathError
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.As(err, &pathError):
		return err
	}
	// The parser quotes what it stumbled over, and that may be a secret.
	return fmt.Errorf("%s has a line that is not NAME=value", file)
}

func newLogger(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("LOG") == "debug" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// run is the application from its first to its last moment, which is the end of
// ctx. What the user is to know it writes to out.
func run(ctx context.Context, out io.Writer) error {
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), defaultAddr))
	if err != nil {
		return fmt.Errorf("ADDR: %w", err)
	}
	defer listener.Close()

	return runAt(ctx, listener, out)
}

// runAt is run at a socket that is open already.
func runAt(ctx context.Context, listener net.Listener, out io.Writer) error {
	opts, builtin, err := configure(localURL(listener))
	if err != nil {
		return err
	}
	if builtin != nil {
		defer builtin.Close()
	}
	kit, err := authkit.New(opts)
	if err != nil {
		return configurationError(err, builtin != nil)
	}

	greet(out, listener, opts, builtin)
	return serve(ctx, listener, newApp(kit))
}

// configure returns the options that the environment sets or, where it sets
// none, those of a WorkOS that is built in.
func configure(appURL string) (authkit.Options, *authkittest.WorkOS, error) {
	if !slices.ContainsFunc(os.Environ(), setsWorkOS) {
		return startWorkOS(appURL)
	}

	opts, err := authkit.OptionsFromEnv()
	if err != nil {
		return opts, nil, err
	}
	u, err := url.Parse(opts.RedirectURI)
	if err != nil || u.Host == "" {
		return opts, nil, nil // authkit.New says what is wrong with it
	}
	if u.Path != callbackPath {
		return opts, nil, fmt.Errorf("WORKOS_REDIRECT_URI has the path %q, want %q, where this application has its callback", u.Path, callbackPath)
	}
	// WorkOS takes its default where this is not registered.
	opts.LogoutReturnTo = strings.TrimSuffix(opts.RedirectURI, callbackPath) + "/"
	return opts, nil, nil
}

// setsWorkOS reports whether a NAME=value configures WorkOS. Like authkit, it
// takes an empty value for none.
func setsWorkOS(variable string) bool {
	name, value, _ := strings.Cut(variable, "=")
	return strings.HasPrefix(name, "WORKOS_") && value != ""
}

// configurationError says what else could be done about an error of authkit.New.
func configurationError(err error, builtin bool) error {
	if builtin {
		return fmt.Errorf("ADDR is no address for the built-in WorkOS, want one such as %s: %w", defaultAddr, err)
	}
	return fmt.Errorf("%w; or unset every WORKOS_ variable for the built-in WorkOS", err)
}

// localURL is the address of the application for a browser on this machine.
func localURL(listener net.Listener) string {
	addr := listener.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() || host == "127.0.0.1" || host == "::1" {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

// greet says where to go. With a real WorkOS that is the origin of the redirect
// URI: the cookies of another one would not be there at the callback.
func greet(out io.Writer, listener net.Listener, opts authkit.Options, builtin *authkittest.WorkOS) {
	fmt.Fprintf(out, "\n  %s\n\n", strings.TrimSuffix(opts.RedirectURI, callbackPath))
	if builtin != nil {
		fmt.Fprintf(out, greeting, builtin.URL())
		return
	}
	fmt.Fprintf(out, "It listens on %s and signs in at %s.\n\n", listener.Addr(), cmp.Or(opts.BaseURL, "https://api.workos.com"))
}

// serve serves until ctx ends, and then until the requests under way are
// answered or grace is over.
func serve(ctx context.Context, listener net.Listener, app http.Handler) error {
	server := &http.Server{
		Handler:           app,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      time.Minute, // a refresh takes up to 25 seconds where WorkOS is slow
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}

	slog.Info("stopping")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		slog.Warn("requests were cut off", "error", err)
		return server.Close()
	}
	return nil
}
