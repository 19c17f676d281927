package catalog

import "time"

// Judge decides how a pull of the tag is answered at a given time. It is pure. A Tag without a digest is always asked for.
func (t Tag) Judge(p Policy, now time.Time) Verdict {
	if t.Digest == "" {
		return Ask
	}
	// A clock that was set back must not make a copy fresh for longer than its policy says.
	if age := now.Sub(t.Checked); age >= 0 && age < p.MaxAge && !t.Due() {
		return Serve
	}
	return Ask
}

// Usable reports whether the copy may be served when the upstream does not answer.
func (t Tag) Usable(p Policy, now time.Time) bool {
	return t.Digest != "" && now.Sub(t.Checked) <= p.StaleIfError
}
