package fault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
)

// fault is why a request failed: an answer that refuses (status is set), or err. Step is where.
type Failure struct {
	Refusal
	Err        error
	Step       Step
	Stage      StepName // what for the request was that never got an answer; else empty
	Redirected bool     // it was made to another host than the endpoint, where a redirect led
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return f.Err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("status %d %s", f.Status, f.Code))
}

func (f *Failure) Unwrap() error { return f.Err }

// refusalIn is the answer that an error stands for.
func RefusalIn(err error) (Refusal, bool) {
	if f, ok := errors.AsType[*Failure](err); ok && f.Status != 0 && f.Err == nil {
		return f.Refusal, true
	}
	return Refusal{}, false
}

// patienceError says that an endpoint took too long, as there were others to ask.
type PatienceError struct{ After time.Duration }

func (e *PatienceError) Error() string {
	return fmt.Sprintf("no answer within %s", e.After.Round(time.Millisecond))
}

// Timeout is true, as net.Error has it.
func (e *PatienceError) Timeout() bool { return true }

// Unwrap makes errors.Is(err, context.DeadlineExceeded) true.
func (e *PatienceError) Unwrap() error { return context.DeadlineExceeded }

// broke reports whether a connection broke, as against an answer or a host that can't be reached: a second attempt
// may find another.
func IsBroken(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || isReset(err)
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}

// final reports whether an error stays, however often one asks.
func IsPermanent(err error) bool {
	if _, ok := errors.AsType[*RealmError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*RedirectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*AddressError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*AwayError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*ProxyError](err); ok {
		return true
	}
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}
