package authkittest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"log"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"
)

// maxBuffer is how much of a response waits for the handler to return, in bytes:
// a handler that writes less is done before its client hears of it.
const maxBuffer = 64 << 10

// HTTPClient returns a client for which every host is this WorkOS, reached in
// memory: it needs no socket, works in a bubble of testing/synctest, ends with
// the request's context, and breaks off where a Fault breaks the connection.
func (w *WorkOS) HTTPClient() *http.Client { return &http.Client{Transport: memory{w}} }

// memory is an http.RoundTripper that serves requests as net/http would, by a
// call: one goroutine a request, which ends with it.
type memory struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper. A handler that panics breaks the
// connection: the error is io.EOF before the response, and io.ErrUnexpectedEOF
// from its body later on.
func (m memory) RoundTrip(sent *http.Request) (*http.Response, error) {
	body := &onceCloser{ReadCloser: cmp.Or[io.ReadCloser](sent.Body, http.NoBody)}
	if err := sent.Context().Err(); err != nil {
		body.Close()
		return nil, err
	}

	// The handler learns of the client's leaving, and of nothing else that the
	// client's context holds.
	ctx, cancel := context.WithCancel(context.Background())
	received, err := receive(ctx, sent, body)
	if err != nil {
		cancel()
		body.Close()
		return nil, err
	}

	c := newConnection(sent, cancel)
	leave := context.AfterFunc(sent.Context(), func() { c.abandon(sent.Context().Err()) })
	go func() {
		defer cancel()
		defer body.Close()
		defer leave()
		c.serve(m.handler, received)
	}()

	select {
	case <-c.answered:
		return c.response, c.err
	case <-sent.Context().Done():
		body.Close()
		return nil, sent.Context().Err()
	}
}

// receive is the request that a server reads off the wire when a client sent
// the one given.
func receive(ctx context.Context, sent *http.Request, body io.ReadCloser) (*http.Request, error) {
	target, err := url.ParseRequestURI(sent.URL.RequestURI())
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method:        cmp.Or(sent.Method, http.MethodGet),
		URL:           target,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        sent.Header.Clone(),
		Body:          body,
		ContentLength: sent.ContentLength,
		Host:          cmp.Or(sent.Host, sent.URL.Host),
		RemoteAddr:    "192.0.2.1:1234", // RFC 5737, section 3: an address for documentation
		RequestURI:    sent.URL.RequestURI(),
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header.Set("User-Agent", "Go-http-client/1.1")
	}
	if sent.ContentLength == 0 && sent.Body != nil && sent.Body != http.NoBody {
		r.ContentLength = -1
		r.TransferEncoding = []string{"chunked"}
	}
	if sent.URL.Scheme == "https" {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: sent.URL.Hostname()}
	}
	return r.WithContext(ctx), nil
}

// connection is one exchange, and the http.ResponseWriter of its handler.
type connection struct {
	request *http.Request
	cancel  context.CancelFunc // of the handler's context
	reader  *io.PipeReader     // what the client reads
	writer  *io.PipeWriter     // what the handler writes

	header   http.Header
	status   int         // 0 until WriteHeader
	frozen   http.Header // header as of WriteHeader
	declared int64       // Content-Length, or -1
	written  int64
	buffer   bytes.Buffer // written and not sent yet
	sent     bool         // the response is with the client

	answered chan struct{} // closed once response or err is there
	response *http.Response
	err      error
}

func newConnection(sent *http.Request, cancel context.CancelFunc) *connection {
	c := &connection{
		request:  sent,
		cancel:   cancel,
		header:   http.Header{},
		declared: -1,
		answered: make(chan struct{}),
	}
	c.reader, c.writer = io.Pipe()
	return c
}

// abandon tells the handler that the client left, and the client why it did.
func (c *connection) abandon(err error) {
	c.cancel()
	c.writer.CloseWithError(err)
}

