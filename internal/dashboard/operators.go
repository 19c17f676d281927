package main

// operators is the dashboard for people who run a mirror.
func operators() dashboard {
	return dashboard{
		uid: "registry-mirror", title: "Registry mirror", description: "What the mirror does, for people who run it.",
		link: link{"registry-mirror-users", "Why do my pods wait?"},
		rows: []row{
			{"Now", now()},
			{"Pulls", pulls()},
			{"Latency", latency()},
			{"Registries", registries()},
			{"Cache", cached()},
			{"Tags", tags()},
			{"Warm-up", warmUp()},
			{"Nodes", nodes()},
			{"The mirror itself", itself()},
		},
	}
}

// Colours of a number: the first is that of values below the limits.
var (
	noneIsBad = []step{{0, "red"}, {1, "green"}}
	someIsBad = []step{{0, "green"}, {1, "red"}}
	lowIsBad  = []step{{0, "red"}, {.1, "orange"}, {.25, "green"}}
)

// counted is the rate of a counter, summed by a label.
func counted(by, metric, matchers string) string {
	return "sum by (" + by + ") (rate(" + metric + "{" + matchers + "}" + over + "))"
}

// line is a panel of one expression over the time.
func line(title, help, unit, expr, legend string) panel {
	return panel{kind: "timeseries", title: title, help: help, unit: unit, shown: []target{{expr, legend}}}
}

// number is a panel that shows the last value.
func number(title, help, unit, expr string, steps []step) panel {
	return panel{kind: "stat", title: title, help: help, unit: unit, width: 4, height: 4, steps: steps, shown: []target{{expr, ""}}}
}

func stacked(p panel) panel {
	p.stack = true
	return p
}

func now() []panel {
	return []panel{
		number("Mirrors", "Mirrors that answer a scrape.", "short", `count(mirror_build_info{`+mirrors+`})`, noneIsBad),
		number("Requests", "Requests of clients a second.", "reqps", `sum(rate(mirror_requests_total{`+upstreams+`}`+over+`))`, nil),
		number("Not from a registry", "The share of the bytes for clients that no registry had to send, in this range of time.", "percentunit",
			`clamp_min(1 - sum(increase(mirror_upstream_bytes_total{`+upstreams+`}[$__range])) / sum(increase(mirror_client_bytes_total{`+upstreams+`}[$__range])), 0)`, nil),
		number("Failed pulls", "Pulls that failed in this range of time, those of missing images included.", "short",
			`sum(increase(mirror_pulls_total{`+upstreams+`,outcome="failed"}[$__range]))`, someIsBad),
		number("Endpoints down", "Endpoints of registries that are down, as a mirror sees them.", "short",
			`count(mirror_upstream_endpoint_up{`+upstreams+`} == 0) or vector(0)`, someIsBad),
		number("Lowest limit", "The least that is left of any registry's limit on pulls. Empty: no registry has reported one.", "percentunit",
			`min(mirror_ratelimit_remaining{`+upstreams+`} / mirror_ratelimit_limit{`+upstreams+`})`, lowIsBad),
	}
}

func pulls() []panel {
	return []panel{
		stacked(line("Pulls by outcome", "stale: the last known image was served, since the registry did not answer. declined: the node goes on to the registry. looked: only a check of a tag.",
			"ops", counted("outcome", "mirror_pulls_total", upstreams), "{{outcome}}")),
		stacked(line("Failed pulls by class", "missing: the image does not exist. undecided: it is missing or private. client: the client has left.",
			"ops", counted("class", "mirror_failures_total", upstreams), "{{class}}")),
		{
			kind: "table", title: "Failed pulls by reason", help: "In this range of time. A reason links to its page; mirror failures has image, cause and remedy.",
			unit: "short", page: "reason",
			shown: []target{{`sum by (upstream, class, reason) (increase(mirror_failures_total{` + upstreams + `}[$__range])) > 0`, ""}},
		},
		stacked(line("Requests by result", "hit: from the cache. miss: a download began. joined: a download under way was joined. uncached: straight from the registry.",
			"reqps", counted("result", "mirror_requests_total", upstreams), "{{result}}")),
		{
			kind: "timeseries", title: "Bytes", help: "To clients, and from registries: what lies between is what the cache saves.", unit: "Bps",
			shown: []target{
				{`sum(rate(mirror_client_bytes_total{` + upstreams + `}` + over + `))`, "to clients"},
				{`sum(rate(mirror_upstream_bytes_total{` + upstreams + `}` + over + `))`, "from registries"},
			},
		},
		line("Requests that are being answered", "", "short", `sum by (instance) (mirror_requests_in_flight{`+mirrors+`})`, "{{instance}}"),
	}
}

