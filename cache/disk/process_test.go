package disk_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
)

// childDir tells the test binary that it is the second process: it opens that folder, commits, and waits to be killed.
const childDir = "DISK_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// child commits blobs 1 to 4, of which 1 and 2 are synced, says so, and lives until its input ends.
func child(dir string) {
	s, err := disk.Open(dir, disk.Options{})
	if err == nil {
		// After a stop in peace there is nothing to settle, and so no sync that the test does not know of.
		err = s.Close()
	}
	if err == nil {
		s, err = disk.Open(dir, disk.Options{})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := range uint64(4) {
		b, d := cachetest.Bytes(i+1, 100_000)
		p, err := s.Create(100_000)
		if err == nil {
			_, werr := p.WriteAt(b, 0)
			err = errors.Join(werr, p.Commit(d, 100_000), p.Discard())
		}
		if err == nil && i == 1 {
			err = s.Sync()
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Close()
}

// process is a running child.
type process struct {
	cmd *exec.Cmd
	in  io.Closer
}

func start(t *testing.T, dir string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	return &process{cmd: cmd, in: in}
}

// kill is kill -9.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

// stop lets the child close its store.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestLockedByAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)
	closed := make(chan struct{})
	close(closed)
	for name, o := range map[string]disk.Options{
		"no wait":    {Wait: -1},
		"short wait": {Wait: time.Millisecond},
		"stopped":    {Stop: closed},
	} {
		_, err := disk.Open(dir, o)
		locked, ok := errors.AsType[*disk.LockedError](err)
		if !ok {
			t.Fatalf("%s: %v, want a LockedError", name, err)
		}
		if host, _ := os.Hostname(); locked.Dir != dir || locked.PID != p.cmd.Process.Pid || locked.Host != host ||
			time.Since(locked.Since) > time.Hour {
			t.Errorf("%s: %+v, want process %d", name, locked, p.cmd.Process.Pid)
		}
		if s := err.Error(); !strings.Contains(s, dir) || !strings.Contains(s, "stop that one") ||
			!strings.Contains(s, fmt.Sprint(p.cmd.Process.Pid)) {
			t.Errorf("%s: no way out in: %s", name, s)
		}
	}
	opened := make(chan error, 1)
	go func() {
		s, err := disk.Open(dir, disk.Options{})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	p.kill(t)
	if err := <-opened; err != nil {
		t.Errorf("waited, and got: %v", err)
	}
}

// otherBoot makes the folder look as if the machine had been restarted since it was used.
func otherBoot(t *testing.T, dir string) {
	t.Helper()
	name := filepath.Join(dir, "boot.json")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), `,`)
	if !ok {
		t.Fatalf("what is %q", b)
	}
	if err := os.WriteFile(name, []byte(`{"boot":"another",`+rest), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tear overwrites a byte of a blob in place, as a crash of the machine does that loses pages.
func tear(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 77_777); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], 77_777); err != nil {
		t.Fatal(err)
	}
}

func marks(t *testing.T, dir string) bool {
	t.Helper()
	return unix.Setxattr(dir, "user.mirror.test", []byte("1"), 0) == nil
}

