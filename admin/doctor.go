package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/coalesce"
)

// DoctorRequest is the body of POST /api/v1/doctor. The answer is a doctor.Report, with status 200 also where the image
// can't be pulled.
type DoctorRequest struct {
	Image    string `json:"image"`
	Platform string `json:"platform,omitempty"` // OS/ARCH[/VARIANT]; absent: that of the mirror's machine
}

// maxExaminations is how many images are examined at once: each may keep a connection to an upstream for a minute.
const maxExaminations = 4

// examinations runs examinations, at most maxExaminations at once. A second request for the same one waits for its result.
type examinations struct {
	o       *Options
	running coalesce.Group[DoctorRequest, *doctor.Report]
}

// examineImage answers with the report of an examination.
func (x *examinations) examineImage(_ http.ResponseWriter, r *http.Request) (any, error) {
	var q DoctorRequest
	if err := readJSON(r, &q); err != nil || q.Image == "" {
		return nil, badRequest(errors.New("the body must be {\"image\":\"NAME\"}, with \"platform\":\"OS/ARCH\" where that matters"))
	}
	if err := x.o.allowed(r, access.Read, q.Image); err != nil {
		return nil, err
	}
	report, _, err := x.running.Do(r.Context(), q, func(ctx context.Context) (*doctor.Report, error) {
		return x.o.Doctor(ctx, q.Image, q.Platform), nil
	})
	switch {
	case errors.Is(err, coalesce.ErrFull):
		return nil, busy(fmt.Sprintf("%d images are being examined; ask again in a moment", maxExaminations))
	case err != nil:
		return nil, errGone
	}
	return report, nil
}

// selfEvery is how long the result of the checks of the mirror is given out again: however often a caller asks, each upstream is asked
// at most twice a minute.
const selfEvery = 30 * time.Second

// selfChecks run the checks of the mirror itself, one at a time, to their end. Requests that come while they run get their result, and
// so do those of the half minute after it.
type selfChecks struct {
	run     func(ctx context.Context) *doctor.MirrorReport
	running coalesce.Group[struct{}, *doctor.MirrorReport]
	last    bounded.Expiring[struct{}, *doctor.MirrorReport]
}

// check answers with the report of the checks, also where something is broken.
func (s *selfChecks) check(_ http.ResponseWriter, r *http.Request) (any, error) {
	for name := range r.URL.Query() {
		return nil, badRequest(fmt.Errorf("unknown parameter %q; there are none", name))
	}
	if report, ok := s.last.Get(struct{}{}); ok {
		return report, nil
	}
	report, _, err := s.running.Do(r.Context(), struct{}{}, func(ctx context.Context) (*doctor.MirrorReport, error) {
		if report, ok := s.last.Get(struct{}{}); ok { // another call has just ended
			return report, nil
		}
		report := s.run(ctx)
		s.last.Put(struct{}{}, report, selfEvery, 1)
		return report, nil
	})
	if err != nil {
		return nil, errGone
	}
	return report, nil
}
