package authkittest

import (
	"bytes"
	"cmp"
	_ "embed"
	"html/template"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// signInPath takes the forms of the sign-in page. Production has no such
	// path.
	signInPath = "/authkittest/sign-in"

	// pageLifetime is how long a sign-in page may stay open.
	pageLifetime = time.Hour

	// maxSuggestions is how many users the page offers to sign in as.
	maxSuggestions = 6
)

//go:embed signin.html
var signInHTML string

var pages = template.Must(template.New("").Parse(signInHTML))

// page is what a page shows.
type page struct {
	Title   string
	Problem string // what went wrong

	Action      string // of the forms
	Transaction string // names the authorization and cannot be guessed
	Application string // host of the redirect URI

	SignUp        bool   // sign up first, sign in second
	Email         string // filled in
	Organization  string // preselected
	Users         []pageUser
	MoreUsers     int
	Organizations []organizationJSON // to choose from
}

type pageUser struct{ Email, Name, Initials string }

// openPage shows the sign-in page for a new authorization.
func (w *WorkOS) openPage(rw http.ResponseWriter, a *authorization, problem string) {
	maps.DeleteFunc(w.pages, func(_ string, a *authorization) bool { return a.outdated() })
	a.openedAt, a.page = time.Now(), newID("transaction_")
	w.pages[a.page] = a
	w.showPage(rw, a, problem)
}

func (a *authorization) outdated() bool { return time.Since(a.openedAt) > pageLifetime }

// serveSignIn takes a form of the sign-in page. What it says about the
// application it knows from the authorization, not from the form.
func (w *WorkOS) serveSignIn(rw http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body) // in memory already
	form, err := url.ParseQuery(string(raw))
	a := w.pages[form.Get("transaction")]
	if err != nil || a == nil || a.outdated() {
		w.refusePage(rw, r, plainFailure(http.StatusBadRequest, "invalid_request",
			"This sign-in page was used already or is too old. Start again from the application."))
		return
	}
	action := form.Get("action")
	if action != "organization" {
		a.browser, a.impersonator = nil, nil // whoever it was before
	}
	switch action {
	case "sign-in":
		w.formSignIn(rw, a, form)
	case "sign-up":
		w.formSignUp(rw, a, form)
	case "impersonate":
		w.formImpersonate(rw, a, form)
	case "organization":
		w.formOrganization(rw, a, form)
	case "deny":
		delete(w.pages, a.page)
		a.redirectError(rw, "access_denied", "The user denied the request.")
	default:
		w.refusePage(rw, r, plainFailure(http.StatusBadRequest, "invalid_request", "The form has no action."))
	}
}

func (w *WorkOS) formSignIn(rw http.ResponseWriter, a *authorization, form url.Values) {
	a.signUp, a.loginHint = false, form.Get("email")
	user := w.userByEmail(a.loginHint)
	if user == nil {
		w.showPage(rw, a, nobody(a.loginHint))
		return
	}
	w.signIn(rw, a, user, newHostedSession(user.ID))
}

func nobody(email string) string { return "Nobody here has the address " + email + "." }

func (w *WorkOS) formSignUp(rw http.ResponseWriter, a *authorization, form url.Values) {
	a.signUp, a.loginHint = true, form.Get("email")
	switch {
	case !strings.Contains(a.loginHint, "@"):
		w.showPage(rw, a, "This is not an e-mail address: "+a.loginHint)
	case w.userByEmail(a.loginHint) != nil:
		w.showPage(rw, a, "Somebody has the address "+a.loginHint+" already. Sign in instead.")
	default:
		user := w.putUser(User{
			Email:         strings.TrimSpace(a.loginHint),
			EmailVerified: true,
			FirstName:     form.Get("first_name"),
			LastName:      form.Get("last_name"),
		})
		w.signIn(rw, a, user, newHostedSession(user.ID))
	}
}

