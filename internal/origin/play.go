package origin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/oci"
)

// Play is one registry of the world in one situation: what it answers to whom. Plays lists them; Perform plays one. In
// lines, "{registry}" stands for the URL of the registry, "{aside}" for that of a second server (a token service or a
// regional registry), and "{token}" and "{jwt}" for a token made just then.
type Play struct {
	Registry  string // canonical name of the upstream
	Situation string
	User      string // with Password: the credential that the mirror has; empty: none
	Password  string
	Get       bool // the manifest is asked for by GET, else the tag is resolved
	Expires   bool // a first request goes well, then every token made so far is stale
	Lines     []Line
}

// Line is the answer to requests that fit. Of several that fit the first one answers.
type Line struct {
	At     string // URL without query, as in "{aside}/token"; empty: manifests at the registry
	As     string // "anonymous", "login", "token", "stale"; empty: any
	Status int
	Header []string // "Name: value"
	Body   string   // not sent to a HEAD
	Raw    string   // the whole answer, for what is not quite HTTP
}

// The repository and tag that a play is about.
const (
	PlayRepository = "library/app"
	PlayTag        = "1"
)

const playedManifest = `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeOCIManifest + `","config":{"mediaType":` +
	`"application/vnd.oci.image.config.v1+json","digest":` +
	`"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`

// Stage is a play that goes on.
type Stage struct {
	URL      string
	AsideURL string

	play  Play
	mu    sync.Mutex
	asked []string
	stale map[string]bool // tokens, by whether they have expired
}

// Perform plays a registry until the test is over.
func Perform(t testing.TB, p Play) *Stage {
	t.Helper()
	s := &Stage{play: p, stale: make(map[string]bool)}
	registry, aside := httptest.NewServer(s.at("{registry}")), httptest.NewServer(s.at("{aside}"))
	t.Cleanup(registry.Close)
	t.Cleanup(aside.Close)
	s.URL, s.AsideURL = registry.URL, aside.URL
	return s
}

// Asked is the requests so far, and forgets them: "GET {aside}/token?service=x login 200", with "manifest" for the
// path of the play's manifest. The third word is the kind of login: "anonymous", "login", "token", "stale", or "stranger" for an
// Authorization that the play does not know.
func (s *Stage) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// Expire makes every token made so far stale.
func (s *Stage) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.stale {
		s.stale[token] = true
	}
}

// Blank puts the play's words for hosts in the place of what they are in this performance.
func (s *Stage) Blank(text string) string {
	bare := strings.NewReplacer(s.URL, "{registry}", s.AsideURL, "{aside}").Replace(text)
	return strings.NewReplacer(strings.TrimPrefix(s.URL, "http://"), "{registry}",
		strings.TrimPrefix(s.AsideURL, "http://"), "{aside}").Replace(bare)
}

func (s *Stage) at(host string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		as, where := s.identity(r), host+r.URL.Path
		what := host + r.URL.RequestURI()
		if where == "{registry}/v2/"+PlayRepository+"/manifests/"+PlayTag {
			where, what = "", "manifest"
		}
		l := s.line(where, as)
		if where == "{registry}/v2/"+PlayRepository+"/tags/list" && l.Status == http.StatusNotImplemented {
			l = s.list(as)
		}
		s.asked = append(s.asked, fmt.Sprintf("%s %s %s %d", r.Method, what, as, l.Status))
		s.mu.Unlock()
		s.say(w, r, l)
	})
}

// identity is the kind of login of a request. The caller holds mu.
func (s *Stage) identity(r *http.Request) string {
	value := r.Header.Get("Authorization")
	token, bearer := strings.CutPrefix(value, "Bearer ")
	stale, known := s.stale[token]
	user, password, basic := r.BasicAuth()
	switch {
	case value == "":
		return "anonymous"
	case bearer && known && stale:
		return "stale"
	case bearer && known:
		return "token"
	case basic && s.play.User != "" && user == s.play.User && password == s.play.Password:
		return "login"
	}
	return "stranger"
}

func (s *Stage) line(where, as string) Line {
	for _, l := range s.play.Lines {
		if l.At == where && (l.As == "" || l.As == as) {
			return l
		}
	}
	return Line{Status: http.StatusNotImplemented, Body: "not in the play: " + where + " as " + as}
}

// list is the answer to the list of tags where the play has none: it takes the same right as the manifest, so that it is
// refused as that is, and is there where only a tag is missing.
func (s *Stage) list(as string) Line {
	l := s.line("", as)
	if strings.HasPrefix(s.play.Situation, "no such tag") {
		body := `{"name":"` + PlayRepository + `","tags":["2"]}`
		return Line{Status: http.StatusOK, Header: []string{"Content-Type: application/json"}, Body: body}
	}
	return l
}

func (s *Stage) say(w http.ResponseWriter, r *http.Request, l Line) {
	if l.Raw != "" {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err) // an httptest server over HTTP/1 can always
		}
		defer c.Close()
		_, _ = rw.WriteString(l.Raw)
		_ = rw.Flush()
		return
	}
	for _, h := range l.Header {
		name, value, _ := strings.Cut(h, ": ")
		w.Header().Add(name, s.fill(value))
	}
	if len(l.Header) == 0 {
		w.Header()["Content-Type"] = nil // none, rather than net/http's guess
	}
	w.WriteHeader(l.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(s.fill(l.Body)))
	}
}

// fill puts hosts and new tokens into a line.
func (s *Stage) fill(text string) string {
	text = strings.NewReplacer("{registry}", s.URL, "{aside}", s.AsideURL).Replace(text)
	for _, kind := range []string{"{token}", "{jwt}"} {
		if strings.Contains(text, kind) {
			token := s.token(kind)
			text = strings.ReplaceAll(text, kind, token)
		}
	}
	return text
}

func (s *Stage) token(kind string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := fmt.Sprintf("played-%d", len(s.stale)+1)
	if kind == "{jwt}" {
		token = unsignedJWT(map[string]any{"jti": token, "iat": 1_700_000_000, "exp": 1_700_003_600})
	}
	s.stale[token] = false
	return token
}
