package catalog

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Records in the tables of tags and clients begin with a byte that says how to read the rest, and then have a time, by which
// the oldest are forgotten first. A record that begins with '{' is JSON, as earlier versions wrote it. Bytes behind the fields that are
// known here are of a later version, and are ignored.
//
//	tag     1, checked, flags, [expired, source], periods, each: digest, flags, last, first, size, platforms
//	all     2, expired, source                        all tags of a repository have expired
//	client  3, last pull, digest, peer
//
// Numbers are varints. Times are in nanoseconds since 1970; those of a period are before the time that stands in front of them.
const (
	formTag    = 1
	formAll    = 2
	formClient = 3
)

// Flags of a tag and of a period.
const (
	flagExpired = 1 << 0

	sourceMask    = 7
	flagReversion = 1 << 3
	flagSame      = 1 << 4 // platforms are those of the period before
	flagReported  = 1 << 5
)

// sources and platforms are written as their index here: entries are only ever added.
var (
	sources   = []Source{"", ByPull, ByCheck, ByWebhook, ByWarm, BySchedule}
	platforms = []string{
		"", "linux/amd64", "linux/arm64", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5", "linux/386",
		"linux/ppc64le", "linux/s390x", "linux/riscv64", "linux/mips64le", "linux/loong64", "windows/amd64", "windows/arm64",
	}
)

const (
	platformsMost = 32 // of a digest
	platformMost  = 64 // bytes of a name
)

// errForm says that a record is not one of those that this version writes or reads.
var errForm = errors.New("not a record of a known form")

// oldTag is a tag as earlier versions wrote it. A digest had one period there, which began when it was first seen.
type oldTag struct {
	Digest  oci.Digest `json:"digest"`
	Checked time.Time  `json:"checked"`
	History []struct {
		Digest      oci.Digest
		First, Last time.Time
	} `json:"history"`
}

func encodeTag(t Tag) []byte {
	b := make([]byte, 0, 64+48*len(t.History))
	b = appendTime(append(b, formTag), t.Checked)
	if t.Expired.IsZero() {
		b = append(b, 0)
	} else {
		b = appendTime(append(b, flagExpired), t.Expired)
		b = append(b, byte(sourceIndex(t.ExpiredBy)))
	}
	b = binary.AppendUvarint(b, uint64(len(t.History)))
	before := nanos(t.Checked)
	for i, s := range t.History {
		b = appendDigest(b, s.Digest)
		flags := byte(sourceIndex(s.Source))
		if s.Reversion {
			flags |= flagReversion
		}
		if s.Reported {
			flags |= flagReported
		}
		same := i > 0 && slices.Equal(s.Platforms, t.History[i-1].Platforms)
		if same {
			flags |= flagSame
		}
		b = append(b, flags)
		last, first := nanos(s.Last), nanos(s.First)
		b = binary.AppendVarint(b, before-last)
		b = binary.AppendVarint(b, last-first)
		b = binary.AppendUvarint(b, uint64(max(s.Size, 0)))
		if !same {
			b = appendPlatforms(b, s.Platforms)
		}
		before = first
	}
	return b
}

// decodeTag reads a record. The tag has no Ref and no Version.
func decodeTag(b []byte) (t Tag, err error) {
	if len(b) > 0 && b[0] == '{' {
		return decodeOldTag(b)
	}
	r := reader{b: b}
	if r.byte() != formTag {
		return Tag{}, errForm
	}
	t.Checked = r.time()
	if r.byte()&flagExpired != 0 {
		t.Expired, t.ExpiredBy = r.time(), r.source()
	}
	n := r.uvarint()
	if r.bad || n == 0 || n > historyMost {
		return Tag{}, errForm
	}
	t.History = make([]Seen, n)
	before := nanos(t.Checked)
	for i := range t.History {
		s := &t.History[i]
		s.Digest = r.digest()
		flags := r.byte()
		if index := int(flags & sourceMask); index < len(sources) {
			s.Source = sources[index]
		}
		s.Reversion, s.Reported = flags&flagReversion != 0, flags&flagReported != 0
		last := before - r.varint()
		first := last - r.varint()
		s.Last, s.First = timeOf(last), timeOf(first)
		s.Size = int64(r.uvarint() & (1<<63 - 1))
		switch {
		case flags&flagSame == 0:
			s.Platforms = r.platforms()
		case i > 0:
			s.Platforms = t.History[i-1].Platforms
		}
		before = first
	}
	if r.bad {
		return Tag{}, errForm
	}
	t.Digest = t.History[0].Digest
	return t, nil
}

