package config_test

import (
	"testing"

	"github.com/registrymirror/mirror/config"
)

func TestSize(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want int64
		back string
	}{
		{"0", 0, "0"},
		{"0GiB", 0, "0"},
		{"1", 1, "1"},
		{"17B", 17, "17"},
		{"1024", 1024, "1KiB"},
		{"20GiB", 20 << 30, "20GiB"},
		{"20Gi", 20 << 30, "20GiB"},
		{"20 gib", 20 << 30, "20GiB"},
		{"20GB", 20e9, "20GB"},
		{"1.5TiB", 3 << 39, "1536GiB"},
		{"1000KB", 1e6, "1MB"},
		{"9007199254740993", 1<<53 + 1, "9007199254740993"}, // not a float64
		{"9223372036854774784", 1<<63 - 1024, "9007199254740991KiB"},
	}
	for _, tt := range tests {
		var s config.Size
		if err := s.UnmarshalText([]byte(tt.text)); err != nil || int64(s) != tt.want || s.String() != tt.back {
			t.Errorf("%q is %d, %q, %v; want %d, %q", tt.text, s, s, err, tt.want, tt.back)
		}
	}
	for _, text := range []string{
		"", "GiB", "-1GiB", "1.2.3GiB", "1PiB", "1e9", "0x10", "20 apples", "1GiBs", ".",
		"9223372036854775807", "8388608TiB", "١GiB",
	} {
		s := config.Size(7)
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 7 {
			t.Errorf("%q is %d, %v", text, s, err)
		}
	}
}

func TestMinFreeAndPercent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.DiskShare{
		"5%": {Percent: 5}, "0.5 %": {Percent: 0.5}, "10GiB": {Bytes: 10 << 30}, "0": {}, "0%": {}, "100%": {Percent: 100},
	} {
		var m, again config.DiskShare
		if err := m.UnmarshalText([]byte(text)); err != nil || m != want {
			t.Errorf("%q is %+v, %v", text, m, err)
		}
		if err := again.UnmarshalText([]byte(m.String())); err != nil || again != m {
			t.Errorf("%q prints as %q, which is %+v, %v", text, m, again, err)
		}
	}
	for _, text := range []string{"", "%", "-1%", "101%", "NaN%", "Inf%", "5%%", "much"} {
		m, p := config.DiskShare{Bytes: 7}, config.Percent(7)
		if err := m.UnmarshalText([]byte(text)); err == nil || m != (config.DiskShare{Bytes: 7}) {
			t.Errorf("minFree %q is %+v, %v", text, m, err)
		}
		if err := p.UnmarshalText([]byte(text)); err == nil || p != 7 {
			t.Errorf("percent %q is %v, %v", text, p, err)
		}
	}
}

func TestLocalHost(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "::1": "::1", "10.0.0.7": "10.0.0.7", "localhost": "localhost",
	} {
		if got := config.LocalHost(host); got != want {
			t.Errorf("%q: %s, want %s", host, got, want)
		}
	}
}
