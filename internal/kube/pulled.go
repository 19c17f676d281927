package kube

import (
	"context"
	"net/http"
	"regexp"
	"time"
)

// ImagePull is a pull of an image that a kubelet says it has made.
type ImagePull struct {
	PodUID, Field string // the container, as RunningImage has it
	Began, Ended  time.Time
}

// pulledKind are the Events of kubelets on images of pods that are there.
var pulledKind = kind{"Event", "events", "/api/v1/events", "reason=Pulled,involvedObject.kind=Pod"}

// pulledText is what the kubelet says of a pull: since Kubernetes 1.18 how long it took, since 1.27 also with the time in which it
// waited for others. The Event of an image that was on the node says "already present on machine".
var pulledText = regexp.MustCompile(`Successfully pulled image "[^"]*"(?: in ([0-9.a-zµ]+))?(?: \(([0-9.a-zµ]+) including waiting\))?`)

// withoutDuration is how long a pull may have taken whose Event does not say it.
const withoutDuration = 10 * time.Minute

// pulledEvent is what we need to know of an Event of pulledKind.
type pulledEvent struct {
	InvolvedObject struct{ UID, FieldPath string }
	Message        string
	LastTimestamp  time.Time
	EventTime      time.Time
}

// pull is the pull that an Event is about. False: it is about none.
func (e *pulledEvent) pull() (ImagePull, bool) {
	m := pulledText.FindStringSubmatch(e.Message)
	ended := e.LastTimestamp
	if ended.IsZero() {
		ended = e.EventTime
	}
	if m == nil || ended.IsZero() {
		return ImagePull{}, false
	}
	took := withoutDuration
	for _, text := range m[1:] {
		if d, err := time.ParseDuration(text); err == nil {
			took = d
		}
	}
	return ImagePull{e.InvolvedObject.UID, e.InvolvedObject.FieldPath, ended.Add(-took), ended}, true
}

// ImagePulls lists the pulls of which there is an Event: the API server keeps these for an hour. allowed is false if the mirror may
// not list Events.
func (c *Client) ImagePulls(ctx context.Context) (found []ImagePull, allowed bool, err error) {
	found, _, err = list(ctx, c, pulledKind, imagePages, nil, (*pulledEvent).pull)
	if refusedWith(err) == http.StatusForbidden {
		return nil, false, nil
	}
	return found, true, err
}
