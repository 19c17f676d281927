package disk

import "os"

// FailSyncs has every sync from the n-th on (of one file or folder, or of the file system) fail with err.
func (s *Store) FailSyncs(n int, err error) {
	<-s.settled
	calls := 0
	fail := func(real func(*os.File) error) func(*os.File) error {
		return func(f *os.File) error {
			if calls++; calls >= n {
				return err
			}
			return real(f)
		}
	}
	s.promoting.Lock()
	defer s.promoting.Unlock()
	s.syncFS, s.syncFile = fail(syncFS), fail((*os.File).Sync)
}
