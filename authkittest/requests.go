package authkittest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// maxRequests is how many requests are remembered at least, and half of how many
// at most, so that a WorkOS can serve for weeks. All are counted.
const maxRequests = 10_000

// Request is a request that reached a WorkOS.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header http.Header
	Body   map[string]any // JSON object or form; nil for anything else
}

// arrival is a request and where it went.
type arrival struct {
	endpoint Endpoint
	Request
}

// Requests returns what reached an endpoint, in order: of the latest requests to
// all endpoints, which are 10,000 at least. Treat it as read-only.
func (w *WorkOS) Requests(e Endpoint) []Request {
	w.mu.Lock()
	defer w.mu.Unlock()

	var found []Request
	for _, a := range w.requests {
		if a.endpoint == e || e == Any {
			found = append(found, a.Request)
		}
	}
	return found
}

// Calls counts what reached an endpoint.
func (w *WorkOS) Calls(e Endpoint) int {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.calls[e]
}

// MostInFlight returns how many requests an endpoint has served at the same time
// at most, from arrival until the reply was ready.
func (w *WorkOS) MostInFlight(e Endpoint) int {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.most[e]
}

func (w *WorkOS) enter(e Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, e := range []Endpoint{e, Any} {
		w.inFlight[e]++
		w.most[e] = max(w.most[e], w.inFlight[e])
	}
}

func (w *WorkOS) leave(e Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.inFlight[e]--
	w.inFlight[Any]--
}

// record remembers a request and returns its grant_type.
func (w *WorkOS) record(e Endpoint, r *http.Request, raw []byte) (grant string) {
	body, err := decodeBody(r.Header, raw)
	if err != nil {
		body = nil
	}
	request := Request{
		Method: r.Method,
		Path:   r.URL.Path,
		Query:  r.URL.Query(),
		Header: r.Header.Clone(),
		Body:   maps.Clone(body),
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[e]++
	w.calls[Any]++
	w.requests = append(w.requests, arrival{e, request})
	if len(w.requests) > 2*maxRequests {
		w.requests = slices.Clone(w.requests[maxRequests:])
	}
	grant, _ = body["grant_type"].(string)
	return grant
}
