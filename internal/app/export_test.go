package app

// NewCacheCollector is the collector of the cache's numbers.
var NewCacheCollector = newCacheCollector