// formImpersonate leaves no trace in the browser: it is not the user's.
func (w *WorkOS) formImpersonate(rw http.ResponseWriter, a *authorization, form url.Values) {
	user := w.userByEmail(form.Get("email"))
	if user == nil {
		w.showPage(rw, a, nobody(form.Get("email")))
		return
	}
	if form.Get("by") == "" {
		w.showPage(rw, a, "An impersonation needs your support address.")
		return
	}
	a.impersonator = &impersonator{form.Get("by"), orNull(form.Get("reason"))}
	w.signIn(rw, a, user, newHostedSession(user.ID))
}

// formOrganization finishes a sign-in that was asked for its organization.
func (w *WorkOS) formOrganization(rw http.ResponseWriter, a *authorization, form url.Values) {
	if a.browser == nil || w.membership(a.browser.userID, form.Get("organization_id")) == nil {
		w.showPage(rw, a, "Sign in first, and choose an organization of yours.")
		return
	}
	w.finishSignIn(rw, a, a.browser, &code{organizationID: form.Get("organization_id")})
}

// showPage shows what an authorization waits for: a sign-in, or the choice of an
// organization.
func (w *WorkOS) showPage(rw http.ResponseWriter, a *authorization, problem string) {
	status := http.StatusOK
	if problem != "" {
		status = http.StatusUnprocessableEntity
	}
	p := page{
		Problem:     problem,
		Action:      signInPath,
		Transaction: a.page,
		Application: a.application(),
		Email:       a.loginHint,
	}
	if a.browser != nil {
		p.Title = "Choose an organization"
		p.Email = w.users[a.browser.userID].Email
		p.Organizations = w.organizationsOf(a.browser.userID)
		w.page(rw, status, "organizations", p)
		return
	}

	p.Title, p.SignUp = "Sign in", a.signUp
	if a.signUp {
		p.Title = "Create an account"
	}
	if o := w.organizations[a.organizationID]; o != nil {
		p.Organization = cmp.Or(o.Name, o.ID)
	}
	p.Users, p.MoreUsers = w.suggestions()
	w.page(rw, status, "sign-in", p)
}

// application is the host that the user is about to sign in to.
func (a *authorization) application() string {
	u, err := url.Parse(a.redirectURI)
	if err != nil || u.Host == "" {
		return a.redirectURI
	}
	return u.Host
}

// suggestions are the users to choose from, the first ones first.
func (w *WorkOS) suggestions() (users []pageUser, more int) {
	for _, id := range w.userOrder[:min(len(w.userOrder), maxSuggestions)] {
		u := w.users[id]
		name := cmp.Or(u.Name, strings.TrimSpace(u.FirstName+" "+u.LastName), u.Email)
		users = append(users, pageUser{u.Email, name, initials(name)})
	}
	return users, len(w.userOrder) - len(users)
}

// initials returns one or two letters for a name.
func initials(name string) string {
	words := strings.Fields(name)
	if len(words) > 1 {
		words = []string{words[0], words[len(words)-1]}
	}
	var letters []rune
	for _, word := range words {
		r, _ := utf8.DecodeRuneInString(word)
		letters = append(letters, r)
	}
	return strings.ToUpper(string(letters))
}

// refusePage shows a failure to a browser, and tells it to anything else.
func (w *WorkOS) refusePage(rw http.ResponseWriter, r *http.Request, f *failure) {
	rw.Header().Set("Cache-Control", "no-store")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		refuse(rw, f)
		return
	}
	text, _ := f.body.(message)
	w.page(rw, f.status, "problem", page{Title: "WorkOS cannot do that", Problem: text.Message})
}

// page writes a page. The policy says nothing about form-action: Chromium would
// apply it to the redirect that answers the form, and so to the application.
func (w *WorkOS) page(rw http.ResponseWriter, status int, name string, p page) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, p); err != nil {
		panic("authkittest: " + err.Error())
	}
	header := rw.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy",
		"default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	rw.WriteHeader(status)
	rw.Write(b.Bytes())
}
