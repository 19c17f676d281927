package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/text"
)

const (
	maxPhrase  = 160 // bytes of a reason phrase, the standard words included
	maxMessage = 300 // bytes of a message
)

// printable is s in printable ASCII on one line and in at most limit bytes: a header or a status line can carry it.
func printable(s string, limit int) string {
	if len(s) <= limit && isPrintable(s) {
		return s // without a copy, for each request
	}
	ascii := strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, text.Line(s, utf8.UTFMax*max(limit, 0)))
	return text.Cut(ascii, limit)
}

// isPrintable reports whether printable would leave s as it is.
func isPrintable(s string) bool {
	space := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == ' ' && space {
			return false
		}
		space = s[i] == ' '
	}
	return s == "" || !space
}

// sentence is the summary and the remedy in printable ASCII. The summary goes first, with as many clauses of the remedy as
// there is room for.
func sentence(f diagnose.Finding, limit int) string {
	s := printable(f.Summary, limit)
	rest := printable(f.Remedy, maxMessage)
	for rest != "" && len(s)+2+len(rest) > limit {
		i := strings.LastIndexAny(rest, ",;")
		if i < 0 {
			return s
		}
		rest = strings.TrimSpace(rest[:i])
	}
	switch {
	case rest == "":
		return s
	case s == "":
		return printable(rest, limit)
	}
	return s + "; " + rest
}

// phrase is the reason phrase of an answer: the standard words, for programs that parse them, then the explanation and the
// failure's id.
func phrase(status int, f diagnose.Finding, id string) string {
	before, after := http.StatusText(status)+" (mirror: ", " ["+printable(id, 16)+"])"
	limit := maxPhrase - len(before) - len(after)
	if f.Short != "" && len(f.Summary)+2+len(f.Remedy) > limit { // the remedy is worth more than the image's name
		f.Summary = f.Short
	}
	f.Summary = strings.TrimPrefix(f.Summary, "the mirror ") // the phrase has just named it
	return before + sentence(f, limit) + after
}

// warning is the value of a Warning header. 299 is the code of a persistent warning without a code of its own; containers/image
// logs its text, and containerd reads it.
func warning(text string) string {
	text = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable(text, maxMessage))
	return `299 - "` + text + `"`
}

const (
	phraseTimeout = 10 * time.Second // for writing an answer of at most a few KiB
	lingerTimeout = 500 * time.Millisecond
)

// writePhrase writes the failure with its reason phrase, which net/http can't set, and closes the connection. It returns
// false, and has written nothing, where that is not possible or not configured.
//
// Only HTTP/1.1 has reason phrases. A request with a body is left to net/http, which knows how much of it is still to
// come. Clients drop the phrase of a 404, and probes for signatures make many of those, so they keep their connection.
func (x *exchange) writePhrase() bool {
	r, f := x.r, x.failure
	if !x.s.o.ErrorPhrase || f.status == http.StatusNotFound || r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1) ||
		r.Body != nil && r.Body != http.NoBody {
		return false
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\n", f.status, phrase(f.status, f.finding, f.id))
	h := x.w.Header().Clone()
	h.Set("Connection", "close")
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if err := h.Write(&out); err != nil {
		return false
	}
	out.WriteString("\r\n")
	if r.Method != http.MethodHead {
		out.Write(f.body)
	}
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return false // HTTP/2, or the ResponseWriter of another server
	}
	defer conn.Close()
	x.w.status = f.status
	_ = conn.SetDeadline(time.Now().Add(phraseTimeout))
	n, err := conn.Write(out.Bytes())
	if r.Method != http.MethodHead {
		x.w.bytes = int64(max(0, n-(out.Len()-len(f.body))))
	}
	if err == nil {
		linger(conn)
	}
	return true
}

// linger waits until the client has closed its side. A connection closed with bytes of the client unread is reset, and
// a reset may overtake the answer.
func linger(conn net.Conn) {
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, conn, 64<<10)
}
