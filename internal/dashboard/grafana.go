package main

import (
	"encoding/json"
	"fmt"
)

// dashboard is one, as rows of panels.
type dashboard struct {
	uid, title, description string
	rows                    []row
	link                    link // to the other dashboard
}

type link struct{ uid, title string }

// row is a heading and the panels below it, which share the width, or continue in a further line.
type row struct {
	title  string
	panels []panel
}

// panel is a picture of one or more expressions.
type panel struct {
	kind   string // of Grafana: timeseries, stat, table, state-timeline, text
	title  string
	help   string // shown at the title
	unit   string // of Grafana
	width  int    // of 24; 0: 8
	height int    // 0: 8
	stack  bool
	top    float64 // the end of the scale; 0: it follows the values
	steps  []step
	text   string   // Markdown, of a text panel
	hidden []string // columns of a table
	page   string   // of a table: the column whose values have a page in docs/failures
	shown  []target
}

// step is the colour of values from a limit on.
type step struct {
	from  float64
	color string
}

// target is an expression and the name of its series.
type target struct{ expr, legend string }

// The matchers of a mirror's own series, of those of an upstream, and the time over which a rate is taken.
const (
	mirrors   = `job=~"$job",instance=~"$instance"`
	upstreams = mirrors + `,upstream=~"$upstream"`
	over      = `[$__rate_interval]`
	source    = "https://github.com/registrymirror/mirror/blob/main/docs/"
)

// object is a JSON object; encoding/json sorts its keys.
type object = map[string]any

var dataSource = object{"type": "prometheus", "uid": "${datasource}"}

// json is the dashboard as Grafana 10 and later reads it.
func (d dashboard) json() []byte {
	var panels []object
	id, y := 0, 0
	for _, r := range d.rows {
		id++
		panels = append(panels, object{
			"id": id, "type": "row", "title": r.title, "collapsed": false, "panels": []object{},
			"gridPos": object{"h": 1, "w": 24, "x": 0, "y": y},
		})
		y++
		x, tallest := 0, 0
		for _, p := range r.panels {
			width, height := orElse(p.width, 8), orElse(p.height, 8)
			if x+width > 24 {
				x, y, tallest = 0, y+tallest, 0
			}
			id++
			panels = append(panels, p.object(id, object{"h": height, "w": width, "x": x, "y": y}))
			x, tallest = x+width, max(tallest, height)
		}
		y += tallest
	}
	text, err := json.MarshalIndent(object{
		"uid": d.uid, "title": d.title, "description": d.description, "tags": []string{"mirror", "registry"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "refresh": "1m", "timezone": "browser",
		"time": object{"from": "now-6h", "to": "now"}, "panels": panels, "annotations": object{"list": []object{}},
		"templating": object{"list": variables()},
		"links": []object{
			{
				"type": "link", "title": d.link.title, "url": "/d/" + d.link.uid, "icon": "dashboard", "keepTime": true, "includeVars": true,
				"targetBlank": false, "tags": []string{}, "asDropdown": false, "tooltip": "",
			},
			{
				"type": "link", "title": "What to do at an alert", "url": source + "alerts.md", "icon": "doc", "keepTime": false,
				"includeVars": false, "targetBlank": true, "tags": []string{}, "asDropdown": false, "tooltip": "",
			},
		},
	}, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("dashboard: %v", err)) // maps of strings and numbers are always JSON
	}
	return append(text, '\n')
}

func orElse(n, standard int) int {
	if n == 0 {
		return standard
	}
	return n
}

func variables() []object {
	list := []object{{
		"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0, "includeAll": false,
		"multi": false, "refresh": 1, "regex": "", "options": []object{}, "current": object{},
	}}
	for _, v := range []struct{ name, label, query string }{
		{"job", "Job", "label_values(mirror_build_info, job)"},
		{"instance", "Mirror", `label_values(mirror_build_info{job=~"$job"}, instance)`},
		{"upstream", "Registry", `label_values(mirror_upstream_endpoint_up{job=~"$job"}, upstream)`},
	} {
		list = append(list, object{
			"type": "query", "name": v.name, "label": v.label, "datasource": dataSource, "definition": v.query,
			"query": object{"query": v.query, "refId": "variable-" + v.name}, "hide": 0, "includeAll": true, "allValue": ".*", "multi": true,
			"refresh": 2, "sort": 1, "regex": "", "options": []object{},
			"current": object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
		})
	}
	return list
}

func (p panel) object(id int, at object) object {
	o := object{"id": id, "type": p.kind, "title": p.title, "description": p.help, "gridPos": at}
	if p.kind == "text" {
		o["options"] = object{"mode": "markdown", "content": p.text}
		return o
	}
	o["datasource"] = dataSource
	var targets []object
	for i, t := range p.shown {
		target := object{"refId": string(rune('A' + i)), "expr": t.expr, "legendFormat": t.legend, "datasource": dataSource}
		if p.kind == "table" {
			target["format"], target["instant"], target["range"] = "table", true, false
		}
		targets = append(targets, target)
	}
	o["targets"] = targets
	o["fieldConfig"] = object{"defaults": p.defaults(), "overrides": p.overrides()}
	o["options"] = p.options()
	if p.kind == "table" {
		hidden := object{"Time": true}
		for _, name := range p.hidden {
			hidden[name] = true
		}
		o["transformations"] = []object{{"id": "organize", "options": object{"excludeByName": hidden, "indexByName": object{}, "renameByName": object{}}}}
	}
	return o
}

func (p panel) defaults() object {
	d := object{"unit": p.unit}
	if p.kind == "timeseries" {
		d["min"] = 0
		if p.unit == "s" {
			delete(d, "min") // a credential that has expired has less than none left
		}
		mode := "none"
		if p.stack {
			mode = "normal"
		}
		d["custom"] = object{"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": false, "stacking": object{"mode": mode, "group": "A"}}
	}
	if p.top > 0 {
		d["max"] = p.top
	}
	if p.kind == "state-timeline" {
		d["mappings"] = []object{{"type": "value", "options": object{
			"0": object{"text": "down", "color": "red", "index": 0}, "1": object{"text": "up", "color": "green", "index": 1},
		}}}
		d["custom"] = object{"fillOpacity": 70, "lineWidth": 0}
	}
	if len(p.steps) > 0 {
		var steps []object
		for i, s := range p.steps {
			from := any(s.from)
			if i == 0 {
				from = nil // Grafana's first step has no limit
			}
			steps = append(steps, object{"value": from, "color": s.color})
		}
		d["thresholds"] = object{"mode": "absolute", "steps": steps}
		d["color"] = object{"mode": "thresholds"}
	}
	return d
}

func (p panel) overrides() []object {
	if p.page == "" {
		return []object{}
	}
	return []object{{
		"matcher": object{"id": "byName", "options": p.page},
		"properties": []object{{"id": "links", "value": []object{{
			"title": "cause and remedy", "url": source + "failures/${__value.text}.md", "targetBlank": true,
		}}}},
	}}
}

func (p panel) options() object {
	switch p.kind {
	case "stat":
		return object{
			"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		}
	case "table":
		return object{"showHeader": true, "cellHeight": "sm", "sortBy": []object{{"displayName": "Value", "desc": true}}}
	case "state-timeline":
		return object{"showValue": "never", "mergeValues": true, "rowHeight": 0.8, "legend": object{"showLegend": false}}
	}
	return object{
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
}