// quantiles are the median and the 99th percentile of a histogram.
func quantiles(by, metric, matchers, legend string) []target {
	of := func(q string) string {
		return "histogram_quantile(" + q + ", sum by (le" + by + ") (rate(" + metric + "_bucket{" + matchers + "}" + over + ")))"
	}
	return []target{{of("0.5"), legend + " (median)"}, {of("0.99"), legend + " (99 %)"}}
}

func latency() []panel {
	return []panel{
		{
			kind: "timeseries", title: "First byte of blobs and manifests from the cache", unit: "s",
			help:  "Time from a client's request to the first byte of its answer.",
			shown: quantiles(", kind", "mirror_first_byte_seconds", mirrors+`,kind=~"manifest|blob",result=~"hit|stale"`, "{{kind}}"),
		},
		{
			kind: "timeseries", title: "First byte of blobs and manifests from registries", unit: "s",
			help:  "Time from a client's request to the first byte of its answer. containerd 2.3 gives up after 30 s.",
			shown: quantiles(", kind", "mirror_first_byte_seconds", mirrors+`,kind=~"manifest|blob",result=~"miss|joined|uncached"`, "{{kind}}"),
		},
		{
			kind: "timeseries", title: "Requests to registries", unit: "s", help: "Time to the last byte of the answer.",
			shown: quantiles(", kind", "mirror_upstream_request_seconds", upstreams, "{{kind}}"),
		},
	}
}

func registries() []panel {
	return []panel{
		{
			kind: "state-timeline", title: "Endpoints", help: "An endpoint that is down is asked last.", unit: "short",
			shown: []target{{`min by (upstream, endpoint) (mirror_upstream_endpoint_up{` + upstreams + `})`, "{{upstream}}: {{endpoint}}"}},
		},
		{
			kind: "timeseries", title: "Left of the limits on pulls", unit: "percentunit", top: 1,
			help:  "As the registry has last reported it. Nothing is shown of a registry that reports no limit. mirror upstreams shows which pulls used it up.",
			shown: []target{{`min by (upstream, credential) (mirror_ratelimit_remaining{` + upstreams + `} / mirror_ratelimit_limit{` + upstreams + `})`, "{{upstream}}: {{credential}}"}},
		},
		{
			kind: "table", title: "Credentials that need a look", help: "Empty is good. mirror upstreams shows the cause.", unit: "short",
			shown: []target{{`count by (upstream, credential, state) (mirror_credential_state{` + upstreams + `,state=~"expiring|expired|rejected|failing"} == 1)`, ""}},
		},
		line("Answers of registries", "By status; 0: there was no answer.", "reqps", counted("upstream, code", "mirror_upstream_requests_total", upstreams), "{{upstream}}: {{code}}"),
		{
			kind: "timeseries", title: "Blobs in transfer, and those that wait", help: "maxTransfers bounds the transfers from an endpoint.", unit: "short",
			shown: []target{
				{`sum by (upstream) (mirror_upstream_transfers{` + upstreams + `})`, "{{upstream}}"},
				{`sum by (upstream) (mirror_upstream_transfers_waiting{` + upstreams + `})`, "{{upstream}}: waiting"},
			},
		},
		{
			kind: "timeseries", title: "Credentials expire in", unit: "s", help: "A credential is renewed when half of its life is over.",
			shown: []target{{`min by (upstream, credential) (mirror_credential_expiry_seconds{` + upstreams + `})`, "{{upstream}}: {{credential}}"}},
		},
	}
}

