package node

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
)

// State is what an Agent has made of a node.
type State string

// The states. Waiting ends with the first answer of the mirror.
const (
	Waiting    State = "waiting"    // the mirror has not answered since the start
	Configured State = "configured" // the node pulls through the mirror
	Withdrawn  State = "withdrawn"  // the mirror does not answer, and the node pulls from the registries
	// Refused is Configured, but the mirror does not accept the node's login: it pulls through the mirror what anonymous clients may pull.
	Refused State = "login refused"
	// Unreadable is Configured, but the node's login can't be read any more: the last one that was read stays in use.
	Unreadable State = "login unreadable"
)

// tolerated is after how many questions in turn without an answer the configuration is withdrawn, and after how many refusals in turn the
// login does not count.
const tolerated = 3

// AgentOptions are those of an Agent.
type AgentOptions struct {
	Dir   string // of containerd's registries
	Files []File // as Containerd makes them for Dir
	// Renew makes Files again, with the node's login as it is now, each time that the mirror is ready. Its error says why that can't be read; the
	// last Files stay. Nil: they never change.
	Renew func() ([]File, error)
	// Ready asks the mirror, from this node, whether it serves. Its error says why not.
	Ready func(context.Context) error
	// Login asks the mirror which client it takes this node for, once it is ready. A *LoginError says that the login does not count; after any
	// other error what was known before holds. Nil: the node shows no login.
	Login func(context.Context) error
	// Every is the time between two questions; 0: 30 s. While the mirror does not answer it is a sixth of that.
	Every time.Duration
	// Fixed leaves the configuration in place when the mirror does not answer: for nodes that have nowhere else to go.
	Fixed bool
	// Keep leaves it in place when the agent stops.
	Keep bool
	Log  *slog.Logger // nil: discard
	// Changed is called with each new state, and why it is that. Nil: it is not called.
	Changed func(ctx context.Context, s State, why string)
}

// Agent keeps a node's configuration of containerd there for as long as the mirror answers this node: a mirror that is dead costs
// the node nothing. Run is one goroutine, and owns the files; State may be called from anywhere.
type Agent struct {
	o     AgentOptions
	state atomic.Pointer[State]
	// Since the start: questions without an answer, and how often the configuration was withdrawn.
	failures, withdrawals atomic.Int64

	failed  int    // questions in turn without an answer
	refused int    // answers in turn by which the login does not count
	refusal string // why, once that was said often enough; empty: it counts
	unread  error  // why the login can't be read; nil: it was read
	foreign bool   // a file that is not ours stands in the place of ours, and the log says so
}

// NewAgent makes an agent. Nothing is written before Run.
func NewAgent(o AgentOptions) *Agent {
	if o.Every <= 0 {
		o.Every = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func(context.Context, State, string) {}
	}
	a := &Agent{o: o}
	waiting := Waiting
	a.state.Store(&waiting)
	return a
}

// State is the present one.
func (a *Agent) State() State { return *a.state.Load() }

// Run works until the context ends, and then takes the configuration back, unless it is to stay. An error is one of the files: the
// agent can't do its work.
func (a *Agent) Run(ctx context.Context) error {
	for {
		wait, err := a.step(ctx)
		if err != nil {
			return err
		}
		if backoff.Wait(ctx, wait) {
			continue
		}
		if a.o.Keep {
			return nil
		}
		_, err = Uninstall(a.o.Dir)
		return err
	}
}

// step asks the mirror once, does what follows from the answer, and returns when to ask again.
func (a *Agent) step(ctx context.Context) (wait time.Duration, err error) {
	// Many nodes ask one mirror, and come back to it after it was down: not all at the same moment.
	spread := func(d time.Duration) time.Duration { return backoff.Between(d-d/10, d+d/10) }
	failure := a.o.Ready(ctx)
	if ctx.Err() != nil {
		return 0, nil
	}
	if failure != nil {
		a.failed++
		a.failures.Add(1)
		return spread(a.o.Every / 6), a.withdraw(ctx, failure)
	}
	if a.failed > 0 && a.State() == Withdrawn {
		a.failed = 0
		return backoff.Between(1, a.o.Every), nil // it is put back if the mirror still answers then
	}
	a.failed = 0
	a.renew(ctx)
	a.login(ctx)
	if ctx.Err() != nil {
		return 0, nil
	}
	return spread(a.o.Every), a.put(ctx)
}

