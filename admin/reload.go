package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Reloaded is the body of POST /api/v1/reload: the configuration was read again, and is in use.
type Reloaded struct {
	Changed []string `json:"changed"`           // settings that are in use now; upstreams and rules count as one each
	Removed []string `json:"removed,omitempty"` // upstreams that are no longer in use
	Restart []string `json:"restart"`           // settings whose change needs a restart, from this reload or an earlier one
}

// NotReloaded is the error of a reload that was refused: the old configuration stays in use.
type NotReloaded struct {
	Problems []string // each with its file, line and column where it has them
}

// Error is one line.
func (e *NotReloaded) Error() string {
	if len(e.Problems) == 1 {
		return "the configuration was not reloaded, the old one stays in use: " + e.Problems[0]
	}
	return fmt.Sprintf("the configuration was not reloaded, the old one stays in use: the new one has %d problems", len(e.Problems))
}

// reloadPatience is how long a reload may take: it reads files, and contacts no host.
const reloadPatience = 20 * time.Second

// reload has the configuration read again.
func (o Options) reload(_ http.ResponseWriter, r *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), reloadPatience)
	defer cancel()
	done, err := o.Reload(ctx)
	if refused, ok := errors.AsType[*NotReloaded](err); ok {
		return nil, &refusal{status: http.StatusUnprocessableEntity, detail: refused.Error(), problems: refused.Problems}
	}
	if err != nil {
		return nil, &refusal{
			status: http.StatusServiceUnavailable, detail: "the configuration was not read again: " + err.Error() + "; ask again in a moment",
		}
	}
	audit(r, o.Log, "configuration reloaded by an operator", "items", strings.Join(done.Changed, " "))
	return Reloaded{Changed: append([]string{}, done.Changed...), Removed: done.Removed, Restart: append([]string{}, done.Restart...)}, nil
}
