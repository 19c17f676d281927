package kube

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/internal/text"
)

// NodeEvent is something that a person who looks at a node should see.
type NodeEvent struct {
	Node     string
	Instance string // that says it, as the name of its pod
	Reason   string // one word, by which people filter
	Message  string
	Warning  bool
}

// PostNodeEvent creates an Event on a node. It stands in the namespace default, as those of the kubelet on its node do.
func (c *Client) PostNodeEvent(ctx context.Context, n NodeEvent) error {
	now := time.Now()
	kind := "Normal"
	if n.Warning {
		kind = "Warning"
	}
	e := event{
		APIVersion: "v1", Kind: "Event",
		Metadata: objectReference{Name: fmt.Sprintf("%s.%x", cutName(n.Node), now.UnixNano()), Namespace: "default"},
		// The kubelet gives the node's name as its UID too, and "kubectl describe node" looks for that.
		InvolvedObject: objectReference{APIVersion: "v1", Kind: "Node", Name: n.Node, UID: n.Node},
		Reason:         n.Reason, Type: kind, Message: text.Line(n.Message, maxText),
		Source: eventSource{Component: "mirror", Host: n.Node}, Component: "mirror", Instance: text.Line(n.Instance, 128),
		Count: 1, FirstTimestamp: stamp(now), LastTimestamp: stamp(now),
	}
	return c.ask(ctx, "create event", http.MethodPost, "/api/v1/namespaces/default/events", nil, e, nil)
}
