package origin

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// Rule says which requests go wrong, and how. Empty fields match everything. Of several rules that match, the one that
// was scripted last decides.
type Rule struct {
	Role   Role
	Kind   Kind
	Method string
	Repo   string
	Ref    string                   // tag or digest
	Match  func(*http.Request) bool // further condition
	Early  bool                     // also requests that are refused for their login
	Skip   int                      // this many matching requests pass first
	Times  int                      // then this many go wrong, 0: all
	Do     Fault
}

// Fault is what goes wrong with an answer. Fields combine; the zero value changes nothing.
//
// Offsets count bytes of the body as it is sent, negative ones from its end; one behind its end never comes. Those of
// Flip count bytes of the content, whatever range of it is sent.
type Fault struct {
	Gate  *Gate         // before the answer: waits until it is open
	Delay time.Duration // before the answer: waits this long
	Drop  bool          // closes the connection without an answer
	Reset bool          // with Drop: by an RST

	Handler http.HandlerFunc // the whole answer, instead of all below
	Then    func()           // runs when it is decided what the answer is, before the first byte of it goes out

	Status int         // other than 0: Body is the answer, with this status
	Body   string      // of that answer. Its type is guessed where Header has none
	Header http.Header // set on the answer; a key with no values removes the header

	IgnoreRange bool    // 200 with all of it, whatever was asked
	Wrong       bool    // other bytes of the same length
	Flip        []int64 // offsets in the content of bytes of which one bit is wrong
	Gzip        bool    // sends the body compressed, with Content-Encoding
	Extra       string  // more bytes than were declared
	Length      string  // Content-Length as it is sent; LengthChunked, LengthNone
	Cut         *Cut    // the body ends early
	Stall       *Stall  // the body pauses
	Rate        int     // bytes per second of the body
}

// Values of Fault.Length.
const (
	LengthChunked = "chunked" // chunked encoding instead
	LengthNone    = "none"    // neither: the body ends with the connection
)

// Cut ends a body early.
type Cut struct {
	At  int64
	How CutHow
}

// CutHow is how a cut shows.
type CutHow int

// The ways to end a body early.
const (
	CutFIN    CutHow = iota // the connection is closed
	CutReset                // it is closed by an RST, when the client has got the bytes before it
	CutHonest               // what is declared fits what is sent: a length, or a last chunk
)

// Stall pauses a body until its gate is open.
type Stall struct {
	At   int64
	Gate *Gate
}

// Gate is what a fault waits for and a test opens.
type Gate struct {
	open    chan struct{}
	once    sync.Once
	arrived chan struct{}
	first   sync.Once
}

// NewGate returns one that is shut.
func NewGate() *Gate { return &Gate{open: make(chan struct{}), arrived: make(chan struct{})} }

// Open lets all pass, from now on.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// Arrived is closed when the first request waits at the gate, or would have.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

func (g *Gate) arrive() { g.first.Do(func() { close(g.arrived) }) }

// rule is a Rule in use.
type rule struct {
	Rule
	seen int // requests that matched; guarded by Origin.mu
}

// Script adds a rule, until remove is called.
func (g *Origin) Script(r Rule) (remove func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	added := &rule{Rule: r}
	g.rules = append(g.rules, added)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for i, have := range g.rules {
			if have == added {
				g.rules = append(g.rules[:i:i], g.rules[i+1:]...)
				return
			}
		}
	}
}

// ClearRules removes all rules.
func (g *Origin) ClearRules() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules = nil
}

// fault is the one for a request; the zero value where no rule matches. refused requests are for early rules alone, so
// that a rule for one answer is not used up by the question for a token.
func (g *Origin) fault(w *wanted, r *http.Request, refused bool) Fault {
	g.mu.Lock()
	rules := append([]*rule(nil), g.rules...)
	g.mu.Unlock()
	for _, u := range slices.Backward(rules) {
		if refused && !u.Early || !u.fits(w, r) || u.Match != nil && !u.Match(r) { // Match is the test's: it may call us
			continue
		}
		g.mu.Lock()
		u.seen++
		n := u.seen
		g.mu.Unlock()
		if n > u.Skip && (u.Times == 0 || n <= u.Skip+u.Times) {
			return u.Do
		}
	}
	return Fault{}
}

func (u *rule) fits(w *wanted, r *http.Request) bool {
	return (u.Role == "" || u.Role == w.role) && (u.Kind == "" || u.Kind == w.kind) &&
		(u.Method == "" || u.Method == r.Method) && (u.Repo == "" || u.Repo == w.repo) && (u.Ref == "" || u.Ref == w.ref)
}
