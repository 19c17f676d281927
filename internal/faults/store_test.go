package faults_test

import (
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
)

// shakyStore is a store whose calls fail as a disk's do, or are slow.
type shakyStore struct {
	*cachetest.Faulty
	rate atomic.Int64 // bytes a second of each spool; 0: as fast as it is
}

func (s *shakyStore) EndFaults() {
	s.rate.Store(0)
	s.Faulty.EndFaults()
}

// Create makes a spool that may be slow.
func (s *shakyStore) Create(size int64) (cache.Spool, error) {
	p, err := s.Faulty.Create(size)
	if err != nil || s.rate.Load() == 0 {
		return p, err
	}
	return &slowSpool{Spool: p, s: s}, nil
}

type slowSpool struct {
	cache.Spool
	s *shakyStore
}

func (p *slowSpool) pause(n int) {
	if rate := p.s.rate.Load(); rate > 0 {
		time.Sleep(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	}
}

func (p *slowSpool) WriteAt(b []byte, off int64) (int, error) {
	p.pause(len(b))
	return p.Spool.WriteAt(b, off)
}

func (p *slowSpool) ReadAt(b []byte, off int64) (int, error) {
	p.pause(len(b))
	return p.Spool.ReadAt(b, off)
}
