package authkit

import "net/http"

// SealSession returns the cookie header of a browser that has this session,
// which the callback would have sealed, for tests that need sessions no callback
// would make.
func (k *Kit) SealSession(auth *Authentication) (string, error) {
	parts, err := k.cookies.sealSession(auth)
	header := ""
	for i, part := range parts {
		header += k.cookies.partName(i) + "=" + part + "; "
	}
	return header, err
}

// Carried returns the id and the refresh token of the session that a request
// carries, empty if it carries none.
func (k *Kit) Carried(r *http.Request) (sessionID, refreshToken string) {
	for _, value := range k.cookies.sessionValues(r) {
		if s, ok := k.open(value); ok {
			return s.ID, s.refreshToken
		}
	}
	return "", ""
}
