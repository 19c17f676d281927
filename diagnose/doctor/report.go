package doctor

import (
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

// State is how a step went.
type State string

// The states.
const (
	OK       State = "ok"
	Warning  State = "warning"   // it works, and something is not as it should be
	Broken   State = "broken"    // and so the endpoint gives no more
	NotTried State = "not-tried" // since one before it broke
)

// The stages that are not upstream's.
const (
	StageParse = "parse" // the image's name
	StageRoute = "route" // which upstream it means
	// StageAccess is what the mirror's own rules say, for an upstream that goes by them.
	StageAccess = "access"
	// StageChallenge is a registry's answer that it wants a login or a token, where there is none to be had.
	StageChallenge = "challenge"
)

// Report is what an examination has shown. What is unknown is absent.
type Report struct {
	Image    string `json:"image"` // canonical, where the name could be read
	Platform string `json:"platform,omitempty"`
	Upstream string `json:"upstream,omitempty"`
	Digest   string `json:"digest,omitempty"` // that the reference means
	// OK says that the image can be pulled: an endpoint gave all that belongs to it.
	OK bool `json:"ok"`
	// CannotRun is for what there is nothing in an image that can be pulled, and whose platform that is: this machine's, or
	// that of all nodes. It is never set where a platform was asked for.
	CannotRun string    `json:"cannotRun,omitempty"`
	At        string    `json:"at"` // where the examination ran: "here", or "mirror" for the running one
	Began     time.Time `json:"began"`
	Took      Duration  `json:"took"`
	Steps     []Step    `json:"steps"`
	// Failure is why it can't be pulled: that of the first step that broke. Nil where it can.
	Failure *Failure `json:"failure,omitempty"`
	Cache   *Cache   `json:"cache,omitempty"` // of a running mirror alone
}

// Step is one line of a Report.
type Step struct {
	Stage    string   `json:"stage"` // as of failures: dns, dial, proxy, tls, ping, token, manifest, ...
	State    State    `json:"state"`
	Endpoint string   `json:"endpoint,omitempty"`
	Host     string   `json:"host,omitempty"`
	Addr     string   `json:"addr,omitempty"`
	Status   int      `json:"status,omitempty"`
	Requests int      `json:"requests,omitempty"` // where they were several
	Took     Duration `json:"took,omitempty"`
	Detail   string   `json:"detail,omitempty"` // one line: its result
	// Of one that is broken or warns.
	Reason string `json:"reason,omitempty"`
	Remedy string `json:"remedy,omitempty"`

	Certificates []Certificate `json:"certificates,omitempty"` // of tls, the host's own first
	Skew         Duration      `json:"skew,omitempty"`         // of clock: by how much the host's is before ours
	Credential   *Credential   `json:"credential,omitempty"`
	Limits       []Limit       `json:"limits,omitempty"`
	Platforms    []string      `json:"platforms,omitempty"` // of platform: those of the image
}

// Certificate is one of a chain.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names,omitempty"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// Credential is the one that a registry was shown, and how the registry took it. It holds no secret.
type Credential struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind,omitempty"`
	State     string    `json:"state"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	LastError string    `json:"lastError,omitempty"`
}

// Limit is what a registry says is left of a rate limit.
type Limit struct {
	Credential string    `json:"credential,omitempty"` // absent: of anonymous requests
	Source     string    `json:"source,omitempty"`     // the address that is counted
	Limit      int64     `json:"limit,omitempty"`
	Remaining  int64     `json:"remaining"`
	Window     Duration  `json:"window,omitempty"`
	ResetAt    time.Time `json:"resetAt,omitzero"`
}

// Failure is why an image can't be pulled.
type Failure struct {
	Reason   diagnose.Reason `json:"reason"`
	Class    diagnose.Class  `json:"class"`
	Summary  string          `json:"summary"`
	Remedy   string          `json:"remedy"`
	Evidence []string        `json:"evidence,omitempty"`
	Upstream string          `json:"upstream,omitempty"`
	Host     string          `json:"host,omitempty"`
	Stage    string          `json:"stage,omitempty"`
	Status   int             `json:"status,omitempty"` // the registry's
}

func failureOf(f diagnose.Finding) *Failure {
	return &Failure{
		Reason: f.Reason, Class: f.Class, Summary: f.Summary, Remedy: f.Remedy, Evidence: f.Evidence, Upstream: f.Upstream,
		Host: f.Host, Stage: f.Stage, Status: f.Status,
	}
}

// Cache is what a mirror has of the image.
type Cache struct {
	Digest    string    `json:"digest,omitempty"`   // what the tag meant when it was last pulled
	CheckedAt time.Time `json:"checkedAt,omitzero"` // when the upstream last said so
	Manifest  bool      `json:"manifest"`           // what it means is cached
	Blobs     int       `json:"blobs"`              // of the image for the platform, that are cached
	Of        int       `json:"of"`                 // that it has; 0: not known, since the upstream did not say
}

// Duration is written as Go writes durations, in milliseconds.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

func (d Duration) String() string {
	v := time.Duration(d)
	if v.Abs() < time.Millisecond {
		return v.Round(10 * time.Microsecond).String()
	}
	return v.Round(time.Millisecond).String()
}

// At is a time in a report: in UTC, of seconds.
func At(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
