package journal_test

import (
	"context"
	"strconv"
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