func cached() []panel {
	return []panel{
		{
			kind: "timeseries", title: "Size", unit: "bytes", help: "At the budget, the content that was not used for the longest time is removed.",
			shown: []target{
				{`sum by (instance) (mirror_cache_bytes{` + mirrors + `})`, "{{instance}}"},
				{`sum by (instance) (mirror_cache_size_bytes{` + mirrors + `})`, "{{instance}}: budget"},
				{`sum by (instance) (mirror_cache_disk_free_bytes{` + mirrors + `})`, "{{instance}}: free on the disk"},
			},
		},
		{
			kind: "timeseries", title: "Blobs", unit: "ops", stack: true,
			help: "uncached: served straight from the registry, since the disk fails, or the blob is larger than the cache.",
			shown: []target{
				{`sum(rate(mirror_cache_hits_total{` + mirrors + `}` + over + `))`, "hit"},
				{`sum(rate(mirror_cache_joined_total{` + mirrors + `}` + over + `))`, "joined"},
				{`sum(rate(mirror_cache_misses_total{` + mirrors + `}` + over + `))`, "miss"},
				{`sum(rate(mirror_cache_uncached_total{` + mirrors + `}` + over + `))`, "uncached"},
			},
		},
		line("Removed to make room", "Much beside little traffic: the budget is too small for the images in use.", "Bps",
			`sum by (instance) (rate(mirror_cache_evicted_bytes_total{`+mirrors+`}`+over+`))`, "{{instance}}"),
		number("Mirrors that store nothing", "The disk is full, read-only, gone or fails: content is served and not kept.", "short",
			`sum(mirror_cache_degraded{`+mirrors+`})`, someIsBad),
		number("Damaged content", "Found and removed in this range of time.", "short", `sum(increase(mirror_cache_damaged_total{`+mirrors+`}[$__range]))`, someIsBad),
		number("Unfinished downloads", "They wait for a client that comes back.", "short", `sum(mirror_cache_parked{`+mirrors+`})`, nil),
		number("Reserved", "For downloads under way, and unfinished ones.", "bytes", `sum(mirror_cache_reserved_bytes{`+mirrors+`})`, nil),
		number("Pieces of content", "", "short", `sum(mirror_cache_objects{`+mirrors+`})`, nil),
	}
}

func tags() []panel {
	return []panel{
		line("Moves of tags", "Seen at tags that were pulled before. immutable: a tag that must not move; its first image is still served.",
			"short", `sum by (upstream, kind) (increase(mirror_tag_moves_total{`+upstreams+`}[$__rate_interval])) > 0`, "{{upstream}}: {{kind}}"),
		line("Tags that mean different images", "pulled: clients got different images. running: pods run another image than the tag means now. restart: they would get another one. mirror tags drift names them.",
			"short", `max by (upstream, kind) (mirror_tag_drift{`+upstreams+`})`, "{{upstream}}: {{kind}}"),
		line("Reports of webhooks", "denied, invalid and failed are in the log, with the remedy.", "ops",
			`sum by (name, result) (rate(mirror_webhooks_total{`+mirrors+`}`+over+`))`, "{{name}}: {{result}}"),
	}
}

