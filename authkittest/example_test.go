package authkittest_test

import (
	"fmt"
	"io"
	"net/http"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// newApplication is an application as one writes it: it does not know that it is
// being tested.
func newApplication(opts authkit.Options) (http.Handler, error) {
	kit, err := authkit.New(opts)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", kit.Login)
	mux.HandleFunc("GET /callback", kit.Callback)
	mux.Handle("GET /dashboard", kit.WithAuth(http.HandlerFunc(dashboard)))
	return mux, nil
}

func dashboard(w http.ResponseWriter, r *http.Request) {
	s, _ := authkit.SessionFromContext(r.Context())
	fmt.Fprintf(w, "Hello %s!", s.User.FirstName)
}

// An application tests itself: a WorkOS with one user, a browser that signs in,
// and a page that wants a session.
func Example() {
	workos := authkittest.New()
	workos.AddUser(authkittest.User{Email: "ada@example.test", FirstName: "Ada"})

	app, err := newApplication(workos.Options())
	if err != nil {
		fmt.Println(err)
		return
	}
	ada, err := workos.SignIn(app, "/dashboard", "ada@example.test")
	if err != nil {
		fmt.Println(err)
		return
	}

	resp, err := ada.Get(authkittest.AppURL + "/dashboard")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body))
	fmt.Println(workos.Calls(authkittest.Authenticate), "call to the token endpoint")

	// Output:
	// 200 Hello Ada!
	// 1 call to the token endpoint
}
