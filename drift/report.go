package drift

import "time"

// Kind is where a tag means different images.
type Kind string

// The kinds of drift.
const (
	Pulled  Kind = "pulled"  // clients got different digests of one tag
	Running Kind = "running" // pods run another digest than the tag means now
	Restart Kind = "restart" // pods would get another digest if they were started again
)

// Kinds are all kinds, in the order in which they are shown.
var Kinds = []Kind{Pulled, Running, Restart}

// Report is what was found. It is the body of the API.
type Report struct {
	Drift []Tag    `json:"drift"` // sorted by image and kind
	Notes []string `json:"notes,omitempty"`
}

// Tag is one tag that means different images in different places.
type Tag struct {
	Image   string   `json:"image"`
	Kind    Kind     `json:"kind"`
	Digests []Digest `json:"digests"` // the current one first, then by the number of places
	Change  *Change  `json:"change,omitempty"`
}

// Digest is one of the digests, with the places where it is.
type Digest struct {
	Digest  string   `json:"digest"`            // as the place has it: of an index, a manifest or a config
	Current bool     `json:"current,omitempty"` // a pull of the tag gets it now
	Clients []string `json:"clients,omitempty"`
	Pods    []string `json:"pods,omitempty"` // NAMESPACE/NAME; of a workload without pods NAMESPACE/KIND/NAME
}

// Change is what a restart would change. What is not in the cache is not known, and zero.
type Change struct {
	From         string    `json:"from"` // digest
	To           string    `json:"to"`
	FromCreated  time.Time `json:"fromCreated,omitzero"`
	ToCreated    time.Time `json:"toCreated,omitzero"`
	FromSize     int64     `json:"fromSize,omitempty"` // bytes
	ToSize       int64     `json:"toSize,omitempty"`
	Layers       int       `json:"layers,omitempty"`       // of the image that would come
	LayersCommon int       `json:"layersCommon,omitempty"` // of these, that the running image has, too
}