func warmUp() []panel {
	return []panel{
		{
			kind: "timeseries", title: "Jobs", unit: "short", help: "Those that are not over, and the causes by which jobs wait.",
			shown: []target{
				{`sum by (state) (mirror_warm_jobs{` + mirrors + `})`, "{{state}}"},
				{`sum by (cause) (mirror_warm_jobs_waiting{` + mirrors + `}) > 0`, "waits: {{cause}}"},
			},
		},
		{
			kind: "timeseries", title: "Images", unit: "short", help: "By how they ended; those that failed also by the class of the cause.",
			shown: []target{
				{`sum by (state) (increase(mirror_warm_images_total{` + mirrors + `}` + over + `))`, "{{state}}"},
				{`sum by (class) (increase(mirror_warm_failures_total{` + mirrors + `}` + over + `)) > 0`, "failed: {{class}}"},
			},
		},
		{
			kind: "timeseries", title: "Images of the cluster", unit: "short", help: "Those that pods and workloads name, where the cluster feed is on.",
			shown: []target{
				{`max(mirror_feed_images{` + mirrors + `})`, "named"},
				{`max(mirror_feed_images_warm{` + mirrors + `})`, "warm"},
				{`max(mirror_feed_images_failing{` + mirrors + `})`, "failing"},
			},
		},
		line("Bytes that jobs fetch", "", "Bps", `sum(rate(mirror_warm_bytes_total{`+mirrors+`}`+over+`))`, "fetched"),
		line("Kept from eviction", "warm.maxShare bounds it.", "bytes", `sum by (instance) (mirror_warm_kept_bytes{`+mirrors+`})`, "{{instance}}"),
		line("Schedules", "skipped: the last job still ran. refused: by the quotas of jobs.", "short",
			`sum by (name, result) (increase(mirror_warm_schedule_runs_total{`+mirrors+`}`+over+`))`, "{{name}}: {{result}}"),
	}
}

// nodes are of the agents, which Prometheus scrapes under a job of their own.
func nodes() []panel {
	return []panel{
		number("Nodes that pull through the mirror", "By their agents. Empty: there are none.", "percentunit", `avg(mirror_node_configured)`, []step{{0, "red"}, {.9, "orange"}, {1, "green"}}),
		{
			kind: "timeseries", title: "Images on nodes, by how they came there", unit: "short", width: 20, stack: true,
			help:  "missed: past the mirror. mirror coverage names the nodes and the cause.",
			shown: []target{{`max by (state) (mirror_coverage_images{` + mirrors + `})`, "{{state}}"}},
		},
		{
			kind: "timeseries", title: "Nodes", unit: "short", width: 12, help: "mirror doctor node, on a node, says why it does not pull through the mirror.",
			shown: []target{{`count(mirror_node_configured == 1) or vector(0)`, "through the mirror"}, {`count(mirror_node_configured == 0) or vector(0)`, "from the registries"}},
		},
		{
			kind: "timeseries", title: "What the agents saw", unit: "short", width: 12, help: "After three questions in turn without an answer an agent withdraws the configuration.",
			shown: []target{
				{`sum(increase(mirror_node_failed_probes_total` + over + `))`, "questions without an answer"},
				{`sum(increase(mirror_node_withdrawals_total` + over + `))`, "withdrawals"},
			},
		},
	}
}

func itself() []panel {
	return []panel{
		line("Memory", "", "bytes", `process_resident_memory_bytes{`+mirrors+`} and on (job, instance) mirror_build_info`, "{{instance}}"),
		line("CPU", "", "short", `rate(process_cpu_seconds_total{`+mirrors+`}`+over+`) and on (job, instance) mirror_build_info`, "{{instance}}"),
		line("Open files", "", "short", `process_open_fds{`+mirrors+`} and on (job, instance) mirror_build_info`, "{{instance}}"),
		{
			kind: "table", title: "Versions", unit: "short", hidden: []string{"Value"},
			shown: []target{{`count by (instance, version, goversion) (mirror_build_info{` + mirrors + `})`, ""}},
		},
		line("Age of the configuration", "A reload that was refused leaves the old one in use.", "s", `time() - mirror_config_reload_timestamp_seconds{`+mirrors+`}`, "{{instance}}"),
		{
			kind: "timeseries", title: "API server", unit: "ops", help: "Events that were posted on pods, and requests that the API server did not answer as it should.",
			shown: []target{
				{`sum(rate(mirror_kubernetes_events_total{` + mirrors + `}` + over + `))`, "Events"},
				{`sum(rate(mirror_kubernetes_events_dropped_total{` + mirrors + `}` + over + `))`, "dropped"},
				{`sum(rate(mirror_kubernetes_errors_total{` + mirrors + `}` + over + `))`, "errors at Events"},
				{`sum(rate(mirror_feed_errors_total{` + mirrors + `}` + over + `))`, "errors of the feed"},
			},
		},
	}
}
