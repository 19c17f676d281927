package catalog

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/oci"
)

// sample is a tag with everything that a record can have.
func sample() Tag {
	at := time.Date(2026, 11, 30, 12, 0, 0, 123_456_789, time.UTC)
	long := oci.Digest("sha512:" + digest.SHA512.FromString("x").Encoded())
	return Tag{
		Digest: digest.FromString("a"), Checked: at, Expired: at.Add(-time.Minute), ExpiredBy: ByWebhook,
		History: []Seen{
			{Digest: digest.FromString("a"), First: at.Add(-time.Hour), Last: at, Source: ByWebhook, Reversion: true, Size: 1 << 40},
			{Digest: long, First: at.Add(-30 * time.Hour), Last: at.Add(-2 * time.Hour), Reported: true, Platforms: []string{"linux/amd64", "plan9/mips"}},
			{Digest: digest.FromString("a"), First: at.Add(-9999 * time.Hour), Last: at.Add(-time.Hour), Source: ByPull, Platforms: []string{"linux/amd64", "plan9/mips"}},
			{Digest: digest.SHA384.FromString("y"), First: at, Last: at.Add(-time.Hour), Source: BySchedule}, // the clock was set back
		},
	}
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Tag{
		"everything": sample(),
		"little":     {Digest: digest.FromString("a"), History: []Seen{{Digest: digest.FromString("a")}}},
	} {
		b := encodeTag(want)
		got, err := decodeTag(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if later, err := decodeTag(append(b, "of a later version"...)); err != nil || !cmp.Equal(want, later) {
			t.Errorf("%s, with more behind: %v", name, err)
		}
		for n := range b {
			if _, err := decodeTag(b[:n]); err == nil {
				t.Errorf("%s: cut after %d of %d bytes it can be read", name, n, len(b))
			}
		}
	}
	e := expiry{time.Unix(1, 2).UTC(), ByWebhook}
	if got, err := decodeExpiry(encodeExpiry(e)); err != nil || got != e {
		t.Errorf("%+v, %v", got, err)
	}
	p := pulled{at: time.Unix(3, 4).UTC(), digest: digest.FromString("a"), peer: 1<<32 - 1}
	if got, err := decodeClient(encodeClient(p)); err != nil || got != p {
		t.Errorf("%+v, %v", got, err)
	}
	for name, b := range map[string][]byte{"tags": encodeTag(sample()), "clients": encodeClient(p)} {
		if Age(name, b) == 0 || Age("refs", b) != 0 {
			t.Errorf("%s: age %d", name, Age(name, b))
		}
	}
	if got, want := Age("tags", encodeTag(sample())), sample().Checked.UnixNano(); got != want {
		t.Errorf("age %d, want %d", got, want)
	}
}

// A tag that has moved a hundred times takes a few KiB on disk.
func TestRecordsAreSmall(t *testing.T) {
	t.Parallel()
	at := time.Now()
	var one, many Tag
	for i := range historyMost {
		many.History = begin(many.History, digest.FromString(fmt.Sprint(i)), at.Add(time.Duration(i)*time.Hour), ByCheck, i%2 == 0)
	}
	many.Checked = many.History[0].Last
	one = Tag{Checked: many.Checked, History: many.History[:1]}
	if n := len(encodeTag(one)); n > 64 {
		t.Errorf("one digest takes %d bytes", n)
	}
	if n := len(encodeTag(many)); n > 5<<10 {
		t.Errorf("%d digests take %d bytes", historyMost, n)
	}
}

// Records of earlier versions are read. A digest to which the tag went back had one period there, which began when it was first
// seen: it begins after the one in between.
func TestRecordsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a, b := digest.FromString("a"), digest.FromString("b")
	type seen struct {
		Digest      oci.Digest
		First, Last time.Time
	}
	record := func(d oci.Digest, checked time.Time, history ...seen) []byte {
		v, err := json.Marshal(map[string]any{"digest": d, "checked": checked, "history": history})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, tt := range map[string]struct {
		record []byte
		want   []Seen
	}{
		"moved": {
			record(b, at.Add(5), seen{b, at.Add(3), at.Add(5)}, seen{a, at, at.Add(2)}),
			[]Seen{{Digest: b, First: at.Add(3), Last: at.Add(5)}, {Digest: a, First: at, Last: at.Add(2)}},
		},
		"went back": {
			record(a, at.Add(5), seen{a, at, at.Add(5)}, seen{b, at.Add(2), at.Add(3)}),
			[]Seen{{Digest: a, First: at.Add(3), Last: at.Add(5), Reversion: true}, {Digest: b, First: at.Add(2), Last: at.Add(3)}},
		},
		"without a history": {record(a, at), []Seen{{Digest: a, First: at, Last: at}}},
	} {
		got, err := decodeTag(tt.record)
		if err != nil || got.Digest != tt.want[0].Digest {
			t.Errorf("%s: %s, %v", name, got.Digest, err)
		}
		if d := cmp.Diff(tt.want, got.History); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if Age("tags", tt.record) != got.Checked.UnixNano() {
			t.Errorf("%s: age %d", name, Age("tags", tt.record))
		}
	}
}

// Whatever a record holds, reading it does not panic, and what it says is said again when it is written.
func FuzzRecords(f *testing.F) {
	f.Add(encodeTag(sample()))
	f.Add(encodeTag(Tag{History: []Seen{{Digest: digest.FromString("a")}}}))
	f.Add(encodeExpiry(expiry{time.Now(), ByWebhook}))
	f.Add(encodeClient(pulled{digest: digest.FromString("a"), at: time.Now()}))
	f.Add([]byte(`{"digest":"sha256:961b6dd3ede3cb8ecbaacbd68de040cd78eb2ed5889130cceb4c49268ea4d506","checked":"2026-01-02T03:04:05Z",` +
		`"history":[{"Digest":"sha256:961b6dd3ede3cb8ecbaacbd68de040cd78eb2ed5889130cceb4c49268ea4d506"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Age("tags", b)
		if e, err := decodeExpiry(b); err == nil {
			if again, err := decodeExpiry(encodeExpiry(e)); err != nil || again != e {
				t.Errorf("%+v became %+v, %v", e, again, err)
			}
		}
		if p, err := decodeClient(b); err == nil {
			if again, err := decodeClient(encodeClient(p)); err != nil || again != p {
				t.Errorf("%+v became %+v, %v", p, again, err)
			}
		}
		tag, err := decodeTag(b)
		if err != nil {
			return
		}
		if len(tag.History) == 0 || tag.History[0].Digest != tag.Digest || len(tag.History) > historyMost {
			t.Errorf("%+v", tag)
		}
		again, err := decodeTag(encodeTag(tag))
		if err != nil {
			t.Errorf("%+v: %v", tag, err)
		}
		if b[0] != '{' && !cmp.Equal(tag, again) { // JSON has times that have no number of nanoseconds
			t.Errorf("(-want +got):\n%s", cmp.Diff(tag, again))
		}
	})
}
