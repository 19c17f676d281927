package auth

import (
	"fmt"
	"io"
	"log/slog"
	"unique"
)

// mask is shown in the place of a secret.
const mask = "***"

// Secret is a password or token. The zero value is empty. Secrets with equal text are equal by ==.
//
// The text is behind a handle, not in a string: printing a structure that has a Secret in an unexported field calls none of
// the methods below, and then shows an address.
type Secret struct{ text unique.Handle[string] }

// NewSecret wraps a text. The empty text is the zero Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: unique.Make(text)}
}

// Reveal gives the text, for the one place that sends it to its registry or service.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.text.Value()
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s == Secret{} }

// String is "***", or empty for the zero Secret; so are all other ways to show it.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return mask
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// Format writes String whatever the verb and its flags.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String, for YAML, XML and keys of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON is String as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
