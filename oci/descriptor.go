package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// descriptor is the one at a key, nil where it is missing.
func (d *document) descriptor(k key) (*Descriptor, error) {
	if d.null(k) {
		return nil, nil
	}
	v := new(Descriptor)
	if err := json.Unmarshal(d.values[k], v); err != nil {
		return nil, fault(FaultBadDescriptor, "%s: %s", keyNames[k], shape(err))
	}
	if err := checkDescriptor(v); err != nil {
		return nil, fault(FaultBadDescriptor, "%s: %v", keyNames[k], err)
	}
	return v, nil
}

// children appends the descriptors at a key, one or a list. They are read one by one, so that a document of a million
// empty entries costs no more than the first that is wrong.
func (d *document) children(to []Child, k key) ([]Child, error) {
	if d.null(k) {
		return to, nil
	}
	if k == keyConfig {
		v, err := d.descriptor(k)
		if err != nil {
			return nil, err
		}
		return append(to, Child{Descriptor: *v}), nil
	}
	dec := json.NewDecoder(bytes.NewReader(d.values[k]))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, fault(FaultBadDescriptor, "%s is not a list", keyNames[k])
	}
	for i := 0; dec.More(); i++ {
		if len(to) == maxDescriptors {
			return nil, fault(FaultTooMany, "it has more than %d descriptors", maxDescriptors)
		}
		c := Child{Manifest: k == keyManifests}
		if err := dec.Decode(&c.Descriptor); err != nil {
			return nil, fault(FaultBadDescriptor, "%s[%d]: %s", keyNames[k], i, shape(err))
		}
		if err := checkDescriptor(&c.Descriptor); err != nil {
			return nil, fault(FaultBadDescriptor, "%s[%d]: %v", keyNames[k], i, err)
		}
		to = append(to, c)
	}
	return to, nil
}

// checkDescriptor refuses what could never be fetched and verified. A size of zero with the digest of something is
// how encoders write a size that they do not know; it becomes -1.
func checkDescriptor(v *Descriptor) error {
	d, err := ParseDigest(string(v.Digest))
	if err != nil {
		return fmt.Errorf("digest %s is not sha256 or sha512 in lower-case hex", quote(string(v.Digest)))
	}
	if v.Size < 0 {
		return fmt.Errorf("size %d is negative", v.Size)
	}
	if v.Size == 0 && d != emptySHA256 && d != emptySHA512 {
		v.Size = -1
	}
	return nil
}

// shape says in words of the document what a decoder says in words of Go.
func shape(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return fmt.Sprintf("it is a %s", e.Value)
		}
		return fmt.Sprintf("its %s is a %s", e.Field, e.Value)
	}
	return err.Error()
}
