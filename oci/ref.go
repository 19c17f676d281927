package oci

import (
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/reference"
)

// String is the repository in canonical form: "docker.io/library/nginx".
func (r Repo) String() string {
	if r.Host == "" {
		return r.Name
	}
	return r.Host + "/" + r.Name
}

// String is the reference in canonical form: "docker.io/library/nginx:1.27", "...@sha256:...", or both.
func (r Ref) String() string {
	s := r.Repo.String()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// ParseRef reads an image reference as people write it and makes it canonical: "nginx" is
// "docker.io/library/nginx:latest", "index.docker.io" is "docker.io", a host is in lower case. Where there is a tag
// and a digest, it keeps both. Errors are errcode.Error values: NAME_INVALID, TAG_INVALID or DIGEST_INVALID.
func ParseRef(s string) (Ref, error) {
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return Ref{}, refuse(errcode.ErrorCodeNameInvalid,
			"image %s is a URL; leave out %s", quote(s), quote(scheme+"://"))
	}
	rest, sum, digested := strings.Cut(s, "@")
	var r Ref
	var err error
	if digested {
		if r.Digest, err = ParseDigest(sum); err != nil {
			return Ref{}, err
		}
	}
	name := rest
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		name = rest[:i]
		if r.Tag, err = parseTag(rest[i+1:]); err != nil {
			return Ref{}, err
		}
	}
	// Hosts have no case, and reference compares as it is.
	if host, path, ok := strings.Cut(name, "/"); ok && LooksLikeHost(host) {
		name = strings.ToLower(host) + "/" + path
	}
	named, err := reference.ParseNormalizedNamed(name)
	// reference takes a first component with capitals for a host; here that is a mistake.
	if err != nil || !reference.IsNameOnly(named) || strings.ToLower(name) != name {
		return Ref{}, refuse(errcode.ErrorCodeNameInvalid,
			"image %s is not [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST] with a repository of at most %d bytes in lower case; "+
				"correct it", quote(s), maxName)
	}
	r.Host, r.Name = reference.Domain(named), reference.Path(named)
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}
