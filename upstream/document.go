package upstream

// Document is a JSON list of an upstream, passed on as it is: tags/list or referrers.
type Document struct {
	Bytes     []byte
	MediaType string
	Next      string // query of the next page ("n=100&last=x"); empty: this is the last one
	Filters   string // OCI-Filters-Applied
}
