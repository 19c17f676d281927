package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// refusal is an error that a client is answered with.
type refusal struct {
	status     int
	detail     string   // what is wrong, and what to do
	retryAfter int      // seconds; 0: it is not said
	problems   []string // one by one, where there are several
}

func (e *refusal) Error() string { return e.detail }

func badRequest(err error) error { return &refusal{status: http.StatusBadRequest, detail: err.Error()} }

// firstOf is a list of problems, cut to a length that fits an answer.
func firstOf(problems []string, most int) []string {
	if len(problems) > most {
		return append(problems[:most:most], fmt.Sprintf("and %d more", len(problems)-most))
	}
	return problems
}

// busy asks the client to send its request again in ten seconds.
func busy(detail string) error {
	return &refusal{status: http.StatusServiceUnavailable, detail: detail, retryAfter: 10}
}

// errGone is the error of a handler whose client has left: there is nothing to answer.
var errGone = errors.New("the client has left")

// errAnswered is the error of a handler that has written its answer.
var errAnswered = errors.New("the answer is written")

// noContent is the body of an answer without one.
var noContent any = struct{}{}

// accepted is the body of an answer whose work is not done yet.
type accepted struct{ body any }

// answer makes a handler of a function that returns the body of its answer, which is JSON, or an error.
func answer(f func(w http.ResponseWriter, r *http.Request) (body any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := f(w, r)
		refused, ok := errors.AsType[*refusal](err)
		status := http.StatusOK
		if a, later := body.(accepted); later {
			body, status = a.body, http.StatusAccepted
		}
		switch {
		case err == nil && body == noContent:
			w.WriteHeader(http.StatusNoContent)
		case err == nil:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(body)
		case ok:
			refused.write(w)
		case !errors.Is(err, errGone) && !errors.Is(err, errAnswered):
			Problem(w, http.StatusInternalServerError, err.Error())
		}
	}
}

// write writes an error as RFC 9457 has it.
func (e *refusal) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	w.WriteHeader(e.status)
	body := map[string]any{"title": http.StatusText(e.status), "status": e.status, "detail": e.detail}
	if len(e.problems) > 0 {
		body["problems"] = e.problems
	}
	_ = json.NewEncoder(w).Encode(body)
}

// Problem answers with an error as RFC 9457 has it.
func Problem(w http.ResponseWriter, status int, detail string) {
	(&refusal{status: status, detail: detail}).write(w)
}

// unencoded refuses a body with a Content-Encoding. name is that of the body.
func unencoded(r *http.Request, name string) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return &refusal{status: http.StatusUnsupportedMediaType, detail: "send the " + name + " as it is, without a Content-Encoding"}
	}
	return nil
}

// turnToRead waits for the one place of turn, which end frees. A client that has waited too long is answered with full.
func turnToRead(r *http.Request, turn chan struct{}, full string) (end func(), err error) {
	switch {
	case take(r, turn, readerPatience):
		return func() { <-turn }, nil
	case r.Context().Err() != nil:
		return nil, errGone
	}
	return nil, busy(full)
}

// maxRequest is how many bytes of a JSON request are read.
const maxRequest = 16 << 10

// readJSON reads a request. The errors are those of decodeJSON.
func readJSON(r *http.Request, into any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return err
	}
	return decodeJSON(data, into)
}

// decodeJSON decodes a request. A body that is not one, has other fields or a field twice, or has more behind it, is an error.
func decodeJSON(data []byte, into any) error {
	body := json.NewDecoder(bytes.NewReader(data))
	body.DisallowUnknownFields()
	if err := body.Decode(into); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			err = fmt.Errorf("%s has a wrong type, %s", cmp.Or(wrong.Field, "it"), wrong.Value)
		}
		return err
	}
	if _, err := body.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the JSON")
	}
	return uniqueKeys(json.NewDecoder(bytes.NewReader(data)))
}

// uniqueKeys reads the next value, which is known to be JSON. An object that has a key twice, in any case, is an error: programs
// differ in which one they take.
func uniqueKeys(d *json.Decoder) error {
	open, _ := d.Token()
	if open != json.Delim('{') && open != json.Delim('[') {
		return nil
	}
	keys := make(map[string]bool)
	for d.More() {
		if open == json.Delim('{') {
			key, _ := d.Token()
			name, _ := key.(string)
			folded := strings.ToLower(name)
			if keys[folded] {
				return fmt.Errorf("the key %s is there twice", quote(name))
			}
			keys[folded] = true
		}
		if err := uniqueKeys(d); err != nil {
			return err
		}
	}
	_, _ = d.Token() // the end
	return nil
}

// readRequest reads the JSON of a request that changes something. example is the body that is expected.
func readRequest(r *http.Request, into any, example string) error {
	if err := readJSON(r, into); err != nil {
		return badRequest(fmt.Errorf("the body must be %s: %w", example, err))
	}
	return nil
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}
