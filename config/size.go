package config

import (
	"math"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// Size is a number of bytes. As text it is a plain number or one with a unit: 20GiB, 20Gi (1024s), 20GB, 20G (1000s).
type Size int64

// DiskShare is a part of a disk: Percent of it where that is above zero, else Bytes.
type DiskShare struct {
	Percent float64
	Bytes   Size
}

// Percent is a part of a whole, 0 to 100.
type Percent float64

var units = []struct {
	name, short string
	bytes       int64
}{
	{"TiB", "Ti", 1 << 40},
	{"GiB", "Gi", 1 << 30},
	{"MiB", "Mi", 1 << 20},
	{"KiB", "Ki", 1 << 10},
	{"TB", "T", 1e12}, // the short ones as Kubernetes has them
	{"GB", "G", 1e9},
	{"MB", "M", 1e6},
	{"KB", "K", 1e3},
	{"B", "", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	return s.parse(string(text), "a size", "write "+sizeForm+", as in 20GiB")
}

// sizeForm is how a size is written.
const sizeForm = "a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB"

// parse reads a size. Its error says that text is not what the setting takes, and what to write.
func (s *Size) parse(text, what, hint string) error {
	digits := strings.TrimLeft(text, "0123456789.")
	number, unit := text[:len(text)-len(digits)], strings.TrimSpace(digits)
	factor := int64(1)
	if unit != "" {
		factor = 0
		for _, u := range units {
			if strings.EqualFold(unit, u.name) || strings.EqualFold(unit, u.short) {
				factor = u.bytes
			}
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || factor == 0 {
		return strictyaml.BadValue(text, what, hint)
	}
	if value*float64(factor) >= math.MaxInt64 {
		return strictyaml.BadValue(text, "a size that any disk has", "write less, as in 20GiB")
	}
	*s = Size(value * float64(factor))
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil {
		*s = Size(whole * factor) // exact, where a float isn't
	}
	return nil
}

// String is the size in the unit that needs the smallest whole number.
func (s Size) String() string {
	number, unit := int64(s), ""
	for _, u := range units {
		if n := int64(s) / u.bytes; int64(s)%u.bytes == 0 && n < number {
			number, unit = n, u.name
		}
	}
	return strconv.FormatInt(number, 10) + unit
}

// Of is the number of bytes of a disk that has total bytes.
func (m DiskShare) Of(total int64) int64 {
	if m.Percent > 0 {
		return int64(float64(total) * m.Percent / 100)
	}
	return int64(m.Bytes)
}

// UnmarshalText reads a percentage or a size.
func (m *DiskShare) UnmarshalText(text []byte) error {
	var share DiskShare
	err := (*Percent)(&share.Percent).UnmarshalText(text)
	if !strings.HasSuffix(string(text), "%") {
		err = share.Bytes.parse(string(text), "a size or a percentage of the disk", "write "+sizeForm+", or a percentage, as in 20GiB or 80%")
	}
	if err == nil {
		*m = share
	}
	return err
}

// String is the text that UnmarshalText reads.
func (m DiskShare) String() string {
	if m.Percent > 0 {
		return Percent(m.Percent).String()
	}
	return m.Bytes.String()
}

// UnmarshalText reads a percentage.
func (p *Percent) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !ok || !(f >= 0 && f <= 100) {
		return strictyaml.BadValue(string(text), "a percentage from 0% to 100%", "write as in 5%")
	}
	*p = Percent(f)
	return nil
}

// String is the text that UnmarshalText reads.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }
