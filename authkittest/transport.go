package authkittest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
)

// HTTPClient returns a client for which every host is this WorkOS, reached in
// memory: it needs no socket, works in a bubble of testing/synctest, ends with
// the request's context, and breaks off where a Fault breaks the connection.
func (w *WorkOS) HTTPClient() *http.Client { return &http.Client{Transport: inMemory(w)} }

// inMemory returns the way to a handler: net/http on both sides, and a net.Pipe
// between them for every request, so that no goroutine outlives the two.
func inMemory(handler http.Handler) http.RoundTripper {
	return memory{&http.Transport{
		DialContext:        dial(handler, nil),
		DialTLSContext:     dial(handler, &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true}),
		DisableKeepAlives:  true,
		DisableCompression: true,
	}}
}

// memory hides that its connections serve one request each.
type memory struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (m memory) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := m.Transport.RoundTrip(r)
	if err == nil {
		resp.Header.Del("Connection")
	}
	return resp, err
}

// dial connects to a new server, which finds state in the TLS field of requests.
func dial(handler http.Handler, state *tls.ConnectionState) func(context.Context, string, string) (net.Conn, error) {
	serve := func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("Connection")
		r.TLS = state
		r.RemoteAddr = "192.0.2.1:1234" // RFC 5737, section 3: an address for documentation
		handler.ServeHTTP(rw, r)
	}
	return func(context.Context, string, string) (net.Conn, error) {
		theirs, ours := net.Pipe()
		// One server a connection: testing/synctest binds it to a bubble.
		server := &http.Server{Handler: http.HandlerFunc(serve)}
		go server.Serve(&oneConnection{ours})
		return theirs, nil
	}
}

// oneConnection is a net.Listener that accepts once.
type oneConnection struct{ conn net.Conn }

// Accept implements net.Listener.
func (l *oneConnection) Accept() (net.Conn, error) {
	conn := l.conn
	if conn == nil {
		return nil, io.EOF
	}
	l.conn = nil
	return conn, nil
}

// Close implements net.Listener.
func (l *oneConnection) Close() error { return nil }

// Addr implements net.Listener.
func (l *oneConnection) Addr() net.Addr { return &net.TCPAddr{} }
