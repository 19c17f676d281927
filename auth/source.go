package auth

import (
	"context"
	"time"
)

// Source yields a credential. Implementations are safe for concurrent use; an error says what the operator can do.
// It is asked for every request, so it answers from memory while nothing has changed.
type Source interface {
	Credential(ctx context.Context) (Credential, error)
}

// Reporter is a Source that knows more about its credential than the credential itself shows.
type Reporter interface {
	Source
	// Status says how the last attempt to get the credential went. It asks neither a host nor a program. A source that is
	// a file looks at it.
	Status() Status
}

// Describe is the status of a source, as far as it has one. The zero Status is anonymous.
func Describe(s Source) Status {
	switch s := s.(type) {
	case nil:
		return Status{}
	case Reporter:
		return s.Status()
	case Credential:
		if s.IsAnonymous() {
			return Status{}
		}
		st := Status{Name: s.Name, Kind: "static", State: StateOK, Expires: s.Expires}
		if s.expired(time.Now()) {
			st.State = StateExpired
		}
		return st
	}
	return Status{Kind: "other", State: StateOK}
}

// Renewer is a Source that can get another credential before the present one expires.
type Renewer interface {
	Source
	// Renew says that a credential was refused and gives the one to try next. Where there is none, it is the refused one
	// again: the caller goes on without credentials. It may be called by many at once.
	Renew(ctx context.Context, refused Credential) (Credential, error)
}

// Renew asks a source for another credential than one that was refused. See Renewer.
func Renew(ctx context.Context, s Source, refused Credential) (Credential, error) {
	if r, ok := s.(Renewer); ok {
		return r.Renew(ctx, refused)
	}
	return s.Credential(ctx)
}

// Runner is a Source with work of its own in the background, which keeps its credential fresh. It gives credentials
// without it too, but they are then fetched when they are needed.
type Runner interface {
	Source
	// Run works until the context ends. It is called once at most.
	Run(ctx context.Context) error
}

// Run does the background work of a source that has any, else returns at once.
func Run(ctx context.Context, s Source) error {
	if r, ok := s.(Runner); ok {
		return r.Run(ctx)
	}
	return nil
}

// Scoped is a Source whose credential depends on the repository.
type Scoped interface {
	Source
	// For is the source of one repository. Sources of repositories that share a credential may be one.
	For(repository string) Source
}

// For is the source of a repository, which is the source itself unless it is Scoped.
func For(s Source, repository string) Source {
	if sc, ok := s.(Scoped); ok {
		return sc.For(repository)
	}
	return s
}

var (
	_ Runner   = (*Refreshed)(nil)
	_ Renewer  = (*Refreshed)(nil)
	_ Reporter = (*Refreshed)(nil)
	_ Runner   = (*File)(nil)
	_ Reporter = (*File)(nil)
	_ Runner   = Env{}
	_ Reporter = Env{}
	_ Runner   = Pool(nil)
)
