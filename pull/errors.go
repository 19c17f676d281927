package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// TimeoutError says that the upstream did not answer in the time that a client can wait. The request to it may still go
// on, so that the next client finds its result.
type TimeoutError struct {
	Ref    oci.Ref
	Waited time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%s did not answer for %s within %s", e.Ref.Host, e.Ref.Name, e.Waited.Round(time.Millisecond))
}

// Timeout is true, as net.Error has it.
func (e *TimeoutError) Timeout() bool { return true }

// Unwrap makes errors.Is(err, context.DeadlineExceeded) true.
func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// HeldError says that a tag is not served, since the mirror knows no digest of it for as long as the policy wants.
type HeldError struct {
	Ref    oci.Ref
	Latest oci.Digest // that the upstream said last
	MinAge time.Duration
	Until  time.Time // when the tag is served, if nothing changes
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s:%s is held until %s: no digest of it is known for %s", e.Ref.Repo, e.Ref.Tag,
		e.Until.UTC().Format(time.RFC3339), e.MinAge)
}

// FixedError says that a tag could not be served with the one digest that it may be served with.
type FixedError struct {
	Ref    oci.Ref
	Choice catalog.Choice
	Err    error
}

func (e *FixedError) Error() string {
	return fmt.Sprintf("%s:%s is fixed to %s: %v", e.Ref.Repo, e.Ref.Tag, e.Choice.Digest, e.Err)
}

func (e *FixedError) Unwrap() error { return e.Err }

func isHeld(err error) bool {
	_, ok := errors.AsType[*HeldError](err)
	return ok
}

func isFixed(err error) bool {
	_, ok := errors.AsType[*FixedError](err)
	return ok
}

// ClaimError says that a manifest gives a blob another size than the upstream has: the image is at fault. It wraps the
// mismatch.
type ClaimError struct {
	Ref   oci.Ref
	Claim int64 // bytes, by the manifest
	Size  int64 // bytes, as Host has it
	Host  string
	Err   error
}

func (e *ClaimError) Error() string {
	return fmt.Sprintf("%s@%s: its manifest says %d bytes, %s has %d", e.Ref.Repo, e.Ref.Digest, e.Claim, e.Host, e.Size)
}

func (e *ClaimError) Unwrap() error { return e.Err }

// ImageError says that the documents of an image are not those of one that can be pulled, though each of them can be read.
type ImageError struct {
	Ref    oci.Ref
	Detail string // a sentence without its end
}

func (e *ImageError) Error() string { return fmt.Sprintf("%s can't be pulled: %s", e.Ref, e.Detail) }

// How long failures are remembered.
const (
	memoryMissing  = 10 * time.Second // a tag, a list
	memoryDigest   = 2 * time.Second  // a digest, or a signature of one: the client expects it, so it may well come
	memoryRefused  = 10 * time.Second // 401, 403 and the other answers that mean no
	memoryBroken   = 2 * time.Second  // 5xx, network, no answer in time
	memoryLimited  = time.Second      // 429 without Retry-After: the upstream's own pause gets longer, where it goes on
	memoryLimitMax = time.Hour
	memoryContent  = time.Minute      // bytes of another digest or size than was asked for, for the second time
	memoryWrong    = 10 * time.Minute // in which the second time has to come
)

// remembered returns for how long err is the answer to all requests for the same; 0: not at all. expected says that the
// content was asked for by a digest, or by a tag that is made of one.
func remembered(err error, expected bool) time.Duration {
	if errors.Is(err, context.Canceled) || errors.Is(err, errStopped) || errors.Is(err, flight.ErrClosed) || ownReason(err) {
		return 0 // the mirror gave up, and the upstream has not failed
	}
	if wrongContent(err) {
		return memoryContent
	}
	e, ok := errors.AsType[*fault.Error](err)
	switch {
	case unfit(err):
		return memoryRefused
	case !ok, e.Status < 400, e.Status >= 500:
		return memoryBroken
	case missing(e) && expected:
		return memoryDigest
	case missing(e):
		return memoryMissing
	case errors.Is(e.Step().Err, fault.ErrNotAsked):
		return memoryBroken // upstream decides that anew, and sees first that the limit was reset
	case e.Status == 429 && e.RetryAfter > 0:
		return min(e.RetryAfter, memoryLimitMax)
	case e.Status == 429:
		return memoryLimited
	}
	return memoryRefused
}

// missing reports that the upstream says it does not exist.
func missing(e *fault.Error) bool { return e.Status == 404 || e.Status == 410 }

func isMissing(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && missing(e)
}

// wrongContent reports bytes of another digest or size than was asked for.
func wrongContent(err error) bool {
	if _, ok := errors.AsType[*flight.MismatchError](err); ok {
		return true
	}
	e, ok := errors.AsType[*fault.ContentError](err)
	return ok && (e.Kind == fault.ContentDigest || e.Kind == fault.ContentSize)
}

// overloaded reports that there was no memory for a document.
func overloaded(err error) bool {
	_, ok := errors.AsType[*memory.FullError](err)
	return ok
}

// isReserved reports that a request was not made since what is left of a limit is reserved for clients.
func isReserved(err error) bool { return fault.Is[*fault.ReserveError](err) }

// ownReason reports that the upstream was not asked, or not in full, for a reason that it has no part in.
func ownReason(err error) bool { return overloaded(err) || isReserved(err) }

// unfit reports a document that can't be served as a manifest. It would be as unfit, and perhaps as large, next time.
func unfit(err error) bool {
	e, ok := errors.AsType[*fault.ContentError](err)
	return ok && (e.Kind == fault.ContentNotManifest || e.Kind == fault.ContentTooLarge)
}

// answered reports whether the upstream did answer. A refusal is an answer, and so worth waiting for next time. A limit, a
// 5xx, a broken connection and a page that no registry sends are not.
func answered(err error) bool {
	if err == nil {
		return true
	}
	e, ok := errors.AsType[*fault.Error](err)
	return ok && e.Status >= 400 && e.Status < 500 && e.Status != 429
}
