// Package metrics is everything that Prometheus scrapes: counters that components raise as they work, and tables of series
// that are read from components at each scrape.
//
//	metrics.go  counted as it happens: requests, pulls, failures, exchanges with upstreams, fetches of credentials, webhooks,
//	            reloads
//	tables.go   read at a scrape: cache, scrubber, endpoints, limits, credentials, Events, requests under way
//	collect.go  what turns a table into a collector
//
// A new metric is a line in New, or a row of a table, and a row in docs/metrics.md, which a test compares.
//
// Guarantees: labels take values from the configuration and from closed lists alone, so clients can't make series. The numbers
// of a table are of one moment: its component is asked once for each scrape.
package metrics
