package limit_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/upstream/limit"
)

func TestParseBudget(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		header map[string]string
		want   limit.Budget
		ok     bool
	}{
		"docker hub": {
			map[string]string{
				"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "20;w=21600",
				"docker-ratelimit-source": "192.0.2.1",
			},
			limit.Budget{Source: "192.0.2.1", Limit: 100, Remaining: 20, Window: 6 * time.Hour, At: now},
			true,
		},
		"an account's identifier is not kept": {
			map[string]string{
				"ratelimit-remaining": "0;w=60", "docker-ratelimit-source": "7b6e1c2a-0000-4000-8000-000000000000",
			},
			limit.Budget{Limit: -1, At: now},
			true,
		},
		"early draft": {
			map[string]string{
				"ratelimit-limit": "10, 10;w=1, 1000;w=3600", "ratelimit-remaining": "9", "ratelimit-reset": "50",
			},
			limit.Budget{Limit: 10, Remaining: 9, Reset: now.Add(50 * time.Second), At: now},
			true,
		},
		"one field": {
			map[string]string{"ratelimit": "limit=100, remaining=50, reset=5"},
			limit.Budget{Limit: 100, Remaining: 50, Reset: now.Add(5 * time.Second), At: now},
			true,
		},
		"structured": {
			map[string]string{"ratelimit": `"a";r=50;t=30`, "ratelimit-policy": `"a";q=100;w=60`},
			limit.Budget{
				Limit: 100, Remaining: 50, Window: time.Minute, Reset: now.Add(30 * time.Second), At: now,
			},
			true,
		},
		"nothing":  {nil, limit.Budget{Limit: -1, Remaining: -1, At: now}, false},
		"negative": {map[string]string{"ratelimit-remaining": "-1"}, limit.Budget{Limit: -1, Remaining: -1, At: now}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{}
			for k, v := range tt.header {
				h.Set(k, v)
			}
			got, ok := limit.ParseBudget(h, now)
			if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok {
				t.Errorf("ok %t, (-want +got):\n%s", ok, diff)
			}
		})
	}
}

func FuzzBudget(f *testing.F) {
	f.Add("100;w=21600", "20;w=21600", "50", "", "192.0.2.1")
	f.Add("", "", "", `"a";r=50;t=30`, "::1%eth0")
	f.Add("", "99999999999999999999", "9223372036854775807", "remaining=5", "x")
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, most, remaining, reset, combined, source string) {
		b, ok := limit.ParseBudget(http.Header{
			"Ratelimit-Limit": {most}, "Ratelimit-Remaining": {remaining}, "Ratelimit-Reset": {reset},
			"Ratelimit": {combined}, "Docker-Ratelimit-Source": {source},
		}, now)
		const month = 31 * 24 * time.Hour
		if ok != (b.Remaining >= 0) || b.Limit < -1 || b.Window < 0 || b.Window > month || len(b.Source) > 45 ||
			!b.Reset.IsZero() && (b.Reset.Before(now) || b.Reset.Sub(now) > month) {
			t.Errorf("%+v", b)
		}
	})
}