func (c *connection) serve(handler http.Handler, r *http.Request) {
	defer func() {
		reason := recover()
		if reason == nil {
			c.finish()
			return
		}
		if reason != http.ErrAbortHandler {
			log.Printf("authkittest: panic serving %s %s: %v\n%s", r.Method, r.URL.Path, reason, debug.Stack())
		}
		c.breakOff()
	}()
	handler.ServeHTTP(c, r)
}

// finish sends what is left when the handler returns.
func (c *connection) finish() {
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	if !c.sent && c.declared < 0 && c.bodyAllowed() {
		c.declared = int64(c.buffer.Len())
		c.frozen.Set("Content-Length", strconv.FormatInt(c.declared, 10))
	}
	c.Flush()
	if c.bodyAllowed() && c.written < c.declared {
		c.writer.CloseWithError(io.ErrUnexpectedEOF)
		return
	}
	c.writer.Close()
}

// breakOff is what a client sees when the connection breaks. What the handler
// wrote and did not flush is lost.
func (c *connection) breakOff() {
	c.writer.CloseWithError(io.ErrUnexpectedEOF)
	if !c.sent {
		c.err = io.EOF
		close(c.answered)
	}
}

// Header implements http.ResponseWriter.
func (c *connection) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter. It leaves out informational
// responses.
func (c *connection) WriteHeader(status int) {
	if c.status != 0 || status < 200 {
		return
	}
	c.status, c.frozen = status, c.header.Clone()
	if n, err := strconv.ParseInt(c.frozen.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		c.declared = n
	}
}

// Write implements http.ResponseWriter.
func (c *connection) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	if !c.bodyAllowed() {
		if c.request.Method == http.MethodHead {
			return len(b), nil
		}
		return 0, http.ErrBodyNotAllowed
	}
	if c.declared >= 0 && c.written+int64(len(b)) > c.declared {
		return 0, http.ErrContentLength
	}
	c.written += int64(len(b))
	c.buffer.Write(b)
	if c.buffer.Len() < maxBuffer {
		return len(b), nil
	}
	return len(b), c.FlushError()
}

func (c *connection) bodyAllowed() bool {
	return c.request.Method != http.MethodHead && c.status != http.StatusNoContent && c.status != http.StatusNotModified
}

// Flush implements http.Flusher.
func (c *connection) Flush() { c.FlushError() }

// FlushError sends what was written; http.ResponseController calls it.
func (c *connection) FlushError() error {
	if c.status == 0 {
		c.WriteHeader(http.StatusOK)
	}
	if !c.sent {
		c.answer()
	}
	_, err := c.buffer.WriteTo(c.writer)
	return err
}

// answer hands the response over to the client. Its body follows.
func (c *connection) answer() {
	if c.frozen.Get("Date") == "" {
		c.frozen.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	if c.frozen.Get("Content-Type") == "" && c.buffer.Len() > 0 {
		c.frozen.Set("Content-Type", http.DetectContentType(c.buffer.Bytes()))
	}
	c.response = &http.Response{
		Status:        strconv.Itoa(c.status) + " " + http.StatusText(c.status),
		StatusCode:    c.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        maps.Clone(c.frozen),
		Body:          &responseBody{PipeReader: c.reader, leave: c.cancel},
		ContentLength: c.declared,
		Request:       c.request,
	}
	if !c.bodyAllowed() {
		c.response.Body = http.NoBody
	}
	if c.status == http.StatusNoContent || c.status == http.StatusNotModified {
		c.response.ContentLength = 0
	}
	c.sent = true
	close(c.answered)
}

// responseBody tells the handler when its client stops reading.
type responseBody struct {
	*io.PipeReader
	leave context.CancelFunc
}

func (b *responseBody) Close() error {
	defer b.leave()
	return b.PipeReader.Close()
}

// onceCloser closes a request body once, and again without harm.
type onceCloser struct {
	io.ReadCloser
	closed atomic.Bool
}

func (b *onceCloser) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	return b.ReadCloser.Close()
}
