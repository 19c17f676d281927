package flight

import "slices"

// extent is a range of bytes [from, to).
type extent struct{ from, to int64 }

// extents is a set of bytes: sorted, disjoint, not touching.
type extents []extent

// add puts [from, to) into the set.
func (e *extents) add(from, to int64) {
	if from >= to {
		return
	}
	s := *e
	// i is the first extent that touches from or follows it; j the first that lies wholly behind to.
	i, _ := slices.BinarySearchFunc(s, from, func(x extent, v int64) int {
		if x.to < v {
			return -1
		}
		return 1
	})
	j := i
	for j < len(s) && s[j].from <= to {
		from, to = min(from, s[j].from), max(to, s[j].to)
		j++
	}
	*e = slices.Replace(s, i, j, extent{from, to})
}

// run returns the end of the bytes that follow off without a gap; off itself if it is not in the set.
func (e extents) run(off int64) int64 {
	i, _ := slices.BinarySearchFunc(e, off, func(x extent, v int64) int {
		if x.to <= v {
			return -1
		}
		return 1
	})
	if i < len(e) && e[i].from <= off {
		return e[i].to
	}
	return off
}

// next returns the start of the first extent behind off, or limit if there is none before it.
func (e extents) next(off, limit int64) int64 {
	for _, x := range e {
		if x.from > off {
			return min(x.from, limit)
		}
	}
	return limit
}

// prev returns the end of the last extent that ends at or before off, or 0.
func (e extents) prev(off int64) int64 {
	var end int64
	for _, x := range e {
		if x.to > off {
			break
		}
		end = x.to
	}
	return end
}

// bytes is how many bytes are in the set.
func (e extents) bytes() int64 {
	var n int64
	for _, x := range e {
		n += x.to - x.from
	}
	return n
}
