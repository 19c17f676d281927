package oci

import (
	"fmt"
	"strconv"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// refuse makes an errcode.Error whose message is one line of at most 300 bytes.
func refuse(code errcode.ErrorCode, format string, args ...any) error {
	return code.WithMessage(fmt.Sprintf(format, args...))
}

// quote shows the text of a client: in ASCII, on one line and short.
func quote(s string) string {
	const most = 40
	if len(s) <= most {
		return strconv.QuoteToASCII(s)
	}
	return strconv.QuoteToASCII(s[:most]) + "..."
}
