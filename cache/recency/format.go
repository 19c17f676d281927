package recency

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// magic is the beginning of the file: what it is, and the version of its format.
const magic = "mirror-recency 1"

// A batch has a head and records:
//
//	length of the records  4 bytes
//	CRC-32C of the length and the records  4 bytes
//	record: algorithm 1 byte, hash 32 or 64, minutes since 1970 4, size of the content in bytes 8
//	record of a removal: algorithm plus 128, hash
//
// Numbers are big endian.
const (
	headLen    = 8
	removedBit = 0x80
	valueLen   = 4 + 8
	maxRecords = 20_000 // of a batch; a larger Write has several
	maxBatch   = maxRecords * (1 + 64 + valueLen)
)

// algorithms are those of digests, by the first byte of a record.
var algorithms = map[byte]digest.Algorithm{1: digest.SHA256, 2: digest.SHA512}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// damageError is an error that another try does not mend.
type damageError struct{ err error }

func (e *damageError) Error() string { return e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

// record is a use of content, or its removal.
type record struct {
	cache.Access
	removed bool
}

// batches are encoded records.
type batches struct {
	bytes   []byte
	records int
}

// encode makes batches of removals and uses, in this order.
func encode(used iter.Seq[cache.Access], removed []oci.Digest) (batches, error) {
	var b batches
	start := 0 // of the batch that is being filled
	add := func(r record) (err error) {
		if b.records%maxRecords == 0 {
			seal(b.bytes[start:])
			start = len(b.bytes)
			b.bytes = append(b.bytes, make([]byte, headLen)...)
		}
		b.records++
		b.bytes, err = appendRecord(b.bytes, r)
		return err
	}
	for _, d := range removed {
		if err := add(record{Access: cache.Access{Digest: d}, removed: true}); err != nil {
			return batches{}, err
		}
	}
	for a := range used {
		if err := add(record{Access: a}); err != nil {
			return batches{}, err
		}
	}
	seal(b.bytes[start:])
	return b, nil
}

// seal fills in the head of a batch.
func seal(b []byte) {
	if len(b) < headLen {
		return
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-headLen))
	binary.BigEndian.PutUint32(b[4:], checksum(b[:4], b[headLen:]))
}

func checksum(length, records []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, records)
}

func appendRecord(b []byte, r record) ([]byte, error) {
	name, hash, _ := strings.Cut(string(r.Digest), ":")
	for kind, a := range algorithms {
		if name != string(a) || len(hash) != 2*a.Size() {
			continue
		}
		if r.removed {
			kind |= removedBit
		}
		b, err := hex.AppendDecode(append(b, kind), []byte(hash))
		if err != nil || r.removed {
			return b, err
		}
		b = binary.BigEndian.AppendUint32(b, uint32(max(0, r.Used.Unix()/60)))
		return binary.BigEndian.AppendUint64(b, uint64(r.Size)), nil
	}
	return nil, fmt.Errorf("index %q: only sha256 and sha512 are kept", string(r.Digest))
}

// readBatches calls apply with the records of the first size bytes of a file, batch by batch, up to the first batch that
// is not what was written. It returns where that begins, and how many records come before it. A file without the magic
// is a *damageError; other errors are the disk's.
func readBatches(f *os.File, size int64, apply func(record)) (end int64, records int, err error) {
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<20)
	head := make([]byte, max(len(magic), headLen))
	if _, err := io.ReadFull(r, head[:len(magic)]); err != nil && !atEnd(err) {
		return 0, 0, err
	}
	if string(head[:len(magic)]) != magic {
		return 0, 0, &damageError{errors.New("not an index of this version")}
	}
	end = int64(len(magic))
	var b []byte
	for {
		if _, err := io.ReadFull(r, head[:headLen]); err != nil {
			return end, records, unlessEnd(err)
		}
		n := int(binary.BigEndian.Uint32(head))
		if n > maxBatch {
			return end, records, nil
		}
		b = append(b[:0], make([]byte, n)...)
		if _, err := io.ReadFull(r, b); err != nil {
			return end, records, unlessEnd(err)
		}
		if binary.BigEndian.Uint32(head[4:]) != checksum(head[:4], b) {
			return end, records, nil
		}
		list, ok := decode(b)
		if !ok {
			return end, records, nil
		}
		for _, rec := range list {
			apply(rec)
		}
		end += int64(headLen + n)
		records += len(list)
	}
}

func atEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func unlessEnd(err error) error {
	if atEnd(err) {
		return nil
	}
	return err
}

// decode reads the records of a batch.
func decode(b []byte) (list []record, ok bool) {
	for len(b) > 0 {
		a, known := algorithms[b[0]&^removedBit]
		r := record{removed: b[0]&removedBit != 0}
		n := 1 + a.Size()
		if !r.removed {
			n += valueLen
		}
		if !known || len(b) < n {
			return nil, false
		}
		hash, value := b[1:1+a.Size()], b[1+a.Size():n]
		r.Digest = digest.NewDigestFromEncoded(a, hex.EncodeToString(hash))
		if !r.removed {
			r.Used = time.Unix(int64(binary.BigEndian.Uint32(value))*60, 0).UTC()
			r.Size = int64(binary.BigEndian.Uint64(value[4:]))
		}
		list, b = append(list, r), b[n:]
		if r.Size < 0 {
			return nil, false
		}
	}
	return list, true
}
