package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/internal/origin"
)

// What the cache did is shown as the metrics count it.
func TestCacheIsShown(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	img := o.AddImage("app", "1", origin.Image{})
	r := run(t, parse(t, t.TempDir(), fmt.Sprintf("  two.test: {endpoints: [%q]}\n", o.URL())))
	layer := img.Layers[0][0]
	for range 3 {
		if status, body := get(t, "http://"+r.Addr().String()+"/v2/two.test/app/blobs/"+layer.Digest.String()); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	var c admin.Cache
	var text string
	eventually(t, "all that was sent is counted", func() bool { // once its client has all
		_, text = get(t, "http://"+r.AdminAddr().String()+"/api/v1/cache")
		c = admin.Cache{}
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		return c.Bytes > 0 && c.ClientBytes == 3*c.Bytes
	})
	// A blob is kept a moment after its last byte: until then it is joined.
	if c.Hits+c.Joined != 2 || c.Misses != 1 || c.Objects != 1 || c.Size != 1<<30 || c.UpstreamBytes != c.Bytes || c.Bytes == 0 ||
		c.ClientBytes != 3*c.Bytes {
		t.Errorf("%s", text)
	}
}
