package trouble

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/internal/origin"
)

// digits are those of a digest that nothing has.
var digits = strings.Repeat("0123456789abcdef", 4)

// ambiguous is a document that is an index to one client and a manifest to another.
var ambiguous = `{"schemaVersion":2,"manifests":[],"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":` +
	`"sha256:` + digits + `","size":2},"layers":[]}`

// largeManifest is one of 5 MiB.
func largeManifest() []byte {
	var b bytes.Buffer
	b.WriteString(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":` +
		`"application/vnd.oci.image.config.v1+json","digest":"sha256:` + digits + `","size":2},"layers":[],"annotations":{"a":"`)
	b.Write(bytes.Repeat([]byte("x"), 5<<20))
	b.WriteString(`"}}`)
	return b.Bytes()
}

func text(n int) string { return strconv.Itoa(n) }

// answers is a rule: requests for manifests get this. header is keys and values in turn.
func answers(status int, body string, header ...string) origin.Rule {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{Status: status, Body: body, Header: h}}
}

// tooMany is a limit on what is downloaded: to look at a tag stays free, as at Docker Hub.
func tooMany(body string) origin.Rule {
	r := answers(http.StatusTooManyRequests, body, "Retry-After", "3600")
	r.Method = http.MethodGet
	return r
}

// hold downloads until the context ends, and returns when the first byte is there.
func hold(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // below, in a goroutine of its own
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	go func() {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}()
	return err
}
