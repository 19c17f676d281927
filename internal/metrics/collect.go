package metrics

import "github.com/prometheus/client_golang/prometheus"

// series is a metric whose values are read at a scrape, out of a T.
type series[T any] struct {
	kind       prometheus.ValueType
	name, help string
	labels     []string
	values     func(now T, emit emit)
}

// emit takes a value of a series, with the values of its labels.
type emit func(value float64, labels ...string)

// single is a series without labels.
func single[T any](kind prometheus.ValueType, name, help string, value func(T) int64) series[T] {
	return series[T]{kind, name, help, nil, func(now T, emit emit) { emit(float64(value(now))) }}
}

// table is a collector of series that are read together.
type table[T any] struct {
	read   func() T
	series []series[T]
	descs  []*prometheus.Desc // of each series
}

func newTable[T any](read func() T, rows []series[T]) *table[T] {
	t := &table[T]{read: read, series: rows}
	for _, s := range rows {
		t.descs = append(t.descs, prometheus.NewDesc(s.name, s.help, s.labels, nil))
	}
	return t
}

// Describe implements prometheus.Collector.
func (t *table[T]) Describe(to chan<- *prometheus.Desc) {
	for _, d := range t.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (t *table[T]) Collect(to chan<- prometheus.Metric) {
	now := t.read()
	for i, s := range t.series {
		s.values(now, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(t.descs[i], s.kind, value, labels...)
		})
	}
}
