package flight

import "time"

// idle is what becomes of a flight without readers: it lingers, then it is parked with its bytes, then it expires. The
// flight's lock guards it.
type idle struct {
	began  time.Time   // when the flight was made
	timer  *time.Timer // of the next step; nil: none is due
	parked bool
	until  time.Time // while parked: when it expires
	client string    // of the reader that left last, which is charged for bytes that come without readers
	// background says that it was not a client's: the download does not go on without it.
	background bool
	paid       int64 // bytes that it has read: as many come without a charge
}

// isLive reports whether a client reads the blob, or was the last reader to leave.
func (i *idle) isLive(all readers) bool {
	if len(all) == 0 {
		return !i.background
	}
	return all.client() != nil
}

func (i *idle) stop() {
	if i.timer != nil {
		i.timer.Stop()
		i.timer = nil
	}
}

// affords reports whether n bytes may come without a reader: as many as the last one has read, and then those of its
// client's allowance. The lock is held.
func (f *Flight) affords(n int64) bool {
	free := min(n, f.idle.paid)
	f.idle.paid -= free
	return f.g.unread.spend(f.idle.client, n-free) || f.idle.paid > 0
}

// hurry has the flight parked now, and not after a while. The lock is held.
func (f *Flight) hurry() {
	if !f.idle.parked {
		f.idle.stop()
	}
	f.settle()
}

// settle decides what becomes of a flight without readers. The lock is held.
func (f *Flight) settle() {
	if f.life.ended || len(f.readers) > 0 || f.idle.timer != nil || f.goesOn() {
		return
	}
	linger := f.g.o.Linger
	// A flight that has waited longer than Linger for its first byte is kept as long again: the answer may be near.
	unbegun := len(f.plan.have) == 0 && time.Since(f.idle.began) < linger
	if f.origins.disputed || unbegun || f.idle.background || !f.affords(0) {
		linger = 0
		stopAll(f.fetches) // now: a fetch that waits for its turn must not get it before the timer has run
	}
	f.idle.timer = time.AfterFunc(linger, f.park)
}

// goesOn reports whether the flight continues without readers: all bytes are there, and it is about to be committed, or
// the fill runs and is near enough its end. The lock is held.
func (f *Flight) goesOn() bool {
	if f.plan.whole() {
		return true
	}
	if f.idle.background || f.plan.filling() == nil || f.plan.size < 0 || len(f.plan.have) == 0 || !f.affords(0) {
		return false
	}
	missing := f.plan.missing()
	return missing <= f.g.o.GoOn || missing <= f.plan.size/2
}

// park stops the fetches, and keeps the bytes that are there for readers that return.
func (f *Flight) park() {
	f.mu.Lock()
	f.idle.timer = nil
	if f.life.ended || len(f.readers) > 0 || f.goesOn() {
		f.mu.Unlock()
		return
	}
	stopAll(f.fetches)
	keep := len(f.plan.have) > 0 && !f.origins.disputed
	if keep {
		f.idle.parked, f.idle.until = true, time.Now().Add(f.g.o.Park)
		f.idle.timer = time.AfterFunc(f.g.o.Park, f.expire)
		f.rested()
	}
	f.mu.Unlock()
	if !keep {
		f.expire()
	}
}

// rested tells the spool of a parked flight that nothing is written to it any more. The lock is held.
func (f *Flight) rested() {
	if f.spool != nil && f.idle.parked && len(f.fetches) == 0 && !f.life.released {
		f.spool.Park()
	}
}

// expire ends a flight to which no reader has returned.
func (f *Flight) expire() {
	f.g.mu.Lock() // keeps a Join from coming between the check and the end
	f.mu.Lock()
	gone := !f.life.ended && len(f.readers) == 0
	if gone {
		f.life.ended = true
		f.g.drop(f)
	}
	f.mu.Unlock()
	f.g.mu.Unlock()
	if gone {
		f.end(ErrClosed)
	}
}
