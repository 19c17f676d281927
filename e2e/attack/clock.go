package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clock moves the clocks of one running process, and of no other. The kernel lets every process read the time through
// a page of its own code (vDSO); what the process has of it is replaced by a call of the kernel and an addition. It
// takes root, and amd64.
type clock struct {
	pid             int
	at              int64 // address of clock_gettime in the process
	wall, monotonic time.Duration
}

const clockCode = 42

// code of clock_gettime(edi: clock, rsi: *timespec) for two offsets in seconds.
func (c *clock) code() []byte {
	b := []byte{
		0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
		0x0f, 0x05, // syscall
		0x83, 0xff, 0x01, // cmp edi, CLOCK_MONOTONIC
		0x74, 0x10, // je monotonic
		0x85, 0xff, // test edi, edi: CLOCK_REALTIME
		0x75, 0x19, // jne done
		0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, // mov rcx, wall
		0xeb, 0x0a, // jmp add
		0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, // monotonic: mov rcx, monotonic
		0x48, 0x01, 0x0e, // add: add [rsi], rcx
		0xc3, // done: ret
	}
	binary.LittleEndian.PutUint64(b[18:], uint64(int64(c.wall/time.Second)))
	binary.LittleEndian.PutUint64(b[30:], uint64(int64(c.monotonic/time.Second)))
	return b
}

// clockOf finds where a process reads its clocks.
func clockOf(pid int) (*clock, error) {
	if runtime.GOARCH != "amd64" {
		return nil, errors.New("clocks can be moved on amd64 alone")
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		var from, to int64
		if _, err := fmt.Sscanf(line, "%x-%x ", &from, &to); err != nil {
			return nil, err
		}
		at, err := symbol(pid, from, to, "__vdso_clock_gettime")
		return &clock{pid: pid, at: at}, err
	}
	return nil, errors.New("the process has no vDSO")
}

func symbol(pid int, from, to int64, name string) (int64, error) {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = mem.Close() }()
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, from); err != nil {
		return 0, err
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, err
	}
	list, err := f.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range list {
		if s.Name == name {
			return from + int64(s.Value), nil
		}
	}
	return 0, fmt.Errorf("the vDSO has no %s", name)
}

// jump moves the process's clocks on from where they are, in whole seconds.
func (c *clock) jump(wall, monotonic time.Duration) error {
	c.wall, c.monotonic = c.wall+wall, c.monotonic+monotonic
	for range 1000 {
		done, err := c.write()
		if done || err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the process reads its clock at every look")
}

// write stops the process for the moment. Not done: one of its threads is reading the clock.
func (c *clock) write() (done bool, err error) {
	if err := syscall.Kill(c.pid, syscall.SIGSTOP); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, syscall.Kill(c.pid, syscall.SIGCONT)) }()
	clear, err := c.outside()
	if !clear || err != nil {
		return false, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	_, err = mem.WriteAt(c.code(), c.at)
	return true, errors.Join(err, mem.Close())
}

// outside waits until each thread has stopped, and reports whether none of them stands in the code.
func (c *clock) outside() (bool, error) {
	for begun := time.Now(); time.Since(begun) < time.Minute; {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", c.pid))
		if err != nil {
			return false, err
		}
		running := false
		for _, file := range threads {
			b, err := os.ReadFile(file)
			f := strings.Fields(string(b))
			if err != nil || len(f) == 0 {
				continue // it has ended
			}
			if f[0] == "running" {
				running = true
				break
			}
			if pc, err := strconv.ParseInt(f[len(f)-1], 0, 64); err == nil && pc >= c.at && pc < c.at+clockCode {
				return false, nil
			}
		}
		if !running {
			return true, nil
		}
		time.Sleep(time.Millisecond)
	}
	return false, errors.New("the process does not stop")
}
