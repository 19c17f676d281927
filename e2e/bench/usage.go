package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticks are the units of /proc/PID/stat: USER_HZ, which is 100 on every Linux.
const ticks = time.Second / 100

// group is the processes that one has started, and itself, by what /proc/PID/stat says after the name in brackets: state
// ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime. nginx has workers.
func group(pid int) (map[string][]string, error) {
	list, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	found := make(map[string][]string)
	for _, dir := range list {
		b, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended meanwhile
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) >= 13 && f[2] == strconv.Itoa(pid) {
			found[dir] = f
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no process of group %d", pid)
	}
	return found, nil
}

// cpu is what a process and those that it has started have used.
func cpu(pid int) (time.Duration, error) {
	procs, err := group(pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, f := range procs {
		for _, field := range f[11:13] {
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * ticks
		}
	}
	return sum, nil
}

// peakRSS is the most memory that a process and those that it has started have had in use, each at its own time, in bytes.
func peakRSS(pid int) (int64, error) {
	procs, err := group(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for dir := range procs {
		b, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n << 10
			}
		}
	}
	return sum, nil
}
