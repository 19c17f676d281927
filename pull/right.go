package pull

import (
	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// admit routes a request and checks the client's right. Nothing that is known of the content has been looked at by then,
// and nobody asked: to who may not read, what is there looks like what is not.
func (p *Puller) admit(r oci.Request) (*site, oci.Ref, error) {
	st, ref, err := p.route(r)
	if err == nil && st.Ruled && !st.rules.Allow(ref.Repo) {
		err = &access.ForbiddenError{Repo: ref.Repo, Mirrored: r.Namespace != ""}
	}
	if err == nil && st.Open != nil {
		st, err = p.hosts.site(p, st, ref.Host)
	}
	return st, ref, err
}

// hidden reports whether what is known of a repository is not for the clients of a site: it was learnt under rules, and
// they are gone. The upstream, which is now asked as nobody first, has to show it anew.
func (p *Puller) hidden(st *site, repo oci.Repo) bool {
	return guard.Membership && !st.Ruled && p.private.Has(repo)
}

// member is the catalog's answer as far as it is for the clients of a site.
func (p *Puller) member(st *site, repo oci.Repo, d oci.Digest) (oci.Descriptor, bool, error) {
	if p.hidden(st, repo) {
		return oci.Descriptor{Size: -1}, false, nil
	}
	return p.catalog.Member(repo, d)
}

// kept is the catalog's record of a tag as far as it is for the clients of a site.
func (p *Puller) kept(st *site, ref oci.Ref) (catalog.Tag, error) {
	if p.hidden(st, ref.Repo) {
		return catalog.Tag{}, catalog.ErrUnknown
	}
	return p.catalog.Tag(ref)
}

// shown notes for whom the upstream of a site has shown a repository, before anything of that is recorded: by the rules
// for some, else for everybody. After an error nothing may be recorded.
func (p *Puller) shown(st *site, repo oci.Repo) error {
	if st.Ruled {
		return p.private.Add(repo)
	}
	return p.private.Remove(repo)
}
