package oci_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/oci"
)

func TestParseRef(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want oci.Ref
		text string
	}{
		{"nginx", ref("docker.io", "library/nginx", "latest", ""), "docker.io/library/nginx:latest"},
		{"nginx:1.27", ref("docker.io", "library/nginx", "1.27", ""), "docker.io/library/nginx:1.27"},
		{"acme/app", ref("docker.io", "acme/app", "latest", ""), "docker.io/acme/app:latest"},
		{"docker.io/nginx", ref("docker.io", "library/nginx", "latest", ""), "docker.io/library/nginx:latest"},
		{"index.docker.io/nginx", ref("docker.io", "library/nginx", "latest", ""), "docker.io/library/nginx:latest"},
		{"Docker.IO/nginx", ref("docker.io", "library/nginx", "latest", ""), "docker.io/library/nginx:latest"},
		{"GHCR.io/acme/app:V1", ref("ghcr.io", "acme/app", "V1", ""), "ghcr.io/acme/app:V1"},
		{"reg:5000/app", ref("reg:5000", "app", "latest", ""), "reg:5000/app:latest"},
		{"localhost/app:v1", ref("localhost", "app", "v1", ""), "localhost/app:v1"},
		{"[::1]:5000/app", ref("[::1]:5000", "app", "latest", ""), "[::1]:5000/app:latest"},
		{"nginx@" + sum256, ref("docker.io", "library/nginx", "", sum256), "docker.io/library/nginx@" + sum256},
		{"ghcr.io/a/b:v1@" + sum512, ref("ghcr.io", "a/b", "v1", sum512), "ghcr.io/a/b:v1@" + sum512},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			got, err := oci.ParseRef(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.String() != tt.text {
				t.Errorf("prints as %q, want %q", got, tt.text)
			}
		})
	}
}

func TestParseRefRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		code errcode.ErrorCode
		says string
	}{
		{"", errcode.ErrorCodeNameInvalid, `""`},
		{"https://ghcr.io/acme/app", errcode.ErrorCodeNameInvalid, `leave out "https://"`},
		{"Nginx", errcode.ErrorCodeNameInvalid, "lower case"},
		{"Acme/app", errcode.ErrorCodeNameInvalid, "lower case"},
		{"ghcr.io/Acme/app", errcode.ErrorCodeNameInvalid, "lower case"},
		{"ghcr.io/", errcode.ErrorCodeNameInvalid, "ghcr.io/"},
		{"a//b", errcode.ErrorCodeNameInvalid, "a//b"},
		{hex64, errcode.ErrorCodeNameInvalid, hex64[:10]},
		{"reg:port/app", errcode.ErrorCodeNameInvalid, "reg:port/app"},
		{"a/b:5000/c", errcode.ErrorCodeNameInvalid, "a/b:5000/c"},
		{"ghcr.io/" + strings.Repeat("a", 256), errcode.ErrorCodeNameInvalid, ""},
		{"nginx:", errcode.ErrorCodeTagInvalid, `tag ""`},
		{"nginx:-x", errcode.ErrorCodeTagInvalid, `"-x"`},
		{"nginx:v1@", errcode.ErrorCodeDigestInvalid, `""`},
		{"nginx@sha256:abc", errcode.ErrorCodeDigestInvalid, "64"},
		{"nginx@sha384:" + hex64 + hex64[:32], errcode.ErrorCodeDigestInvalid, "sha512"},
		{"nginx@" + sum256 + "@" + sum256, errcode.ErrorCodeDigestInvalid, "64"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			got, err := oci.ParseRef(tt.in)
			if err == nil {
				t.Fatalf("accepted as %s", got)
			}
			checkRefusal(t, err, tt.code)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("message %q does not say %q", err, tt.says)
			}
		})
	}
}

func TestRepoString(t *testing.T) {
	t.Parallel()
	if got := (oci.Repo{Host: "ghcr.io", Name: "a/b"}).String(); got != "ghcr.io/a/b" {
		t.Errorf("got %q", got)
	}
	if got := (oci.Repo{Name: "a/b"}).String(); got != "a/b" {
		t.Errorf("without a host: got %q", got)
	}
}

func TestVerifyDigest(t *testing.T) {
	t.Parallel()
	b := []byte("content")
	s256, s512 := sha256.Sum256(b), sha512.Sum512(b)
	d256 := oci.Digest("sha256:" + hex.EncodeToString(s256[:]))
	d512 := oci.Digest("sha512:" + hex.EncodeToString(s512[:]))
	tests := []struct {
		name string
		d    oci.Digest
		b    []byte
		want bool
	}{
		{"sha256", d256, b, true},
		{"sha512", d512, b, true},
		{"sha256 of other bytes", d256, []byte("contenT"), false},
		{"sha512 of other bytes", d512, nil, false},
		{"capitals", oci.Digest(strings.ToUpper(string(d256))), b, false},
		{"sum under another name", oci.Digest("sha384:" + d256.Encoded()), b, false},
		{"cut short", d256[:70], b, false},
		{"nothing", "", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := oci.VerifyDigest(tt.d, tt.b); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReferrersTag(t *testing.T) {
	t.Parallel()
	if got, want := oci.ReferrersTag(sum256), "sha256-"+hex64; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// The spec cuts the second part at 64 characters, so that the tag stays one.
	if got, want := oci.ReferrersTag(sum512), "sha512-"+hex64; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{
		"nginx", "nginx:1.27", "docker.io/library/nginx", "index.docker.io/a", "ghcr.io/a/b:v1@" + sum256, "localhost:5000/a",
		"[::1]:5000/a", "a@" + sum512, "A/b", "https://a/b", hex64, "a:b:c", "a@b@c", "x.Y/z", "localhost/a", "a/b:5000/c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := oci.ParseRef(s)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if strings.Contains(r.Name, "..") || strings.Contains(r.Name, "//") || len(r.Name) > 255 || r.Host == "" {
			t.Fatalf("%q gave %+v", s, r)
		}
		if r.Tag == "" && r.Digest == "" {
			t.Fatalf("%q gave neither tag nor digest", s)
		}
		again, err := oci.ParseRef(r.String())
		if err != nil {
			t.Fatalf("%q, from %q: %v", r, s, err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatalf("%q is not canonical (-first +again):\n%s", s, diff)
		}
		// Docker's own parser accepts each reference that ParseRef accepts, and for lower-case text with the same meaning.
		named, err := reference.ParseNormalizedNamed(s)
		if err != nil {
			t.Fatalf("%q: accepted here, refused by reference: %v", s, err)
		}
		if strings.ToLower(s) == s && (reference.Domain(named) != r.Host || reference.Path(named) != r.Name) {
			t.Fatalf("%q is %s here and %s for reference", s, r, named)
		}
	})
}

func ref(host, name, tag string, d oci.Digest) oci.Ref {
	return oci.Ref{Repo: oci.Repo{Host: host, Name: name}, Tag: tag, Digest: d}
}
