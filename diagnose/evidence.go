package diagnose

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/registrymirror/mirror/upstream/fault"
)

// evidence has the steps of the request, one a line.
func evidence(e *fault.Error) []string {
	var lines []string
	for i, s := range e.Steps {
		line := string(s.Name) + " " + s.Host
		if s.Addr != "" && s.Addr != s.Host {
			line += " (" + s.Addr + ")"
		}
		switch {
		case s.Status != 0:
			line += fmt.Sprintf(": status %d", s.Status)
		case s.Err != nil:
			line += ": " + cause(s.Err)
		default:
			line += ": ok"
		}
		if i == len(e.Steps)-1 && s.Status == e.Status {
			line += errorText(e)
		}
		if s.Took > 0 {
			line += " after " + s.Took.Round(time.Millisecond).String()
		}
		lines = append(lines, line)
	}
	if e.Status != 0 && e.Step().Status != e.Status {
		lines = append(lines, fmt.Sprintf("%s: status %d%s", e.Upstream, e.Status, errorText(e)))
	}
	if p := e.Probe; p != nil {
		lines = append(lines, fmt.Sprintf("also asked for the %s at %s: status %d, %s", p.Step.Name, p.Step.Host, p.Step.Status,
			verdicts[p.Verdict]))
	}
	if n := e.Credential.Name; n != "" {
		line := fmt.Sprintf("credential %s: %s", n, cmp.Or(string(e.Credential.State), "state unknown"))
		if why := e.Credential.LastError; why != "" && e.Credential.State != "failing" { // that is in the summary
			line += "; " + strings.TrimPrefix(why, "credential "+n+": ")
		}
		lines = append(lines, line)
	}
	return lines
}

// verdicts describe the result of a further request.
var verdicts = map[fault.Verdict]string{
	fault.VerdictRepositoryMissing: "there is no such repository",
	fault.VerdictTagMissing:        "the repository is there, the tag is not",
	fault.VerdictLoginNeeded:       "the registry gives no token without a login",
	fault.VerdictUnknown:           "which does not decide it either",
}

// errorText is the code and message of an answer.
func errorText(e *fault.Error) string {
	s := ""
	if e.Code != "" {
		s = " " + e.Code
	}
	if e.Message != "" {
		s += fmt.Sprintf(" %q", e.Message)
	}
	return s
}

// cause is the text of an error without the request that it belongs to, which is named beside it.
func cause(err error) string {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		if e.Err == nil {
			return "no answer"
		}
		return cause(e.Err)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
