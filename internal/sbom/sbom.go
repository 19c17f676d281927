// Package sbom lists the modules that a Go program was linked from, as an SPDX 2.3 document. It reads them from the binary, so the
// list is that of the program as it is, and the same binary has the same document.
package sbom

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Options are what the binary does not say.
type Options struct {
	Version string    // of the program
	Created time.Time // when the document counts as made
	Digest  string    // of what the document is about, an image or a binary; it makes the document's name unique
}

type ref struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type pkg struct {
	ID       string `json:"SPDXID"`
	Name     string `json:"name"`
	Version  string `json:"versionInfo"`
	Location string `json:"downloadLocation"`
	Analyzed bool   `json:"filesAnalyzed"`
	Refs     []ref  `json:"externalRefs"`
}

type relation struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type document struct {
	Version   string     `json:"spdxVersion"`
	License   string     `json:"dataLicense"`
	ID        string     `json:"SPDXID"`
	Name      string     `json:"name"`
	Namespace string     `json:"documentNamespace"`
	Creation  creation   `json:"creationInfo"`
	Packages  []pkg      `json:"packages"`
	Relations []relation `json:"relationships"`
}

// Of is the document of a binary.
func Of(binary []byte, o Options) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read the modules of the binary: %w", err)
	}
	doc := document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "mirror " + o.Version,
		Namespace: "https://" + info.Main.Path + "/sbom/" + o.Digest,
		Creation:  creation{o.Created.Format(time.RFC3339), []string{"Tool: " + info.Main.Path + "/internal/sbom"}},
	}
	doc.add(info.Main.Path, o.Version, "pkg:golang/"+info.Main.Path+"@"+o.Version)
	doc.add("stdlib", info.GoVersion, "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		doc.add(m.Path, m.Version, "pkg:golang/"+m.Path+"@"+m.Version)
	}
	return json.MarshalIndent(doc, "", " ")
}

// add adds a package. The first one is the program, which contains the others.
func (d *document) add(name, version, locator string) {
	id := fmt.Sprintf("SPDXRef-Package-%d", len(d.Packages))
	kind, from := "CONTAINS", "SPDXRef-Package-0"
	if len(d.Packages) == 0 {
		kind, from = "DESCRIBES", d.ID
	}
	d.Packages = append(d.Packages, pkg{
		ID: id, Name: name, Version: version, Location: "NOASSERTION", Refs: []ref{{"PACKAGE-MANAGER", "purl", locator}},
	})
	d.Relations = append(d.Relations, relation{from, kind, id})
}
