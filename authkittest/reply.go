package authkittest

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// failure is an answer that is not a success: a status and one of the envelopes.
type failure struct {
	status     int
	body       any
	retryAfter time.Duration // 0: no Retry-After
}

// oauthError is the envelope of RFC 6749, section 5.2.
type oauthError struct {
	Error            string `json:"error"`
	ErrorDescription string `json:"error_description"`

	// Of sso_required and mfa_enrollment.
	Email                      string   `json:"email,omitempty"`
	ConnectionIDs              []string `json:"connection_ids,omitempty"`
	PendingAuthenticationToken string   `json:"pending_authentication_token,omitempty"`
}

// message is the plain envelope, of the rest of the API.
type message struct {
	Message string       `json:"message"`
	Code    string       `json:"code,omitempty"`
	Errors  []fieldError `json:"errors,omitempty"`

	// Of organization_selection_required.
	PendingAuthenticationToken string             `json:"pending_authentication_token,omitempty"`
	Organizations              []organizationJSON `json:"organizations,omitempty"`
	User                       *userJSON          `json:"user,omitempty"`
}

type fieldError struct {
	Field   string `json:"field"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// oauthFailure answers 400, as the token endpoint does.
func oauthFailure(code, description string) *failure {
	return &failure{status: http.StatusBadRequest, body: oauthError{Error: code, ErrorDescription: description}}
}

func plainFailure(status int, code, text string) *failure {
	return &failure{status: status, body: message{Message: text, Code: code}}
}

func unauthorized() *failure {
	return plainFailure(http.StatusUnauthorized, "unauthorized", "Unauthorized")
}

// invalidParameter answers 422, naming the parameter.
func invalidParameter(name, text string) *failure {
	return &failure{status: http.StatusUnprocessableEntity, body: message{
		Message: "Validation failed",
		Code:    "invalid_request_parameters",
		Errors:  []fieldError{{Field: name, Code: "invalid", Message: text}},
	}}
}

func refuse(rw http.ResponseWriter, f *failure) {
	if f.retryAfter > 0 {
		seconds := math.Ceil(f.retryAfter.Seconds())
		rw.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	writeJSON(rw, f.status, f.body)
}

func writeJSON(rw http.ResponseWriter, status int, v any) { writeBody(rw, status, encode(v)) }

func writeBody(rw http.ResponseWriter, status int, body []byte) {
	rw.Header().Set("Content-Type", "application/json; charset=utf-8")
	rw.WriteHeader(status)
	rw.Write(body)
}

// encode is json.Marshal as a JavaScript server would: it leaves <, > and & be.
func encode(v any) []byte {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic("authkittest: " + err.Error()) // only what a test put into a claim
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}
