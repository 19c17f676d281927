package transfer_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/transfer"
)

// TestWorthRepeating has the answers and errors after which an endpoint is asked again: before the first byte, for which a
// client waits, and in the middle of a blob.
func TestWorthRepeating(t *testing.T) {
	t.Parallel()
	refused := func(step fault.StepName, status int, after time.Duration) error {
		return &fault.Failure{
			Refusal: fault.Refusal{Status: status, RetryAfter: after, Size: -1}, Step: fault.Step{Name: step},
		}
	}
	registry := func(status int) error { return refused(fault.StepBlobRegistry, status, 0) }
	host := func(status int) error { return refused(fault.StepBlobHost, status, 0) }
	wrong := func(kind fault.ContentKind) error {
		return &fault.Failure{Err: &fault.ContentError{Kind: kind}, Step: fault.Step{Name: fault.StepBlobRegistry}}
	}
	for _, tt := range []struct {
		name          string
		err           error
		first, middle bool
	}{
		{"500", registry(500), true, true},
		{"501", registry(501), false, false},
		{"503 for a minute", refused(fault.StepBlobRegistry, 503, time.Minute), false, true},
		{"503 for an hour", refused(fault.StepBlobRegistry, 503, time.Hour), false, false},
		{"400", registry(400), false, false},
		{"401", registry(401), false, true},
		{"403", registry(403), false, true},
		{"404", registry(404), false, false},
		{"408", registry(408), false, true},
		{"416", registry(416), false, true},
		{"429", registry(429), false, true},
		{"418", registry(418), false, false},
		{"400 of the blob host, whose signature has expired", host(400), true, true},
		{"403 of the blob host, whose signature has expired", host(403), true, true},
		{"404 of the blob host", host(404), false, true},
		{"another range", wrong(fault.ContentRange), true, true},
		{"a stall", wrong(fault.ContentStalled), true, true},
		{"another size", wrong(fault.ContentSize), false, true},
		{"a broken connection", io.ErrUnexpectedEOF, true, true},
		{"no connection", &net.OpError{Op: "dial", Err: io.EOF}, false, true},
		{"an untrusted certificate", &tls.CertificateVerificationError{Err: io.EOF}, false, false},
		{"no turn", &fault.QueueError{}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := transfer.WorthRepeating(tt.err, true, false); got != tt.first {
				t.Errorf("before the first byte: %t", got)
			}
			if got := transfer.WorthRepeating(tt.err, false, false); got != tt.middle {
				t.Errorf("in the middle: %t", got)
			}
		})
	}
	if transfer.WorthRepeating(wrong(fault.ContentRange), false, true) {
		t.Error("wrong bytes of a further connection, which the first one brings, are asked for again")
	}
}
