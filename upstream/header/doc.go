// Package header reads the headers of registries: challenges, ranges, links to the next page, codings, media types. It is
// pure. It is lenient where registries are known to be careless, and strict where a wrong reading would yield wrong bytes.
package header