// renew reads the node's login again.
func (a *Agent) renew(ctx context.Context) {
	if a.o.Renew == nil {
		return
	}
	files, err := a.o.Renew()
	if err == nil {
		a.o.Files = files
	} else if a.unread == nil {
		a.o.Log.WarnContext(ctx, "cannot read the login of this node; the last one that was read stays in use", "error", err)
	}
	a.unread = err
}

// login asks whether the node's login counts. One refusal may be that of a mirror that has just begun, or can't ask its cluster.
func (a *Agent) login(ctx context.Context) {
	if a.o.Login == nil {
		return
	}
	err := a.o.Login(ctx)
	refusal, ok := errors.AsType[*LoginError](err)
	switch {
	case ok:
		if a.refused++; a.refused >= tolerated {
			a.refusal = refusal.Reason
		}
	case err == nil:
		a.refused, a.refusal = 0, ""
	default:
		a.o.Log.DebugContext(ctx, "the mirror does not say which client this node is", "error", err)
	}
}

// inPlace reports whether the configuration is there.
func (a *Agent) inPlace() bool { return a.State() != Waiting && a.State() != Withdrawn }

// put writes the configuration, or what is missing of it.
func (a *Agent) put(ctx context.Context) error {
	install := Install
	if a.inPlace() {
		install = Repair
	}
	changes, err := install(a.o.Dir, a.o.Files)
	if err != nil {
		return err
	}
	foreign := ""
	for _, c := range changes {
		if c.Done == "foreign" {
			foreign = c.Path
		}
	}
	if foreign != "" && !a.foreign {
		a.o.Log.WarnContext(ctx, "another program has written a file of this node's configuration; it stays, and that registry may be pulled from "+
			"past the mirror: let one program alone write it", "file", foreign)
	}
	a.foreign = foreign != ""
	state, why := Configured, "the mirror answers"
	switch {
	case a.refusal != "":
		state, why = Refused, a.refusal
	case a.unread != nil:
		state, why = Unreadable, a.unread.Error()
	}
	if state != a.State() {
		a.become(ctx, state, why)
	}
	return nil
}

// withdraw takes the configuration back once the mirror has failed to answer often enough.
func (a *Agent) withdraw(ctx context.Context, failure error) error {
	a.o.Log.DebugContext(ctx, "the mirror does not answer this node", "count", a.failed, "error", failure)
	if a.failed < tolerated || a.State() == Withdrawn {
		return nil
	}
	if a.o.Fixed {
		if a.failed == tolerated {
			a.o.Log.WarnContext(ctx, "the mirror does not answer this node, which has nowhere else to pull from", "count", a.failed, "error", failure)
		}
		return nil
	}
	if _, err := Uninstall(a.o.Dir); err != nil {
		return err
	}
	a.withdrawals.Add(1)
	a.become(ctx, Withdrawn, failure.Error())
	return nil
}

func (a *Agent) become(ctx context.Context, s State, why string) {
	a.state.Store(&s)
	switch s {
	case Refused:
		a.o.Log.WarnContext(ctx, "login refused: the mirror takes this node for an anonymous client; images that need a login are pulled past it, or "+
			"not at all, until it has a valid one", "reason", why)
	case Configured:
		a.o.Log.InfoContext(ctx, "this node pulls through the mirror", "cache_dir", a.o.Dir)
	case Unreadable: // renew has logged it
	default:
		a.o.Log.WarnContext(ctx, "the mirror does not answer this node; images are pulled from the registries until it does", "count", a.failed,
			"reason", why)
	}
	a.o.Changed(ctx, s, why)
}
