package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// descriptor reads the descriptor at a key; nil where it is missing.
func (d *document) descriptor(k key) (*Descriptor, error) {
	if d.null(k) {
		return nil, nil
	}
	v, err := readDescriptor(d.values[k])
	if err != nil {
		return nil, fault(FaultBadDescriptor, "%s: %v", keyNames[k], err)
	}
	return &v, nil
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
	if d.values[k][0] != '[' {
		return nil, fault(FaultBadDescriptor, "%s is not a list", keyNames[k])
	}
	for i, b := range elements(d.values[k]) {
		if len(to) == maxDescriptors {
			return nil, fault(FaultTooMany, "it refers to more than %d pieces of content", maxDescriptors)
		}
		v, err := readDescriptor(b)
		if err != nil {
			return nil, fault(FaultBadDescriptor, "%s[%d]: %v", keyNames[k], i, err)
		}
		if n := len(to); n > 0 && to[n-1].MediaType == v.MediaType {
			v.MediaType = to[n-1].MediaType // one string for them all
		}
		to = append(to, Child{Descriptor: v, Manifest: k == keyManifests})
	}
	return to, nil
}

// described are the fields of a descriptor that are read: never its annotations and data, which may be as large as the
// document.
type described struct {
	MediaType    string   `json:"mediaType"`
	Digest       string   `json:"digest"`
	Size         int64    `json:"size"`
	URLs         firstURL `json:"urls"`
	ArtifactType string   `json:"artifactType"`
	Platform     *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		OSVersion    string `json:"os.version"`
		Variant      string `json:"variant"`
	} `json:"platform"`
}

// firstURL is the first of a descriptor's urls: it shows that the content is kept at another place. It is never followed.
type firstURL []string

// UnmarshalJSON implements json.Unmarshaler.
func (u *firstURL) UnmarshalJSON(b []byte) error {
	*u = nil
	if string(b) == "null" {
		return nil
	}
	if b[0] != '[' {
		return fmt.Errorf("its urls are not a list")
	}
	for _, first := range elements(b) {
		if first[0] != '"' {
			return fmt.Errorf("one of its urls is not a string")
		}
		*u = firstURL{unquoted(first)}
		break
	}
	return nil
}

// plainDescriptor is the size in bytes up to which a descriptor is decoded as it is.
const plainDescriptor = 512

// abridged is an object with only the members that are read. Keys are compared as the decoder compares them.
func abridged(b []byte) []byte {
	short := []byte{'{'}
	for name, v := range members(b) {
		for _, want := range [...]string{"mediaType", "digest", "size", "urls", "artifactType", "platform"} {
			if !strings.EqualFold(name, want) {
				continue
			}
			if len(short) > 1 {
				short = append(short, ',')
			}
			short = append(append(short, `"`+want+`":`...), v...)
		}
	}
	return append(short, '}')
}

// readDescriptor reads and checks a descriptor. The caller puts its place before the error.
func readDescriptor(b []byte) (v Descriptor, err error) {
	var d described
	if len(b) > plainDescriptor && b[0] == '{' {
		b = abridged(b)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return v, errors.New(shape(err))
	}
	v = Descriptor{
		MediaType: d.MediaType, Digest: Digest(d.Digest), Size: d.Size, URLs: d.URLs, ArtifactType: d.ArtifactType,
	}
	if p := d.Platform; p != nil {
		v.Platform = &Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, Variant: p.Variant}
	}
	return v, checkDescriptor(&v)
}

// checkDescriptor refuses a descriptor whose content could never be fetched and verified. Encoders write zero for a size that
// they do not know; unless the digest is that of no bytes, it becomes -1.
func checkDescriptor(v *Descriptor) error {
	if _, err := ParseDigest(string(v.Digest)); err != nil {
		return fmt.Errorf("digest %s is not sha256 or sha512 in lower-case hex", quote(string(v.Digest)))
	}
	if v.Size < 0 {
		return fmt.Errorf("size %d is negative", v.Size)
	}
	if v.Size == 0 && !VerifyDigest(v.Digest, nil) {
		v.Size = -1
	}
	return nil
}

// shape describes an error of the decoder in terms of the document, not of Go.
func shape(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return fmt.Sprintf("it is a %s", e.Value)
		}
		return fmt.Sprintf("its %s is a %s", e.Field, e.Value)
	}
	return err.Error()
}
