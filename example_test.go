package authkit_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/authkit-go/authkit"
	"github.com/authkit-go/authkit/authkittest"
)

// The standard library's mux. In production the options come from
// OptionsFromEnv; here a WorkOS for tests gives them.
func Example() {
	workos := authkittest.New()
	workos.AddUser(authkittest.User{Email: "ada@example.test", FirstName: "Ada"})

	kit, err := authkit.New(workos.Options())
	if err != nil {
		fmt.Println(err)
		return
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/login", kit.Login)
	mux.HandleFunc("/callback", kit.Callback)
	mux.HandleFunc("/logout", kit.Logout)
	mux.Handle("/dashboard", kit.WithAuth(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := authkit.SessionFromContext(r.Context())
		fmt.Fprintf(w, "Hello %s!", s.User.FirstName)
	})))

	browser, err := workos.SignIn(mux, "/dashboard", "ada@example.test")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := browser.Get(authkittest.AppURL + "/dashboard")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.Status, string(body))
	// Output: 200 OK Hello Ada!
}

// On chi, WithAuth is a middleware of the pages that need a session.
func Example_chi() {
	workos := authkittest.New()
	kit, err := authkit.New(workos.Options())
	if err != nil {
		fmt.Println(err)
		return
	}

	r := chi.NewRouter()
	r.Get("/login", kit.Login)
	r.Get("/callback", kit.Callback)
	r.HandleFunc("/logout", kit.Logout)
	r.Group(func(r chi.Router) {
		r.Use(kit.WithAuth)
		r.Get("/dashboard", func(w http.ResponseWriter, r *http.Request) {
			s, _ := authkit.SessionFromContext(r.Context())
			fmt.Fprintf(w, "Hello %s!", s.User.FirstName)
		})
	})

	anonymous := httptest.NewRequest("GET", "/dashboard", nil)
	anonymous.Header.Set("Accept", "text/html")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, anonymous)
	fmt.Println(w.Code, w.Header().Get("Location"))
	// Output: 302 /login?return_to=%2Fdashboard
}

// A login of one's own knows the organization and where to go next.
func ExampleKit_StartLogin() {
	kit, err := authkit.New(authkittest.New().Options())
	if err != nil {
		fmt.Println(err)
		return
	}
	login := func(w http.ResponseWriter, r *http.Request) {
		kit.StartLogin(w, r, authkit.LoginParams{
			OrganizationID: "org_01ORCHARD",
			LoginHint:      r.FormValue("email"),
			ReturnTo:       "/reports",
		})
	}

	w := httptest.NewRecorder()
	login(w, httptest.NewRequest("GET", "/orchard?email=ada@example.test", nil))
	to, _ := url.Parse(w.Header().Get("Location"))
	fmt.Println(w.Code, to.Path, to.Query().Get("organization_id"), to.Query().Get("login_hint"))
	// Output: 302 /user_management/authorize org_01ORCHARD ada@example.test
}

// A handler is tested without a kit: give it a session.
func ExampleContextWithSession() {
	greet := func(w http.ResponseWriter, r *http.Request) {
		s, ok := authkit.SessionFromContext(r.Context())
		if !ok {
			fmt.Fprint(w, "Hello, stranger!")
			return
		}
		fmt.Fprintf(w, "Hello %s, you may %s.", s.User.FirstName, strings.Join(s.Permissions, " and "))
	}

	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(authkit.ContextWithSession(r.Context(), &authkit.Session{
		User:        authkit.User{FirstName: "Ada"},
		Permissions: []string{"read", "write"},
	}))
	w := httptest.NewRecorder()
	greet(w, r)
	fmt.Println(w.Body)
	// Output: Hello Ada, you may read and write.
}
