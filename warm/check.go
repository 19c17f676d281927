package warm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/registrymirror/mirror/oci"
)

const (
	maxPlatforms = 32
	maxKey       = 255 // bytes of an idempotency key
)

var platformForm = regexp.MustCompile(`^[a-z0-9]{1,32}/[a-z0-9_]{1,32}(/[a-z0-9_.]{1,32})?$`)

// check reads the images of a request. The error is an *InvalidError with all that is wrong.
func check(r Request) ([]oci.Ref, error) {
	e := new(InvalidError)
	wrong := func(format string, args ...any) {
		e.Entries = append(e.Entries, Entry{Index: -1, Text: fmt.Sprintf(format, args...)})
	}
	refs := make([]oci.Ref, 0, len(r.Images))
	for i, image := range r.Images {
		ref, err := oci.ParseRef(image)
		if err != nil {
			e.Entries = append(e.Entries, Entry{Index: i, Image: image, Text: message(err)})
			continue
		}
		refs = append(refs, ref)
	}
	if len(r.Images) == 0 {
		wrong("there is no image; name at least one")
	}
	if len(r.Platforms) > maxPlatforms {
		wrong("%d platforms are more than %d; name those of your nodes", len(r.Platforms), maxPlatforms)
	}
	for _, p := range r.Platforms {
		if !platformForm.MatchString(p) {
			wrong("platform %q is not OS/ARCH or OS/ARCH/VARIANT; write as in linux/amd64", p)
		}
	}
	for _, w := range r.With {
		if w != Signatures && w != Referrers {
			wrong("%q can't be fetched with an image; write %s or %s", w, Signatures, Referrers)
		}
	}
	if r.Keep < 0 || r.MaxSize < 0 {
		wrong("keep and maxSize can't be negative; leave them out, or write more than 0")
	}
	if len(r.Key) > maxKey {
		wrong("the Idempotency-Key has %d bytes, and may have %d", len(r.Key), maxKey)
	}
	if len(e.Entries) > 0 {
		return nil, e
	}
	return refs, nil
}

// message is the text of an error of oci, without its code.
func message(err error) string {
	if e, ok := errors.AsType[errcode.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// sum is the same for requests that ask for the same.
func sum(r Request, refs []oci.Ref) string {
	h := sha256.New()
	for _, ref := range refs {
		fmt.Fprintln(h, ref)
	}
	platforms, with := slices.Sorted(slices.Values(r.Platforms)), slices.Sorted(slices.Values(r.With))
	fmt.Fprintln(h, strings.Join(platforms, " "), r.Keep, strings.Join(with, " "), r.MaxSize, r.By, r.Name)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