func TestSuspects(t *testing.T) {
	t.Parallel()
	if !marks(t, t.TempDir()) {
		t.Log("no extended attributes here: everything is suspect after a crash")
	}
	// Blob 1 is synced, 3 and 4 are not; 1 and 3 get torn. Damaged content that is served was not hashed.
	for name, tt := range map[string]struct {
		boot         bool // the machine was restarted
		clean        bool // the process had stopped in peace
		wrong, right []uint64
		hashedNever  []uint64 // torn, and still trusted
	}{
		"process killed":         {wrong: []uint64{3}, right: []uint64{2, 4}, hashedNever: []uint64{1}},
		"machine crashed":        {boot: true, wrong: []uint64{3}, right: []uint64{2, 4}, hashedNever: []uint64{1}},
		"stopped, then rebooted": {boot: true, clean: true, right: []uint64{2, 4}, hashedNever: []uint64{1, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := start(t, dir)
			if tt.clean {
				p.stop(t)
			} else {
				p.kill(t)
			}
			if tt.boot {
				otherBoot(t, dir)
			}
			for _, i := range []uint64{1, 3} {
				_, d := cachetest.Bytes(i, 100_000)
				tear(t, blobFile(dir, d))
			}
			s := open(t, dir, disk.Options{})
			for _, i := range tt.wrong {
				_, d := cachetest.Bytes(i, 100_000)
				if o, err := s.Open(d); !errors.Is(err, cache.ErrNotFound) {
					t.Errorf("torn blob %d: %v, %v, want it gone", i, o, err)
				}
				if _, err := os.Stat(blobFile(dir, d)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("torn blob %d is still there: %v", i, err)
				}
			}
			for _, i := range tt.right {
				b, d := cachetest.Bytes(i, 100_000)
				wantContent(t, s, d, b)
			}
			for _, i := range tt.hashedNever {
				_, d := cachetest.Bytes(i, 100_000)
				if o, err := s.Open(d); err != nil && marks(t, dir) {
					t.Errorf("blob %d was hashed without need: %v", i, err)
				} else if err == nil {
					_ = o.Close()
				}
			}
		})
	}
}

// The note of a stop in peace does not outlive the next start.
func TestCleanIsForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, dir).kill(t)
	otherBoot(t, dir)
	_, d := cachetest.Bytes(3, 100_000)
	tear(t, blobFile(dir, d))
	s = open(t, dir, disk.Options{})
	if o, err := s.Open(d); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("torn blob: %v, %v, want it gone", o, err)
	}
}

// A second stop before all was hashed forgets nothing: what the crash left in doubt stays so.
func TestSuspectsAfterASecondStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, dir).kill(t)
	otherBoot(t, dir)
	// A suspect that takes minutes to hash.
	long := digest.FromString("long")
	if err := os.MkdirAll(filepath.Dir(blobFile(dir, long)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blobFile(dir, long), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(blobFile(dir, long), 1<<40); err != nil {
		t.Fatal(err)
	}
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fresh, df := cachetest.Bytes(7, 100)
	cachetest.Fill(t, s, fresh) // not in doubt: it is of this run
	wantContent(t, s, df, fresh)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(blobFile(dir, long)); err != nil {
		t.Fatal(err)
	}
	_, d := cachetest.Bytes(8, 100)
	if err := os.MkdirAll(filepath.Dir(blobFile(dir, d)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blobFile(dir, d), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir, disk.Options{})
	if o, err := s.Open(d); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("torn blob: %v, %v, want it gone", o, err)
	}
	b, d4 := cachetest.Bytes(4, 100_000)
	wantContent(t, s, d4, b)
	wantContent(t, s, df, fresh)
}

// New content takes the place of what is in doubt.
func TestCommitOverSuspect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, dir).kill(t)
	otherBoot(t, dir)
	b, d := cachetest.Bytes(3, 100_000)
	tear(t, blobFile(dir, d))
	s := open(t, dir, disk.Options{})
	cachetest.Fill(t, s, b)
	wantContent(t, s, d, b)
}

func TestNoNoteMeansDoubt(t *testing.T) {
	t.Parallel()
	for name, note := range map[string]string{"removed": "", "damaged": "{", "a pipe": "pipe"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			start(t, dir).kill(t)
			_, d := cachetest.Bytes(3, 100_000)
			tear(t, blobFile(dir, d))
			file := filepath.Join(dir, "boot.json")
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			switch {
			case note == "pipe": // nothing may wait for its writer
				if err := syscall.Mkfifo(file, 0o600); err != nil {
					t.Fatal(err)
				}
			case note != "":
				if err := os.WriteFile(file, []byte(note), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, dir, disk.Options{})
			if o, err := s.Open(d); !errors.Is(err, cache.ErrNotFound) {
				t.Errorf("torn blob: %v, %v, want it gone", o, err)
			}
		})
	}
}
