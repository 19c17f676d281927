// Package images finds the names of images in the files that people have: Kubernetes manifests of any kind, custom resources,
// the output of Helm, Kustomize and kubectl, a chart's values, Compose files and plain lists.
//
// The form of a text is recognised by its content. Names are found by the names of fields, not by kinds, so a resource of
// an unknown kind works too:
//
//	image: nginx:1.27                            anywhere: containers, custom resources, services of Compose
//	image: {registry, repository, tag, digest}   values of charts, and specs like them; also "image", "name", "sha", "version"
//	image: {reference: ...}                      a volume that is an image
//	initImage:, imageName:, FOO_IMAGE:           if the text has a tag or a digest; also variables of containers
//	images: [...]                                the API's own body; resources that list images; a Kustomization's images
//	--reloader=quay.io/acme/reloader:v1          arguments of containers, if the text has a host and a tag or a digest
//
// Labels, annotations and status are not read: an annotation may repeat an old manifest, and the status of a pod names its images as the
// runtime of one node shows them, by local ids too. Definitions of custom resources, policies of Kyverno and the repositories
// that Flux watches have fields of these names which are not images that a pod uses.
//
// Guarantees:
//   - Each image is listed once, under its canonical name, with the places where it stands.
//   - A text that can't be read becomes a problem with file, document and line, and the documents after it are read.
//   - A name that is not known yet (a template, a variable, a tag that a chart fills in) is a problem, never a guess.
//   - Bytes, documents, depth, values (aliases counted each time), images and problems are bounded.
//
// It does not render charts or Kustomizations, does not read manifests that stand in a text within a manifest, does not know the images
// that an operator chooses by itself, and asks no registry.
package images
