package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/authkit-go/authkit"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

const (
	maxForm = 16 << 10 // of a form, in bytes
	maxNote = 280      // of a note, in characters
)

// app is the application: whom its pages ask, and what it remembers.
type app struct {
	kit   *authkit.Kit
	notes notebook
}

// newApp returns the application. The callback is at callbackPath.
func newApp(kit *authkit.Kit) http.Handler {
	a := &app{kit: kit}
	r := chi.NewRouter()
	r.Use(secure, middleware.GetHead)

	r.HandleFunc("/login", kit.Login)
	r.HandleFunc("/signup", kit.SignUp)
	r.HandleFunc(callbackPath, kit.Callback)
	r.HandleFunc("/logout", kit.Logout)

	r.Get("/static/style.css", serveFile("text/css; charset=utf-8", style))
	r.Get("/static/icon.svg", serveFile("image/svg+xml", icon))
	r.Get("/favicon.ico", serveFile("image/svg+xml", icon)) // asked for beside /api/me

	r.Group(func(r chi.Router) {
		r.Use(kit.WithOptionalAuth)
		r.Get("/", a.home)
		r.NotFound(a.notFound)
	})
	r.Group(func(r chi.Router) {
		r.Use(http.NewCrossOriginProtection().Handler, kit.WithAuth)
		r.Get("/dashboard", a.dashboard)
		r.Post("/dashboard", a.addNote)
		r.Get("/api/me", me)
		r.With(a.requireRole("admin")).Get("/admin", a.admin)
	})
	return r
}

