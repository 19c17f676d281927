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

// Failure is why one request failed: an answer that refuses, with a Status, or Err.
type Failure struct {
	Refusal
	Err        error
	Step       Step     // that broke
	Stage      StepName // the purpose of a request without an answer; else that of the step, or empty
	Redirected bool     // the request went to another host than the endpoint, where a redirect led
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return f.Err.Error()
	}
	return strings.TrimSpace(fmt.Sprintf("status %d %s", f.Status, f.Code))
}

func (f *Failure) Unwrap() error { return f.Err }

// RefusalIn is the answer that an error stands for. False: it stands for none.
func RefusalIn(err error) (Refusal, bool) {
	if f, ok := errors.AsType[*Failure](err); ok && f.Status != 0 && f.Err == nil {
		return f.Refusal, true
	}
	return Refusal{}, false
}

// PatienceError says that an endpoint, or the source of a credential, took longer than could be waited for.
type PatienceError struct{ After time.Duration }

func (e *PatienceError) Error() string {
	return fmt.Sprintf("no answer within %s", e.After.Round(time.Millisecond))
}

// Timeout is true, as net.Error has it.
func (e *PatienceError) Timeout() bool { return true }

// Unwrap makes errors.Is(err, context.DeadlineExceeded) true.
func (e *PatienceError) Unwrap() error { return context.DeadlineExceeded }

// IsBroken reports whether a connection broke, rather than that there was an answer or that the host cannot be reached: a
// second attempt may find another connection.
func IsBroken(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNABORTED)
}

// IsPermanent reports whether an error stays the same with each attempt.
func IsPermanent(err error) bool {
	return Is[*RealmError](err) || Is[*RedirectError](err) || Is[*AddressError](err) || Is[*AwayError](err) ||
		Is[*ProxyError](err) || Is[*tls.CertificateVerificationError](err)
}

// Is reports whether an error is of a type, or wraps one that is.
func Is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
