package journal_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

func TestPulls(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{}, func(j *journal.Journal, _ *lines) {
		pulls := func(active bool) []journal.Pull {
			list, err := j.Pulls(context.WithoutCancel(t.Context()), active)
			if err != nil {
				t.Error(err)
			}
			return list
		}
		j.Observe(asked(oci.KindManifest, "1.27", nil))
		j.Observe(asked(oci.KindBlob, layer, size(10)))
		j.Observe(asked(oci.KindManifest, "2", failing(diagnose.UpstreamError, "aaaaaaaa")))
		list := pulls(true)
		if len(list) != 2 || list[0].Ref.Tag != "2" || list[0].Outcome != journal.Failed || list[0].ID != "aaaaaaaa" ||
			list[1].Outcome != journal.Served || list[1].Bytes != 10 || list[1].FromCache != 10 {
			t.Errorf("in flight: %+v", list)
		}
		if list := pulls(false); len(list) != 0 {
			t.Errorf("over: %+v", list)
		}
		pass(2 * time.Minute)
		if list := pulls(true); len(list) != 0 {
			t.Errorf("in flight: %+v", list)
		}
		if list := pulls(false); len(list) != 2 || list[0].Client != "node-1" {
			t.Errorf("over: %+v", list)
		}
		for i := range 3000 {
			r := asked(oci.KindManifest, "1.27", nil)
			r.Client = strconv.Itoa(i)
			j.Observe(r)
		}
		pass(2 * time.Minute)
		if list := pulls(false); len(list) > 1000 || len(list) < 800 || list[0].Client != "2999" {
			t.Errorf("%d are remembered", len(list))
		}
	})
}

// A pull is finished two seconds after its client has everything that the image needs. One that lacks a part is finished
// after a minute without a request: the client may have had the part before.
func TestPullIsFinishedWhenComplete(t *testing.T) {
	t.Parallel()
	parts := func(r *journal.Request) { r.Parts = []oci.Digest{config, layer} }
	bubble(t, journal.Options{}, func(j *journal.Journal, log *lines) {
		j.Observe(asked(oci.KindManifest, "1.27", nil)) // an index
		j.Observe(asked(oci.KindManifest, child, parts))
		j.Observe(asked(oci.KindBlob, config, size(3)))
		pass(5 * time.Second)
		j.Observe(asked(oci.KindBlob, layer, func(r *journal.Request) { r.Status, r.Bytes = 206, 7 })) // a part of it
		pass(5 * time.Second)
		j.Begin(asked(oci.KindBlob, layer, nil))
		pass(5 * time.Second)
		if got := log.take(); got != nil {
			t.Errorf("while the last layer is being sent: %q", got)
		}
		j.Observe(asked(oci.KindBlob, layer, size(9)))
		pass(time.Second)
		if got := log.take(); got != nil {
			t.Errorf("a second after the last layer: %q", got)
		}
		pass(2 * time.Second)
		if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "msg=pull ") || !strings.Contains(got[0], "outcome=served bytes=19") {
			t.Errorf("three seconds after the last layer: %q", got)
		}

		j.Observe(asked(oci.KindManifest, "1.28", parts))
		j.Observe(asked(oci.KindBlob, layer, size(9)))
		pass(50 * time.Second)
		if got := log.take(); got != nil {
			t.Errorf("a pull that lacks a part: %q", got)
		}
		pass(15 * time.Second)
		if got := log.take(); len(got) != 1 {
			t.Errorf("after a minute: %q", got)
		}

		// Requests that follow at once belong to the same pull.
		j.Observe(asked(oci.KindManifest, "1.29", parts))
		j.Observe(asked(oci.KindBlob, config, size(3)))
		j.Observe(asked(oci.KindBlob, layer, size(9)))
		pass(time.Second)
		j.Observe(asked(oci.KindManifest, index, func(r *journal.Request) { r.Parts = []oci.Digest{child} }))
		pass(10 * time.Second)
		if got := log.take(); got != nil {
			t.Errorf("a second platform is asked for: %q", got)
		}
		j.Observe(asked(oci.KindBlob, child, size(1)))
		pass(3 * time.Second)
		if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "bytes=13") {
			t.Errorf("both platforms: %q", got)
		}
	})
}

// The documents, the config and the layers that a client got are those by which a runtime knows its image; a HEAD of a blob and a
// failed request are not.
func TestDocuments(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{}, func(j *journal.Journal, _ *lines) {
		open := func() journal.Pull {
			list, err := j.Open(context.WithoutCancel(t.Context()))
			if err != nil || len(list) != 1 {
				t.Fatalf("%v, %v", list, err)
			}
			return list[0]
		}
		j.Observe(asked(oci.KindManifest, "1.27", head))
		if p := open(); !slices.Equal(p.Documents, []oci.Digest{index}) || p.Config || p.Layers {
			t.Errorf("looked at: %+v", p)
		}
		j.Observe(asked(oci.KindManifest, child, func(r *journal.Request) { r.Parts = []oci.Digest{config, layer} }))
		j.Observe(asked(oci.KindBlob, layer, func(r *journal.Request) { r.Head, r.Bytes = true, 0 }))
		j.Observe(asked(oci.KindBlob, layer, failing(diagnose.UpstreamError, "aaaaaaaa")))
		j.Observe(asked(oci.KindBlob, config, size(3)))
		if p := open(); !slices.Equal(p.Documents, []oci.Digest{index, child, config}) || !p.Config || p.Layers {
			t.Errorf("without a layer: %+v", p)
		}
		j.Observe(asked(oci.KindBlob, layer, func(r *journal.Request) { r.Status, r.Bytes = 206, 7 }))
		if p := open(); !p.Layers || p.Source != "node-1" {
			t.Errorf("with a part of a layer: %+v", p)
		}
	})
}
