package fault

import "github.com/registrymirror/mirror/auth"

func Redact(s string, c auth.Credential) string { return redact(s, c) }
