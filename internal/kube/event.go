package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/journal"
)

// event is a core/v1 Event.
type event struct {
	APIVersion     string          `json:"apiVersion"`
	Kind           string          `json:"kind"`
	Metadata       objectReference `json:"metadata"`
	InvolvedObject objectReference `json:"involvedObject"`
	Reason         string          `json:"reason"`
	Message        string          `json:"message"`
	Type           string          `json:"type"`
	Source         eventSource     `json:"source"`
	Count          int             `json:"count"` // 0: it isn't there yet
	FirstTimestamp string          `json:"firstTimestamp"`
	LastTimestamp  string          `json:"lastTimestamp"`
	Component      string          `json:"reportingComponent"`
	Instance       string          `json:"reportingInstance"`

	last time.Time // when it was written
}

// objectReference names an object. As the metadata of an Event it has a name and a namespace alone.
type objectReference struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
	FieldPath  string `json:"fieldPath,omitempty"`
}

type eventSource struct {
	Component string `json:"component"`
	Host      string `json:"host,omitempty"`
}

// newEvent is not there yet. Its reason is the kubelet's word for a pull that failed, by which people filter Events. Its
// name tells pod and failure, so that all mirrors of a cluster count on one Event.
func newEvent(h holder, f journal.Failure, instance string) *event {
	m := h.pod.Metadata
	sum := sha256.Sum256([]byte(m.UID + " " + f.ID))
	return &event{
		APIVersion: "v1", Kind: "Event",
		Metadata: objectReference{Name: cutName(m.Name) + "." + hex.EncodeToString(sum[:8]), Namespace: m.Namespace},
		InvolvedObject: objectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: m.Namespace, Name: m.Name, UID: m.UID, FieldPath: h.field,
		},
		Reason: "Failed", Type: "Warning", Message: message(f),
		Source: eventSource{Component: "mirror", Host: h.pod.Spec.NodeName}, Component: "mirror", Instance: text.Line(instance, 128),
	}
}

// cutName leaves room for the rest of a name of at most 253 bytes.
func cutName(s string) string {
	const most = 253 - 1 - 16
	for len(s) > most || s != "" && (s[len(s)-1] == '-' || s[len(s)-1] == '.') {
		s = s[:len(s)-1]
	}
	return s
}

// message is what happened and what to do, in the form in which clients are told it.
func message(f journal.Failure) string {
	summary := strings.TrimPrefix(f.Summary, "the mirror ") // it has just been named
	s := fmt.Sprintf("Failed to pull image %q: (mirror: %s", f.Image, summary)
	end := " [" + f.ID + "])"
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return text.Line(s, maxText-len(end)) + end
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
