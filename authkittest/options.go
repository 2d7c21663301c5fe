package authkittest

import (
	"encoding/json"
	"fmt"

	"github.com/authkit-go/authkit"
)

// Options returns what authkit.New needs to use this WorkOS: its credentials, a
// CookiePassword of its own, an HTTPClient that reaches it without a socket, and
// AppURL, "https://app.test", as the address of the application, with its
// Callback at /callback. Tests change what they want otherwise.
func (w *WorkOS) Options() authkit.Options {
	settings := w.currentSettings()
	return authkit.Options{
		APIKey:         settings.APIKey,
		ClientID:       settings.ClientID,
		RedirectURI:    AppURL + "/callback",
		CookiePassword: w.cookiePassword,
		LogoutReturnTo: AppURL + "/",
		HTTPClient:     w.HTTPClient(),
		BaseURL:        w.URL(),
	}
}

// NewSession signs a user in without a browser and returns what the token
// endpoint would: for tests that need thousands of sessions. Without an
// organizationID the session is in the first organization that the user was
// added to, or in none.
func (w *WorkOS) NewSession(email, organizationID string) (*authkit.Authentication, error) {
	reply, err := w.startSessionAs(email, organizationID)
	if err != nil {
		return nil, err
	}
	var auth authkit.Authentication
	if err := json.Unmarshal(reply, &auth); err != nil {
		return nil, fmt.Errorf("authkittest: read the reply: %w", err)
	}
	return &auth, nil
}
