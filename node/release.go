package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Release is the version of a node's containerd.
type Release struct {
	Version string // as in "1.6.20"; empty: it is not known
	Source  string // from where it is known: "it answers at /run/containerd/containerd.sock"
}

// String is the release with its source. It is never empty.
func (r Release) String() string {
	if r.Version == "" {
		return "containerd, whose version is not known (" + r.Source + ")"
	}
	return "containerd " + r.Version + " (" + r.Source + ")"
}

// major is 0 where the version is not known.
func (r Release) major() int {
	n, _, _ := strings.Cut(r.Version, ".")
	major, _ := strconv.Atoi(n)
	return major
}

// askRelease bounds how long containerd is asked for its version.
const askRelease = 5 * time.Second

// FindRelease asks the containerd that runs at a socket for its version, or else the program in the search path. It has no error: the
// source of a version that is not known says why.
func FindRelease(ctx context.Context, socket string) Release {
	ctx, cancel := context.WithTimeout(ctx, askRelease)
	defer cancel()
	version, err := askSocket(ctx, socket)
	if err == nil {
		return Release{version, "it answers at " + socket}
	}
	program, wrong := exec.LookPath("containerd")
	if wrong != nil {
		return Release{Source: fmt.Sprintf("none answers at %s: %v; and there is no program of that name", socket, err)}
	}
	c := exec.CommandContext(ctx, program, "--version") //nolint:gosec // a constant name, looked up as a shell does
	c.WaitDelay = time.Second
	out, wrong := c.Output()
	version = versionIn(string(out))
	if wrong != nil || version == "" {
		return Release{Source: fmt.Sprintf("none answers at %s: %v; and %s --version does not say it", socket, err, program)}
	}
	return Release{version, program + " says it; none answers at " + socket}
}

var versionWord = regexp.MustCompile(`(?:^|\s)v?(\d+\.\d+\.\d+[0-9A-Za-z.+~-]*)`)

// versionIn is the version that containerd --version prints: its name, that of its module, and the version behind them.
func versionIn(text string) string {
	if m := versionWord.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// askSocket calls the method Version of containerd, which has no fields, and whose answer begins with the version. A client of gRPC
// for one call would be the largest dependency of the program.
func askSocket(ctx context.Context, socket string) (version string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("ask for the version of containerd: %w", err)
		}
	}()
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true)
	defer t.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://containerd/containerd.services.version.v1.Version/Version",
		bytes.NewReader(make([]byte, 5))) // a message of no bytes
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	answer, err := t.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	if err != nil {
		return "", err
	}
	// 5 bytes in front of the message; in it the tag of field 1, the length of its text, the text.
	const head = 7
	if len(b) > head && b[head-2] == 0x0a && int(b[head-1]) <= len(b)-head {
		version = versionIn(string(b[head : head+int(b[head-1])]))
	}
	if version == "" {
		return "", errors.New("the answer has none")
	}
	return version, nil
}
