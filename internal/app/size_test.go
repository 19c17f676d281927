package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache/disk"
)

// A size that is a percentage is one of the disk that the folder is on; one that the disk doesn't have is told.
func TestCacheSize(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{"50%": "", "9000000TB": "cache.size is larger than the disk"} {
		dir := t.TempDir()
		c := parse(t, dir, "  ghcr.io: {}\n")
		if err := c.Cache.Size.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		sp, err := disk.SpaceAt(dir)
		if err != nil {
			t.Fatal(err)
		}
		a, log := start(t, c)
		status, body := get(t, "http://"+a.AdminAddr().String()+"/api/v1/cache")
		var got admin.Cache
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Size != c.Cache.Size.Of(sp.Total) {
			t.Errorf("%s: %d %+v %v, want a size of %d", text, status, got, err, c.Cache.Size.Of(sp.Total))
		}
		if warned := strings.Contains(log.String(), "cache.size is larger"); warned != (says != "") {
			t.Errorf("%s: log\n%s", text, log)
		}
	}
}
