package server

import (
	"math"
	"strings"
)

// maxRanges is how many parts an answer may have. containers/image asks for up to 1,024 at once, and halves their
// number when it is answered 400.
const maxRanges = 1024

// span is n bytes from off, within the blob.
type span struct{ off, n int64 }

// rangeKind says how a Range header is answered.
type rangeKind int

const (
	rangeNone          rangeKind = iota // answer 200 with everything
	rangeParts                          // answer 206 with the spans
	rangeUnsatisfiable                  // answer 416
	rangeTooMuch                        // answer 400: more parts or bytes than a client needs
)

// parseRange reads a Range header for a blob of size bytes. Spans are in the order of the header, clipped to the blob;
// they are not merged, since clients of zstd:chunked images count the parts.
//
// By RFC 9110, 14.2 an unknown unit is ignored. An invalid set of byte ranges may be ignored or rejected: it is rejected
// with 416, as in the distribution spec's vectors (500-0), so that a typing error does not cost 10 GiB. A range behind the
// end makes a set unsatisfiable only if all ranges are. For an empty blob, bytes=0- and a suffix are answered 200, since
// containerd begins a download with bytes=0- and takes 416 for a failure.
func parseRange(header string, size int64) ([]span, rangeKind) {
	if header == "" {
		return nil, rangeNone
	}
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return nil, rangeNone
	}
	var spans []span
	var total int64
	seen, empty := 0, false
	for spec := range strings.SplitSeq(set, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue // RFC 9110, 5.6.1.2: recipients ignore empty elements of lists
		}
		if seen++; seen > maxRanges {
			return nil, rangeTooMuch
		}
		s, ok := parseSpec(spec, size)
		switch {
		case !ok:
			return nil, rangeUnsatisfiable
		case s.n == 0:
			empty = empty || s.off == 0
			continue
		}
		if total += s.n; total > size {
			return nil, rangeTooMuch
		}
		spans = append(spans, s)
	}
	switch {
	case len(spans) > 0:
		return spans, rangeParts
	case empty:
		return nil, rangeNone
	}
	return nil, rangeUnsatisfiable
}

// parseSpec reads one range. False: it is invalid. A span of no bytes is well formed and not in the blob, but for one from 0 on: it
// is all of an empty blob.
func parseSpec(spec string, size int64) (span, bool) {
	behind := span{off: max(size, 1)}
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return span{}, false
	}
	first, last = strings.Trim(first, " \t"), strings.Trim(last, " \t")
	if first == "" { // the last bytes
		n, ok := parseOffset(last)
		if n == 0 {
			return behind, ok
		}
		n = min(n, size)
		return span{size - n, n}, ok
	}
	from, ok := parseOffset(first)
	if !ok {
		return span{}, false
	}
	to := int64(math.MaxInt64) // inclusive
	if last != "" {
		if to, ok = parseOffset(last); !ok || to < from {
			return span{}, false
		}
	}
	switch {
	case size == 0 && from == 0 && last == "":
		return span{}, true
	case from >= size:
		return behind, true
	}
	return span{from, min(to, size-1) - from + 1}, true
}

// parseOffset reads digits, and nothing else. A number that is larger than any blob becomes the largest one.
func parseOffset(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			n = math.MaxInt64
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
