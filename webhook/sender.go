package webhook

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/oci"
)

// sender is a kind of registry: how it shows that it knows the secret, and what its reports look like.
type sender struct {
	signed []scheme // the first whose header is there decides
	shown  []place  // where the secret itself may stand, if there is no signature
	path   bool     // the secret stands in the path
	read   func(body []byte) (report, error)
	need   string // how the secret has to be given there, as the end of a sentence
	// strict says that the sender wants to hear of a registry that is not in the list: it is a script. The others would send
	// the report again and again, or show a webhook that fails.
	strict bool
}

// report is what a sender reports.
type report struct {
	id      string // of the event, given by the sender; empty: it has none
	changes []change
	ignored string // why there are no changes
}

// change is a tag that was pushed or deleted, as the sender calls it.
type change struct {
	host       string // empty: the report does not say
	repository string
	tag        string // empty: all tags of the repository
}

// senders are all kinds, by the word in the configuration.
var senders = map[string]sender{
	"dockerhub": {
		path: true, shown: []place{inPath}, read: readDockerHub,
		need: "Docker Hub can send nothing else, so write it at the end of the URL: /webhooks/NAME/SECRET",
	},
	"quay": {
		path: true, shown: []place{inPath}, read: readQuay,
		need: "Quay can send nothing else, so write it at the end of the URL: /webhooks/NAME/SECRET",
	},
	"github": {
		signed: []scheme{hubSignature}, read: readGitHub,
		need: "write it into the field Secret of the webhook there, which signs each report",
	},
	"gitea": {
		signed: []scheme{giteaSignature, hubSignature}, read: readGitea,
		need: "write it into the field Secret of the webhook there, which signs each report",
	},
	"gitlab": {
		signed: []scheme{standardSignature}, shown: []place{inGitLabToken, inAuthorization}, read: readGitLab,
		need: "write it as the webhook's signing token or secret token there, or as Authorization: Bearer SECRET under the headers " +
			"of the registry's notifications",
	},
	"harbor": {
		shown: []place{inAuthorization}, read: readHarbor,
		need: "write Bearer SECRET into the field Auth Header of the webhook there",
	},
	"distribution": {
		shown: []place{inAuthorization}, read: readDistribution,
		need: "write Authorization: [Bearer SECRET] under the headers of the endpoint there",
	},
	"generic": {
		signed: []scheme{standardSignature, hubSignature}, shown: []place{inAuthorization}, read: readGeneric, strict: true,
		need: "sign the body with it (X-Hub-Signature-256: sha256=HMAC), or send Authorization: Bearer SECRET",
	},
}

// Types are the kinds of sender, sorted.
func Types() []string { return slices.Sorted(maps.Keys(senders)) }

// errBody is for a body that is not JSON.
var errBody = errors.New("the body is not the JSON of an event")

// decode reads JSON. A value of another type than expected is left out: senders change what the mirror does not read.
func decode(body []byte, v any) error {
	err := json.Unmarshal(body, v)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok || err == nil {
		return nil
	}
	return errBody
}

