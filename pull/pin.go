package pull

import "github.com/registrymirror/mirror/oci"

type pins struct{}

func newPins() *pins { return &pins{} }

func (s *pins) holds(oci.Ref, []oci.Digest) (oci.Ref, bool) { return oci.Ref{}, false }
