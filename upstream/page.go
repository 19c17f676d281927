package upstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
)

// A page of a list is passed on as it is, up to 4 MiB. Some registries put more into one: gcr.io has, beside the tags, details of
// each manifest. Of those the list itself is kept, and the other members are dropped while they are read.

// listParts are the members of a list that are kept of a large page.
var listParts = []string{
	"name", "tags", "schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations",
}

// page reads a page of a list, which is at a key.
func (c *call) page(ctx context.Context, resp *endpoint.Answer, key string) ([]byte, error) {
	defer resp.Body.Close()
	p := paper{what: "a list", limit: maxList, grace: paceList, cost: func(n int64) int64 {
		if c.ep.Prefix != "" {
			n *= 2 // it is copied to change the name in it
		}
		return 16<<10 + n
	}}
	if err := c.readable(resp, p.what); err != nil {
		return nil, err
	}
	size := resp.ContentLength
	if size > maxListRead {
		return nil, fault.TooLarge(p.what, maxListRead, size)
	}
	var b []byte
	var err error
	endpoint.SetPace(resp.Body, p.grace)
	if size <= maxList {
		b, err = p.read(ctx, resp)
	}
	if err == nil && (size > maxList || int64(len(b)) > maxList) {
		b, err = sifted(ctx, b, resp.Body, size)
	}
	notList := errors.Is(err, errNotJSON) || err == nil && !hasList(b, key)
	switch {
	case notList && header.Coding(resp.Header) != "":
		err = fault.WrongCoding(resp.Header)
	case errors.Is(err, errNotJSON):
		err = fault.NotRegistry("JSON with "+key, "something else")
	case err != nil && !fault.Is[*memory.FullError](err) && !fault.Is[*fault.ContentError](err):
		err = c.cut(err)
	case notList:
		err = fault.NotRegistry("JSON with "+key, fault.Describe(resp.Header, b, c.logins.Secrets()...))
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// sifted is the kept part of a large page, of which head was read already. Size is -1 where it is not known.
func sifted(ctx context.Context, head []byte, rest io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		size = maxListRead
	}
	if err := memory.Need(ctx, size); err != nil {
		return nil, err
	}
	counted := &io.LimitedReader{R: io.MultiReader(bytes.NewReader(head), rest), N: maxListRead + 1}
	var out bytes.Buffer
	err := copyMembers(&out, bufio.NewReaderSize(counted, 64<<10), func(name string) (value []byte, keep bool) {
		return nil, slices.Contains(listParts, name)
	})
	if counted.N <= 0 {
		return nil, fault.TooLarge("a list", maxListRead, -1)
	}
	if err != nil {
		return nil, err
	}
	memory.Shrink(ctx, int64(out.Cap()))
	return out.Bytes(), nil
}

// withName is a list of tags with the name of the repository that clients know.
func withName(b []byte, name string) []byte {
	text, _ := json.Marshal(name) // never fails for a string
	out := bytes.NewBuffer(make([]byte, 0, len(b)+len(text)))
	err := copyMembers(out, bytes.NewReader(b), func(member string) (value []byte, keep bool) {
		if member == "name" {
			return text, true
		}
		return nil, true
	})
	if err != nil || !json.Valid(out.Bytes()) {
		return b
	}
	return out.Bytes()
}

// copyMembers copies the members of a JSON object for whose names member says so: with their values, or the ones that it gives.
func copyMembers(out *bytes.Buffer, r io.ByteScanner, member func(name string) (value []byte, keep bool)) error {
	out.WriteByte('{')
	err := sift(r, func(name string) func(byte) {
		value, keep := member(name)
		if !keep {
			return nil
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		key, _ := json.Marshal(name) // never fails for a string
		out.Write(key)
		out.WriteByte(':')
		if value != nil {
			out.Write(value)
			return nil
		}
		return func(c byte) { out.WriteByte(c) }
	})
	out.WriteByte('}')
	return err
}

// listed says of a JSON value whether it is a list, or null.
type listed bool

func (l *listed) UnmarshalJSON(b []byte) error {
	*l = b[0] == '[' || string(b) == "null"
	return nil
}

// hasList reports whether b is one JSON object with a list, or null, at a key.
func hasList(b []byte, key string) bool {
	var doc map[string]listed
	return json.Unmarshal(b, &doc) == nil && bool(doc[key])
}

// errNotJSON says that an answer is not a JSON object.
var errNotJSON = errors.New("it is not a JSON object")

// sift reads a JSON object and passes the bytes of each member's value to the function that member returns for its name; nil: the
// value is dropped. Dropped values are not checked beyond their brackets and strings.
func sift(r io.ByteScanner, member func(name string) func(byte)) error {
	s := sieve{r: r}
	if s.solid() != '{' {
		return s.bad()
	}
	c := s.solid()
	for c == '"' {
		name := s.name()
		if s.solid() != ':' {
			return s.bad()
		}
		s.value(member(name))
		if c = s.solid(); c != ',' {
			break
		}
		if c = s.solid(); c == '}' {
			return s.bad() // a comma before it
		}
	}
	if c != '}' || s.err != nil {
		return s.bad()
	}
	if s.solid(); !errors.Is(s.err, io.EOF) {
		return s.bad()
	}
	return nil
}

// sieve is the state of sift. After an error all it reads is zero.
type sieve struct {
	r   io.ByteScanner
	err error
}

// bad is the error of a sieve that can't go on: the reader's, or errNotJSON.
func (s *sieve) bad() error {
	switch {
	case errors.Is(s.err, io.EOF):
		return io.ErrUnexpectedEOF
	case s.err != nil:
		return s.err
	}
	return errNotJSON
}

func (s *sieve) next() (c byte) {
	if s.err == nil {
		c, s.err = s.r.ReadByte()
	}
	if s.err != nil {
		return 0
	}
	return c
}

// solid is the next byte that is not blank.
func (s *sieve) solid() byte {
	for {
		if c := s.next(); c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
	}
}

// maxName is how much of a member's name is read, in bytes.
const maxName = 256

// name is the rest of a string whose quote was read. A longer name than maxName is not one of listParts.
func (s *sieve) name() string {
	quoted := []byte{'"'}
	s.text(func(c byte) {
		if len(quoted) <= maxName {
			quoted = append(quoted, c)
		}
	})
	var name string
	_ = json.Unmarshal(quoted, &name)
	return name
}

// text passes on the rest of a string whose quote was read.
func (s *sieve) text(to func(byte)) {
	for s.err == nil {
		c := s.next()
		if to(c); c == '\\' {
			to(s.next())
		} else if c == '"' {
			return
		}
	}
}

// value passes on a value, or drops it.
func (s *sieve) value(to func(byte)) {
	if to == nil {
		to = func(byte) {}
	}
	depth := 0
	for c := s.solid(); s.err == nil; c = s.next() {
		switch {
		case depth == 0 && (c == ',' || c == '}' || c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			s.err = s.r.UnreadByte() // behind a number or a word
			return
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if to(c); c == '"' {
			s.text(to)
		}
		if depth == 0 && (c == '"' || c == '}' || c == ']') {
			return
		}
	}
}
