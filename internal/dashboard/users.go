package main

// users is the dashboard for people whose pods wait: causes first, in words that need no knowledge of the mirror.
func users() dashboard {
	const words = `The event of the pod has the cause: run ` + "`kubectl describe pod NAME`" + ` and read the text in brackets behind *mirror:*. The eight digits at its end are
the failure's id; the operators find all about it with ` + "`mirror failures ID`" + `.

- **The image does not exist, or is private** (classes *missing* and *undecided*): check its name and tag, and the pod's imagePullSecrets.
- **Any other class**: a registry, the network or the mirror. Cached images are served meanwhile; the table links each reason to its page.
- **No failure, and it is slow**: see whether downloads wait for their turn, below.`
	return dashboard{
		uid: "registry-mirror-users", title: "Why do my pods wait?", description: "Causes of pulls that fail or are slow.",
		link: link{"registry-mirror", "Registry mirror"},
		rows: []row{
			{"What to do", []panel{
				{kind: "text", title: "Read this first", width: 14, height: 7, text: words},
				{
					kind: "state-timeline", title: "Registries", help: "down: only cached images are served.", unit: "short", width: 10, height: 7,
					shown: []target{{`max by (upstream) (mirror_upstream_endpoint_up{` + upstreams + `})`, "{{upstream}}"}},
				},
			}},
			{"Pulls that fail", []panel{
				{
					kind: "table", title: "Reasons", help: "Pulls that failed in this range of time. A reason links to its page: cause and remedy.", unit: "short",
					page: "reason", width: 10,
					shown: []target{{`sum by (upstream, class, reason) (increase(mirror_failures_total{` + upstreams + `}[$__range])) > 0`, ""}},
				},
				{
					kind: "timeseries", title: "Pulls", unit: "ops", stack: true, width: 14,
					shown: []target{
						{`sum(rate(mirror_pulls_total{` + upstreams + `,outcome="served"}` + over + `))`, "served"},
						{`sum(rate(mirror_pulls_total{` + upstreams + `,outcome="stale"}` + over + `))`, "served as last known, since the registry does not answer"},
						{`sum(rate(mirror_pulls_total{` + upstreams + `,outcome="failed"}` + over + `))`, "failed"},
						{`sum(rate(mirror_pulls_total{` + upstreams + `,outcome="declined"}` + over + `))`, "left to the registry, with the pod's own secret"},
					},
				},
			}},
			{"Pulls that are slow", []panel{
				{
					kind: "timeseries", title: "Left of the registries' limits on pulls", unit: "percentunit", top: 1,
					help:  "At zero only cached images are served, until the registry allows more.",
					shown: []target{{`min by (upstream) (mirror_ratelimit_remaining{` + upstreams + `} / mirror_ratelimit_limit{` + upstreams + `})`, "{{upstream}}"}},
				},
				line("Downloads that wait for their turn", "The mirror fetches a bounded number of layers from a registry at once.", "short",
					`sum by (upstream) (mirror_upstream_transfers_waiting{`+upstreams+`})`, "{{upstream}}"),
				line("What registries send", "", "Bps", `sum by (upstream) (rate(mirror_upstream_bytes_total{`+upstreams+`}`+over+`))`, "{{upstream}}"),
			}},
		},
	}
}
