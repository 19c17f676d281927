package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// commandLine runs a command line as main does. One that goes on is stopped.
func commandLine(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	code = run(ctx, &out, &errs, args...)
	return code, out.String(), errs.String()
}

// serve says of an invalid configuration what config check says, and how to go on.
func TestServeListsEveryMistake(t *testing.T) {
	t.Parallel()
	path := configFile(t, "listne: x\ndrain: 60\n")
	code, stdout, stderr := commandLine(t, "serve", "--config", path)
	want := path + `:1:1: listne: unknown key (did you mean "listen"?)
` + path + `:2:8: drain: "60" is not a duration (it has no unit: write 60s for seconds)
` + path + `: 2 problems; correct them, then start again (mirror config check --config ` + path + ` checks without starting)
`
	if diff := cmp.Diff(want, stderr); diff != "" || code != exitFailed || stdout != "" {
		t.Errorf("code %d, stdout %q\n%s", code, stdout, diff)
	}
}

func TestServeSaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	file, garbage := configFile(t, ""), configFile(t, "garbage")
	const rest = "admin: {listen: '127.0.0.1:0'}\ncache: {dir: data}\n"
	tests := []struct {
		name, config, want string
	}{
		{"port in use", "listen: " + l.Addr().String() + "\n" + rest, "choose another port"},
		{
			"no certificate", "listen: 127.0.0.1:0\ntls: {cert: " + garbage + ", key: " + garbage + "}\n" + rest,
			"they must be PEM files that belong together",
		},
		{"no token", "admin: {tokenFile: missing}\n", "a file that this user can read, with a long random token"},
		{"a token of several lines", "admin: {tokenFile: " + configFile(t, "a: 1\nb: 2\n") + ", listen: '127.0.0.1:0'}\n", "is not one line of text, so no request can show it; write the token alone to it"},
		{"no CA", "upstreams: {a: {endpoints: [{url: 'https://a', ca: missing}]}}\nlisten: 127.0.0.1:0\n" + rest, "a PEM file"},
		{
			"a CA that is none",
			"upstreams: {a: {endpoints: [{url: 'https://a', ca: " + file + "}]}}\nlisten: 127.0.0.1:0\n" + rest,
			"-----BEGIN CERTIFICATE-----",
		},
		{
			"a file for the folder", "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ncache: {dir: " + file + "/data}\n",
			"cache.dir must be a folder that this user can make and write to",
		},
		{"an address of another machine", "listen: 192.0.2.1:5000\n" + rest, "write one that it has"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := commandLine(t, "serve", "--config", configFile(t, tt.config))
			if code != exitFailed || !strings.HasPrefix(stderr, "mirror: ") || !strings.Contains(stderr, tt.want) ||
				strings.Count(stderr, "\n") != 1 {
				t.Errorf("code %d, %q; want code 1 and one line with %q", code, stderr, tt.want)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	if code, _, stderr := commandLine(t, "serve", "--config", missing); code != exitFailed ||
		!strings.Contains(stderr, missing) || !strings.Contains(stderr, "check the path") {
		t.Errorf("a missing file: code %d, %q", code, stderr)
	}
}
