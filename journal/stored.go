package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

// storedVersion is the version of storedFailure that is written. A form that this one cannot be read as takes the next
// number; records of a version that a mirror does not know are dropped.
const storedVersion = 1

// storedFailure is a Failure as the table holds it. Fields may be added, and are never renamed.
type storedFailure struct {
	Version   int              `json:"version,omitempty"` // absent: written before versions, in the form of version 1
	ID        string           `json:"id"`
	Reason    diagnose.Reason  `json:"reason"`
	Class     diagnose.Class   `json:"class"`
	Summary   string           `json:"summary"`
	Remedy    string           `json:"remedy"`
	Evidence  []string         `json:"evidence,omitempty"`
	Image     string           `json:"image,omitempty"`
	Platform  string           `json:"platform,omitempty"`
	Upstream  string           `json:"upstream,omitempty"`
	Host      string           `json:"host,omitempty"`
	Stage     string           `json:"stage,omitempty"`
	Status    int              `json:"status,omitempty"`
	Outcome   Outcome          `json:"outcome"`
	Client    string           `json:"client,omitempty"`
	UserAgent string           `json:"userAgent,omitempty"`
	Clients   map[string]int64 `json:"clients,omitempty"`
	Count     int64            `json:"count"`
	FirstSeen time.Time        `json:"firstSeen"`
	LastSeen  time.Time        `json:"lastSeen"`
	Source    string           `json:"source,omitempty"` // the failure is charged to it; absent: to Client
}

// encodeFailure is the stored form of a failure that is charged to a source.
func encodeFailure(f Failure, source string) ([]byte, error) {
	return json.Marshal(storedFailure{
		Version: storedVersion, ID: f.ID, Reason: f.Reason, Class: f.Class, Summary: f.Summary, Remedy: f.Remedy,
		Evidence: f.Evidence, Image: f.Image, Platform: f.Platform, Upstream: f.Upstream, Host: f.Host, Stage: f.Stage,
		Status: f.Status, Outcome: f.Outcome, Client: f.Client, UserAgent: f.UserAgent, Clients: f.Clients, Count: f.Count,
		FirstSeen: f.FirstSeen, LastSeen: f.LastSeen, Source: source,
	})
}

// decodeFailure reads the stored form.
func decodeFailure(b []byte) (s storedFailure, err error) {
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	if s.Version > storedVersion {
		return s, fmt.Errorf("version %d is newer than %d", s.Version, storedVersion)
	}
	return s, nil
}

// failure is the failure that was stored.
func (s *storedFailure) failure() Failure {
	return Failure{
		Finding: diagnose.Finding{
			Reason: s.Reason, Class: s.Class, Summary: s.Summary, Remedy: s.Remedy, Evidence: s.Evidence,
			Declined: s.Outcome == Declined, Upstream: s.Upstream, Host: s.Host, Stage: s.Stage, Status: s.Status,
		},
		ID: s.ID, Image: s.Image, Platform: s.Platform, Outcome: s.Outcome, Client: s.Client, UserAgent: s.UserAgent,
		Clients: s.Clients, Count: s.Count, FirstSeen: s.FirstSeen, LastSeen: s.LastSeen,
	}
}
