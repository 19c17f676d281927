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

// ImagePulls lists the pulls of which there is an Event: the API server keeps these for an hour. allowed is false if the mirror may
// not list Events.
func (c *Client) ImagePulls(ctx context.Context) (found []ImagePull, allowed bool, err error) {
	type item struct {
		InvolvedObject struct{ UID, FieldPath string }
		Message        string
		LastTimestamp  time.Time
		EventTime      time.Time
	}
	for range 2 { // a list that expires between two pages is read once more
		found = nil
		_, _, err = pages(ctx, c, pulledKind, imagePages, nil, func(page []item) {
			for _, e := range page {
				m := pulledText.FindStringSubmatch(e.Message)
				if m == nil {
					continue
				}
				ended := e.LastTimestamp
				if ended.IsZero() {
					ended = e.EventTime
				}
				took := withoutDuration
				for _, text := range m[1:] {
					if d, err := time.ParseDuration(text); err == nil {
						took = d
					}
				}
				if !ended.IsZero() {
					found = append(found, ImagePull{e.InvolvedObject.UID, e.InvolvedObject.FieldPath, ended.Add(-took), ended})
				}
			}
		})
		if refusedWith(err) != http.StatusGone {
			break
		}
	}
	if refusedWith(err) == http.StatusForbidden {
		return nil, false, nil
	}
	return found, true, err
}
