package coverage

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/oci"
)

// Key stands for a digest, or for a tag with its repository, in the record: 8 bytes in place of a hundred. Content is what its digest
// says, whatever repository it came from, so a digest stands for itself.
type Key uint64

// DigestKey is the key of a digest: its first bytes.
func DigestKey(d oci.Digest) Key {
	if _, text, _ := strings.Cut(string(d), ":"); len(text) >= 16 {
		if n, err := strconv.ParseUint(text[:16], 16, 64); err == nil {
			return Key(n)
		}
	}
	return textKey(d.String())
}

// TagKey is the key of a tag.
func TagKey(ref oci.Ref) Key {
	ref.Digest = ""
	return textKey(ref.String())
}

func textKey(s string) Key {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return Key(h.Sum64())
}

// Flags say what a client got.
type Flags uint8

// The flags add up over pulls.
const (
	Shown   Flags = 1 << iota // the mirror has answered for it
	Config                    // the client got the image's config
	Layers                    // and a layer, or a part of one
	Again                     // it got the config or a layer once more: several machines may be behind the client's address
	Refused                   // the last pull failed, or was declined
)

// Entry is what the record has of one key and client.
type Entry struct {
	Key   Key
	Last  int64 // seconds since 1970
	Flags Flags
}

const entrySize = 8 + 4 + 1

// add takes in a later entry. The same one again changes nothing.
func (e Entry) add(next Entry) Entry {
	again := Flags(0)
	if next.Last > e.Last && e.Flags&(Config|Layers) != 0 && next.Flags&(Config|Layers) != 0 {
		again = Again
	}
	last := next.Flags & Refused // of the last pull alone
	if next.Last < e.Last {
		last = e.Flags & Refused
	}
	return Entry{Key: e.Key, Last: max(e.Last, next.Last), Flags: (e.Flags|next.Flags)&^Refused | again | last}
}

// encode writes the source address of a client and its entries, sorted by key.
func encode(source string, list []Entry) []byte {
	source = source[:min(len(source), 255)]
	b := make([]byte, 0, 2+len(source)+len(list)*entrySize)
	b = append(b, 1, byte(len(source)))
	b = append(b, source...)
	for _, e := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(e.Key))
		b = binary.BigEndian.AppendUint32(b, uint32(e.Last)) //nolint:gosec // until 2106
		b = append(b, byte(e.Flags))
	}
	return b
}

// decode reads what encode wrote. False: it is something else.
func decode(b []byte) (source string, list []Entry, ok bool) {
	if len(b) < 2 || b[0] != 1 || len(b) < 2+int(b[1]) || (len(b)-2-int(b[1]))%entrySize != 0 {
		return "", nil, false
	}
	source, b = string(b[2:2+int(b[1])]), b[2+int(b[1]):]
	list = make([]Entry, 0, len(b)/entrySize)
	for ; len(b) > 0; b = b[entrySize:] {
		list = append(list, Entry{Key(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint32(b[8:])), Flags(b[12])})
	}
	return source, list, true
}