// readDockerHub reads a push of Docker Hub. It reports nothing else.
func readDockerHub(body []byte) (report, error) {
	var v struct {
		PushData struct {
			Tag string `json:"tag"`
		} `json:"push_data"`
		Repository struct {
			RepoName  string `json:"repo_name"`
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"repository"`
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	name := v.Repository.RepoName
	if name == "" && v.Repository.Name != "" {
		name = strings.TrimPrefix(v.Repository.Namespace+"/"+v.Repository.Name, "/")
	}
	if name == "" || v.PushData.Tag == "" {
		return report{ignored: "it is not a push of a tag"}, nil
	}
	return report{changes: []change{{"docker.io", name, v.PushData.Tag}}}, nil
}

// readQuay reads a push or the deletion of a repository of Quay. Tags are a list, and in reports of old versions the keys of a
// mapping.
func readQuay(body []byte) (report, error) {
	var v struct {
		DockerURL   string          `json:"docker_url"`
		UpdatedTags json.RawMessage `json:"updated_tags"`
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	var tags []string
	if json.Unmarshal(v.UpdatedTags, &tags) != nil {
		var byTag map[string]json.RawMessage
		if json.Unmarshal(v.UpdatedTags, &byTag) == nil {
			tags = slices.Sorted(maps.Keys(byTag))
		}
	}
	host, name := splitHost(v.DockerURL)
	if name == "" || len(tags) == 0 {
		return report{ignored: "it is not a push of a tag"}, nil
	}
	var r report
	for _, tag := range tags {
		r.changes = append(r.changes, change{host, name, tag})
	}
	return r, nil
}

// githubPackage is a package of GitHub's: the event registry_package has it under that key, and package under its own.
type githubPackage struct {
	Name        string `json:"name"`
	Namespace   string `json:"namespace"`
	Ecosystem   string `json:"ecosystem"`
	PackageType string `json:"package_type"`
	Owner       struct {
		Login string `json:"login"`
	} `json:"owner"`
	Version struct {
		PackageURL string `json:"package_url"`
		Container  struct {
			Tag struct {
				Name string `json:"name"`
			} `json:"tag"`
		} `json:"container_metadata"`
	} `json:"package_version"`
}

// isContainer reports whether a package is an image: both words have been sent for one.
func (p githubPackage) isContainer() bool {
	for _, word := range []string{p.PackageType, p.Ecosystem} {
		if strings.EqualFold(word, "container") || strings.EqualFold(word, "docker") {
			return true
		}
	}
	return false
}

// readGitHub reads a package event of GitHub, for the Container registry. Names of owners have capitals there, and images have
// none.
func readGitHub(body []byte) (report, error) {
	body = formPayload(body)
	var v struct {
		RegistryPackage *githubPackage `json:"registry_package"`
		Package         *githubPackage `json:"package"`
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	p := v.RegistryPackage
	if p == nil {
		p = v.Package
	}
	switch {
	case p == nil:
		return report{ignored: "it is not an event of a package: choose Registry packages under the events of the webhook"}, nil
	case !p.isContainer():
		return report{ignored: "the package is not an image"}, nil
	}
	c := change{host: "ghcr.io", tag: p.Version.Container.Tag.Name}
	if host, name := splitHost(p.Version.PackageURL); name != "" {
		repository, tag, _ := strings.Cut(name, ":")
		c.host, c.repository, c.tag = host, strings.ToLower(repository), cmp.Or(c.tag, tag)
	} else {
		c.repository = strings.ToLower(cmp.Or(p.Namespace, p.Owner.Login) + "/" + p.Name)
	}
	if c.tag == "" {
		return report{ignored: "the package version has no tag"}, nil
	}
	return report{changes: []change{c}}, nil
}

// formPayload is the JSON of a body that GitHub and Gitea send as a form, which is the preset there; else the body.
func formPayload(body []byte) []byte {
	if encoded, ok := strings.CutPrefix(string(body), "payload="); ok {
		encoded, _, _ = strings.Cut(encoded, "&")
		if text, err := url.QueryUnescape(encoded); err == nil {
			return []byte(text)
		}
	}
	return body
}

// readGitea reads a package event of Gitea or Forgejo.
func readGitea(body []byte) (report, error) {
	body = formPayload(body)
	var v struct {
		Package *struct {
			Type    string `json:"type"`
			Name    string `json:"name"`
			Version string `json:"version"`
			HTMLURL string `json:"html_url"`
			Owner   struct {
				Login    string `json:"login"`
				UserName string `json:"username"`
			} `json:"owner"`
		} `json:"package"`
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	switch p := v.Package; {
	case p == nil:
		return report{ignored: "it is not an event of a package: choose Package under the events of the webhook"}, nil
	case p.Type != "container":
		return report{ignored: "the package is not an image"}, nil
	case !oci.IsTag(p.Version):
		return report{ignored: "the package version is not a tag"}, nil
	default:
		c := change{repository: strings.ToLower(cmp.Or(p.Owner.Login, p.Owner.UserName) + "/" + p.Name), tag: p.Version}
		if u, err := url.Parse(p.HTMLURL); err == nil {
			c.host = u.Host
		}
		return report{changes: []change{c}}, nil
	}
}

// harborEvents are the events of Harbor that concern tags, in both of its formats and by their old names.
var harborEvents = []string{
	"PUSH_ARTIFACT", "DELETE_ARTIFACT", "CREATE_TAG", "pushImage", "deleteImage",
	"harbor.artifact.pushed", "harbor.artifact.deleted", "harbor.tag.created",
}

type harborData struct {
	Resources []struct {
		Tag         string `json:"tag"`
		ResourceURL string `json:"resource_url"`
	} `json:"resources"`
	Repository struct {
		RepoFullName string `json:"repo_full_name"`
	} `json:"repository"`
}

// readHarbor reads an event of Harbor, in its default format or as a CloudEvent.
func readHarbor(body []byte) (report, error) {
	var v struct {
		Type      string     `json:"type"`
		ID        string     `json:"id"`
		EventData harborData `json:"event_data"`
		Data      harborData `json:"data"`
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	if !slices.Contains(harborEvents, v.Type) {
		return report{ignored: "it is not a push or deletion: choose Artifact pushed and Artifact deleted under the events of the webhook"}, nil
	}
	data := v.EventData
	if len(data.Resources) == 0 {
		data = v.Data
	}
	r := report{id: v.ID}
	deleted := strings.Contains(strings.ToLower(v.Type), "delete")
	for _, resource := range data.Resources {
		// Harbor names one of the tags of a deleted artifact, or its digest: then any tag may be gone.
		if deleted {
			resource.Tag = ""
		} else if !oci.IsTag(resource.Tag) { // the digest of an artifact without a tag
			continue
		}
		host, name := splitHost(resource.ResourceURL)
		if data.Repository.RepoFullName != "" {
			name = data.Repository.RepoFullName
		} else if i := strings.LastIndexByte(name, ':'); i >= 0 {
			name = name[:i]
		}
		r.changes = append(r.changes, change{host, name, resource.Tag})
	}
	if len(r.changes) == 0 {
		r.ignored = "the artifact has no tag"
	}
	return r, nil
}

// distributionEvent is an event of CNCF Distribution. Azure's registry sends single ones.
type distributionEvent struct {
	ID     string `json:"id"`
	Action string `json:"action"`
	Target struct {
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
		URL        string `json:"url"`
	} `json:"target"`
	Request struct {
		Host string `json:"host"`
	} `json:"request"`
}

// readDistribution reads the events of CNCF Distribution, and of registries that are built on it: an envelope of several, or
// one alone. A manifest that was pushed by its digest moves no tag, and a layer is not one.
func readDistribution(body []byte) (report, error) {
	var v struct {
		Events []distributionEvent `json:"events"`
		distributionEvent
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	events := v.Events
	if v.Action != "" {
		events = append(events, v.distributionEvent)
	}
	r := report{ignored: "it has no push or deletion of a tag"}
	ids := make([]string, 0, len(events))
	for _, e := range events {
		ids = append(ids, e.ID)
		switch {
		case e.Target.Repository == "":
			continue
		case e.Action == "push" && e.Target.Tag != "", e.Action == "delete":
		default:
			continue
		}
		host := e.Request.Host
		if u, err := url.Parse(e.Target.URL); err == nil && host == "" {
			host = u.Host
		}
		r.changes = append(r.changes, change{host, e.Target.Repository, e.Target.Tag})
	}
	if len(ids) > 0 && !slices.Contains(ids, "") {
		r.id = strings.Join(ids, "\n")
	}
	return r, nil
}

// readGitLab reads the notifications of GitLab's registry, which are those of Distribution. GitLab's project and group webhooks
// have no event for images.
func readGitLab(body []byte) (report, error) {
	var v struct {
		Kind string `json:"object_kind"`
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	if v.Kind != "" {
		return report{ignored: "GitLab's webhooks report no images: use the notifications of its registry, or a job that calls a " +
			"webhook of type generic"}, nil
	}
	return readDistribution(body)
}

// readGeneric reads the names of images, as people write them.
func readGeneric(body []byte) (report, error) {
	var v struct {
		Image  string   `json:"image"`
		Images []string `json:"images"`
	}
	if err := decode(body, &v); err != nil {
		return report{}, err
	}
	if v.Image != "" {
		v.Images = append([]string{v.Image}, v.Images...)
	}
	if len(v.Images) == 0 { // its script has a mistake
		return report{}, errors.New(`the body names no image: send {"image": "HOST/REPOSITORY:TAG"}`)
	}
	var r report
	for _, text := range v.Images {
		if strings.HasSuffix(text, ":") { // a template filled in for a push by digest: it has no tag
			r.ignored = "the image has no tag, so there is nothing to check"
			continue
		}
		ref, err := oci.ParseRef(text)
		if err != nil {
			return report{}, err
		}
		if ref.Tag == "" {
			r.ignored = "a digest always means the same content, so there is nothing to check"
			continue
		}
		r.changes = append(r.changes, change{ref.Host, ref.Name, ref.Tag})
	}
	return r, nil
}

// splitHost takes the host off the name of an image, which may be a URL.
func splitHost(text string) (host, rest string) {
	if _, after, ok := strings.Cut(text, "://"); ok {
		text = after
	}
	host, rest, _ = strings.Cut(text, "/")
	return host, rest
}
