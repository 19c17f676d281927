package symptom_test

import (
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose/symptom"
)

func BenchmarkProbe(b *testing.B) {
	c := corpus(b)
	for b.Loop() {
		for _, s := range c {
			_, _ = symptom.Read(strings.NewReader(s.line))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(c)), "us/line")
}
func BenchmarkProbeEach(b *testing.B) {
	for i, s := range corpus(b) {
		b.Run(s.line[:min(30,len(s.line))]+string(rune('a'+i%26)), func(b *testing.B) {
		for b.Loop() {
			_, _ = symptom.Read(strings.NewReader(s.line))
		}})
	}
}
