package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// outcome is what the end of a request says about its endpoint.
type outcome int

const (
	inconclusive outcome = iota // it ended for a reason of our own
	answered                    // it works: a refusal is an answer
	limited
	failed      // perhaps by chance
	unreachable // or silent: no request gets through
)

// judge is the outcome of a request that ended with err. Bodies: it is about the bytes of blobs, which may come from another
// host.
func judge(ctx context.Context, k Kind, err error) (o outcome, bodies bool) {
	f, _ := errors.AsType[*fault.Failure](err)
	bodies = k == Blobs && f != nil &&
		(f.Stage == fault.StepBlobHost || f.Step.Name == fault.StepBlobHost || f.Step.Name == fault.StepBody)
	if f != nil && f.Redirected && f.Stage == fault.StepList {
		return answered, bodies // a list that it redirected for is another host's
	}
	if r, ok := fault.RefusalIn(err); ok {
		switch {
		case r.Status == http.StatusTooManyRequests, r.Status == http.StatusServiceUnavailable && r.RetryAfter > 0:
			return limited, bodies
		case r.Status >= 500 && r.Status != http.StatusNotImplemented:
			return failed, bodies
		}
		return answered, bodies
	}
	if isOwn(ctx, err) {
		return inconclusive, bodies
	}
	if e, ok := errors.AsType[*fault.ContentError](err); ok {
		switch {
		case guard.Claim && e.Claimed:
			return answered, bodies
		case e.Kind == fault.ContentStalled, e.Kind == fault.ContentSlow:
			return unreachable, bodies
		case e.Kind == fault.ContentTooLarge, e.Kind == fault.ContentNotManifest:
			return answered, bodies
		}
		return failed, bodies
	}
	switch {
	case err == nil, fault.Is[*oci.ManifestError](err), fault.Is[*fault.AwayError](err):
		return answered, bodies
	case fault.Is[*tls.CertificateVerificationError](err):
		return unreachable, bodies
	case fault.IsBroken(err), fault.IsPermanent(err):
		return failed, bodies
	}
	return unreachable, bodies
}

// isOwn reports whether a request ended for a reason of our own: no turn, no memory, what is left is reserved, or its client left.
func isOwn(ctx context.Context, err error) bool {
	return fault.Is[*fault.QueueError](err) || fault.Is[*memory.FullError](err) || fault.Is[*fault.ReserveError](err) ||
		ctx.Err() != nil && !fault.Is[*fault.PatienceError](err)
}