func decodeOldTag(b []byte) (t Tag, err error) {
	var old oldTag
	if err := json.Unmarshal(b, &old); err != nil {
		return Tag{}, err
	}
	if err := old.Digest.Validate(); err != nil {
		return Tag{}, err
	}
	t = Tag{Digest: old.Digest, Checked: old.Checked}
	for i, h := range old.History {
		if i >= historyMost || h.Digest.Validate() != nil {
			break
		}
		s := Seen{Digest: h.Digest, First: h.First, Last: h.Last}
		if i+1 < len(old.History) && s.First.Before(old.History[i+1].Last) { // it went back to this one
			s.First, s.Reversion = old.History[i+1].Last, true
		}
		t.History = append(t.History, s)
	}
	if len(t.History) == 0 || t.History[0].Digest != t.Digest {
		t.History = begin(t.History, t.Digest, t.Checked, "", false)
	}
	return t, nil
}

// expiry is when all tags of a repository were said to have moved, and how that was learnt. Zero: never.
type expiry struct {
	at time.Time
	by Source
}

func encodeExpiry(e expiry) []byte {
	return append(appendTime([]byte{formAll}, e.at), byte(sourceIndex(e.by)))
}

func decodeExpiry(b []byte) (e expiry, err error) {
	r := reader{b: b}
	if r.byte() != formAll {
		return expiry{}, errForm
	}
	e = expiry{r.time(), r.source()}
	if r.bad {
		return expiry{}, errForm
	}
	return e, nil
}

func encodeClient(p pulled) []byte {
	return binary.AppendUvarint(appendDigest(appendTime([]byte{formClient}, p.at), p.digest), uint64(p.peer))
}

func decodeClient(b []byte) (p pulled, err error) {
	r := reader{b: b}
	if r.byte() != formClient {
		return pulled{}, errForm
	}
	p = pulled{at: r.time(), digest: r.digest()}
	if r.bad {
		return pulled{}, errForm
	}
	if len(r.b) > 0 { // else of an earlier version
		p.peer = uint32(r.uvarint())
	}
	return p, nil
}

func sourceIndex(s Source) int { return max(slices.Index(sources, s), 0) }

// nanos is a time as it is written: 0 for none.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, nanos(t)) }

// digestForms are the algorithms, by the byte that is written for each, with the number of bytes of a sum.
var digestForms = []struct {
	name string
	size int
}{1: {"sha256", 32}, 2: {"sha512", 64}, 3: {"sha384", 48}}

// appendDigest writes a digest: a byte for its algorithm and the sum; or 0, the length, and the text.
func appendDigest(b []byte, d oci.Digest) []byte {
	name, sum, _ := strings.Cut(string(d), ":")
	for i, form := range digestForms {
		if i == 0 || form.name != name || len(sum) != 2*form.size {
			continue
		}
		if raw, err := hex.DecodeString(sum); err == nil && hex.EncodeToString(raw) == sum {
			return append(append(b, byte(i)), raw...)
		}
	}
	b = binary.AppendUvarint(append(b, 0), uint64(len(d)))
	return append(b, d...)
}

// appendPlatforms writes how many there are, and each as its index, or as 0, its length and its name.
func appendPlatforms(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, p := range list {
		i := max(slices.Index(platforms, p), 0)
		b = binary.AppendUvarint(b, uint64(i))
		if i == 0 {
			b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
		}
	}
	return b
}

// reader reads the fields of a record. bad is set when it ends too early or has something else.
type reader struct {
	b   []byte
	bad bool
}

// take returns the next bytes.
func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(uint64(n))
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(uint64(n))
	return v
}

func (r *reader) time() time.Time { return timeOf(r.varint()) }

func (r *reader) source() Source {
	if i := int(r.byte()); i < len(sources) {
		return sources[i]
	}
	return ""
}

func (r *reader) digest() oci.Digest {
	i := int(r.byte())
	if i > 0 && i < len(digestForms) {
		return oci.Digest(digestForms[i].name + ":" + hex.EncodeToString(r.take(uint64(digestForms[i].size))))
	}
	d := oci.Digest(r.take(r.uvarint()))
	if i != 0 || r.bad || d.Validate() != nil {
		r.bad = true
	}
	return d
}

func (r *reader) platforms() (list []string) {
	n := r.uvarint()
	if n > platformsMost {
		r.bad = true
		return nil
	}
	for range n {
		switch i := r.uvarint(); {
		case i == 0:
			list = append(list, string(r.take(r.uvarint())))
		case i < uint64(len(platforms)):
			list = append(list, platforms[i])
		} // else of a later version
	}
	return list
}