// secure sets the headers that every page needs. There is no form-action, for
// Chromium applies it to the redirect after a form, too, and that of the logout
// leads to WorkOS. The referrer stays, within the site: a form that is sent
// without a session leads back to its page by it.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; img-src 'self'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// requireRole lets only those pass who have a role in their organization. It
// goes behind WithAuth.
func (a *app) requireRole(role string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session(r)
			if !slices.Contains(rolesOf(s), role) {
				a.render(w, r, http.StatusForbidden, "message", view{
					Title: "This page is not for you",
					Text:  fmt.Sprintf("It needs the role “%s”. %s.", role, describeRoles(s)),
				})
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// rolesOf returns the roles of a session: an environment of WorkOS that allows a
// member several sends all of them beside the highest.
func rolesOf(s *authkit.Session) []string {
	if len(s.Roles) == 0 && s.Role != "" {
		return []string{s.Role}
	}
	return s.Roles
}

func describeRoles(s *authkit.Session) string {
	roles := rolesOf(s)
	if len(roles) == 0 {
		return "You have none"
	}
	return fmt.Sprintf("Yours in %s is “%s”", s.OrganizationID, strings.Join(roles, "” and “"))
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	a.render(w, r, http.StatusOK, "home", view{Title: "Home"})
}

func (a *app) dashboard(w http.ResponseWriter, r *http.Request) {
	a.showDashboard(w, r, http.StatusOK, "")
}

func (a *app) showDashboard(w http.ResponseWriter, r *http.Request, status int, problem string) {
	s := session(r)
	a.render(w, r, status, "dashboard", view{
		Title:   "Dashboard",
		Problem: problem,
		Token:   lifeOf(s, time.Now()),
		Notes:   a.notes.of(s.OrganizationID, s.User.ID),
	})
}

// addNote keeps a note. The form arrives even if the access token has expired
// since the page was shown: WithAuth renews it first and leaves the body alone.
func (a *app) addNote(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	text := strings.TrimSpace(r.PostFormValue("note"))
	if length := utf8.RuneCountInString(text); length < 1 || length > maxNote {
		a.showDashboard(w, r, http.StatusUnprocessableEntity, fmt.Sprintf("A note has 1 to %d characters.", maxNote))
		return
	}

	s := session(r)
	a.notes.add(note{
		Text:           text,
		Author:         displayName(s.User),
		Impersonator:   s.Impersonator,
		WrittenAt:      time.Now(),
		userID:         s.User.ID,
		organizationID: s.OrganizationID,
	})
	http.Redirect(w, r, "/dashboard", http.StatusSeeOther)
}

// admin shows what everybody in the organization has noted.
func (a *app) admin(w http.ResponseWriter, r *http.Request) {
	a.render(w, r, http.StatusOK, "admin", view{
		Title: "Admin",
		Notes: a.notes.of(session(r).OrganizationID, ""),
	})
}

// me answers with the session as JSON, which never holds a token.
func me(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(session(r)) // a failure is the client's leaving
}

func (a *app) notFound(w http.ResponseWriter, r *http.Request) {
	a.render(w, r, http.StatusNotFound, "message", view{
		Title: "There is no such page",
		Text:  "The address may be mistyped.",
	})
}

// session returns the session of a request behind WithAuth.
func session(r *http.Request) *authkit.Session {
	s, _ := authkit.SessionFromContext(r.Context())
	return s
}

//go:embed pages
var pagesFS embed.FS

//go:embed style.css
var style []byte

//go:embed icon.svg
var icon []byte

// pages has the template of every page, each within the layout.
var pages = map[string]*template.Template{
	"home":      parsePage("home"),
	"dashboard": parsePage("dashboard"),
	"admin":     parsePage("admin"),
	"message":   parsePage("message"),
}

func parsePage(name string) *template.Template {
	sum := sha256.Sum256(style)
	version := base64.RawURLEncoding.EncodeToString(sum[:6])
	layout := template.New("layout.html").Funcs(template.FuncMap{
		"name":     displayName,
		"roles":    rolesOf,
		"initials": initials,
		"clock":    clock,
		"styleURL": func() string { return "/static/style.css?v=" + version },
		"maxNote":  func() int { return maxNote },
	})
	return template.Must(layout.ParseFS(pagesFS, "pages/layout.html", "pages/"+name+".html"))
}

// view is what a page shows. The first three fields are render's to set.
type view struct {
	Path     string
	Session  *authkit.Session // nil if nobody is signed in
	LoginURL string           // leads back to the page

	Title   string
	Text    string
	Problem string // with what the visitor sent
	Token   tokenLife
	Notes   []note
}

func (a *app) render(w http.ResponseWriter, r *http.Request, status int, page string, v view) {
	v.Path, v.Session, v.LoginURL = r.URL.Path, session(r), a.kit.LoginURL(r)
	var b bytes.Buffer
	if err := pages[page].Execute(&b, v); err != nil {
		slog.Error("cannot show a page", "page", page, "error", err)
		http.Error(w, "Something is wrong with this page.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // a failure is the browser's leaving
}

// serveFile serves a file whose address changes with it, or that is small.
func serveFile(contentType string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "public, max-age=86400")
		_, _ = w.Write(content)
	}
}

func displayName(u authkit.User) string {
	return cmp.Or(u.Name, strings.TrimSpace(u.FirstName+" "+u.LastName), u.Email)
}

// initials returns the first letters of a name's first and last word.
func initials(name string) string {
	words := strings.Fields(name)
	if len(words) > 1 {
		words = []string{words[0], words[len(words)-1]}
	}
	var letters []rune
	for _, word := range words {
		letter, _ := utf8.DecodeRuneInString(word)
		letters = append(letters, letter)
	}
	return strings.ToUpper(string(letters))
}

// tokenLife is what is left of an access token.
type tokenLife struct {
	ExpiresAt time.Time
	Left      time.Duration
	Percent   int // of its whole life
}

// lifeOf reads when the token was issued, too, which is no field of a Session
// but a claim like those that a JWT template adds.
func lifeOf(s *authkit.Session, now time.Time) tokenLife {
	var claims struct {
		IssuedAt int64 `json:"iat"`
	}
	life := tokenLife{ExpiresAt: s.ExpiresAt, Left: max(s.ExpiresAt.Sub(now), 0).Round(time.Second)}
	if err := s.Claims(&claims); err != nil {
		return life
	}
	if whole := s.ExpiresAt.Sub(time.Unix(claims.IssuedAt, 0)); whole > 0 {
		life.Percent = min(int(100*life.Left/whole), 100)
	}
	return life
}

// Seconds is what is left, as a number.
func (l tokenLife) Seconds() int { return int(l.Left / time.Second) }

// In is what is left, in words.
func (l tokenLife) In() string {
	seconds := l.Seconds()
	switch {
	case seconds < 120:
		return count(seconds, "second")
	case seconds < 2*60*60:
		return strings.TrimSuffix(count(seconds/60, "minute")+" and "+count(seconds%60, "second"), " and 0 seconds")
	}
	return count(seconds/3600, "hour")
}

func count(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// clock tells a time of today.
func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

// note is what a user wrote down, in an organization or in none.
type note struct {
	Text         string
	Author       string
	Impersonator *authkit.Impersonator // who really wrote it
	WrittenAt    time.Time

	userID, organizationID string
}

// maxNotes is how many notes are kept, of everybody together.
const maxNotes = 100

// notebook keeps notes until the application stops.
type notebook struct {
	mu    sync.Mutex
	notes []note // the oldest first
}

func (n *notebook) add(new note) {
	n.mu.Lock()
	defer n.mu.Unlock()

	n.notes = append(n.notes, new)
	n.notes = n.notes[max(len(n.notes)-maxNotes, 0):]
}

// of returns the notes of a user in an organization, or, without a user, of
// everybody in it, the latest first.
func (n *notebook) of(organizationID, userID string) []note {
	n.mu.Lock()
	defer n.mu.Unlock()

	var found []note
	for _, note := range slices.Backward(n.notes) {
		if note.organizationID == organizationID && (userID == "" || note.userID == userID) {
			found = append(found, note)
		}
	}
	return found
}
