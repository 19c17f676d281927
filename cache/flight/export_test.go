package flight

// Small makes flights go by a 16th of the usual bytes. It comes before the first Join.
func (g *Group) Small() {
	s := &g.sizes
	for _, n := range []*int64{&s.extent, &s.most, &s.holdBack, &s.verify} {
		*n /= 16
	}
	s.pace, s.nearly = s.pace/100, s.nearly/100
}

// Over is closed once nothing of the reader's flight is remembered.
func (r *Reader) Over() <-chan struct{} { return r.f.ctx.Done() }
