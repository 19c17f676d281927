package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Reloaded is the body of POST /api/v1/reload: the configuration was read again and taken.
type Reloaded struct {
	Changed []string `json:"changed"` // settings that are in use now; upstreams and rules as a whole each
	Restart []string `json:"restart"` // settings whose change waits for a restart, from this reload or an earlier one
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
	return fmt.Sprintf("the configuration was not reloaded, the old one stays in use: it has %d problems", len(e.Problems))
}

// reloadPatience is how long a reload may take: it reads files, and asks no host.
const reloadPatience = 20 * time.Second

// reload has the configuration read again.
func reload(again func(context.Context) (Reloaded, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), reloadPatience)
		defer cancel()
		done, err := again(ctx)
		refused, ok := errors.AsType[*NotReloaded](err)
		switch {
		case ok:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(map[string]any{
				"title": http.StatusText(http.StatusUnprocessableEntity), "status": http.StatusUnprocessableEntity,
				"detail": refused.Error(), "problems": refused.Problems,
			})
		case err != nil:
			Problem(w, http.StatusServiceUnavailable, "the configuration was not read again: "+err.Error()+"; ask again in a moment")
		default:
			done.Changed, done.Restart = append([]string{}, done.Changed...), append([]string{}, done.Restart...)
			writeJSON(w, done)
		}
	}
}
