// Package usage reads from /proc (proc(5) of the Linux manual pages) what processes cost.
package usage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// Fields of /proc/PID/stat, counted from the one after the name of the program, which may hold anything.
const (
	fieldParent       = 1
	fieldUserTime     = 11
	fieldSystemTime   = 12
	fieldChildrenUser = 13 // of those that have ended and were waited for
	fieldChildrenSys  = 14
)

// CPU is the time that a process itself has used, user and system.
func CPU(pid int) (time.Duration, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return sum(f, fieldUserTime, fieldSystemTime)
}

// TreeCPU is the time that a process and all its descendants have used, whether they still live or not. What a child
// left behind that its parent has not waited for yet is missing.
func TreeCPU(pid int) (time.Duration, error) {
	children, err := parents()
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		f, err := stat(todo[0])
		if errors.Is(err, fs.ErrNotExist) && todo[0] != pid {
			continue // it has just ended
		}
		if err != nil {
			return 0, err
		}
		t, err := sum(f, fieldUserTime, fieldSystemTime, fieldChildrenUser, fieldChildrenSys)
		if err != nil {
			return 0, err
		}
		total += t
		todo = append(todo, children[todo[0]]...)
	}
	return total, nil
}

// parents maps each process to its children.
func parents() (map[int][]int, error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(filepath.Base(e))
		if err != nil {
			continue
		}
		f, err := stat(pid)
		if err != nil {
			continue // it has ended
		}
		parent, err := strconv.Atoi(f[fieldParent])
		if err != nil {
			return nil, fmt.Errorf("reading the parent of process %d: %w", pid, err)
		}
		children[parent] = append(children[parent], pid)
	}
	return children, nil
}

func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("asking what process %d has used: %w", pid, err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) <= fieldChildrenSys {
		return nil, fmt.Errorf("asking what process %d has used: %q is too short", pid, b)
	}
	return f, nil
}

func sum(fields []string, which ...int) (time.Duration, error) {
	var ticks int64
	for _, i := range which {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the times of a process: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// Memory is what a process holds, in bytes.
type Memory struct {
	Peak      int64 // most that was ever resident (VmHWM)
	Resident  int64 // VmRSS
	Anonymous int64 // of that what is not backed by a file: heap and stacks (RssAnon)
	File      int64 // of that the mapped program (RssFile)
}

// MemoryOf reads what a process holds now.
func MemoryOf(pid int) (Memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("asking what memory process %d holds: %w", pid, err)
	}
	var m Memory
	into := map[string]*int64{"VmHWM": &m.Peak, "VmRSS": &m.Resident, "RssAnon": &m.Anonymous, "RssFile": &m.File}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		if into[name] == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("asking what memory process %d holds: %s: %w", pid, name, err)
		}
		*into[name] = kib << 10
	}
	if m.Resident == 0 {
		return m, fmt.Errorf("asking what memory process %d holds: it has ended", pid)
	}
	return m, nil
}

// ResetPeak makes Memory.Peak count from now on.
func ResetPeak(pid int) error {
	// 5 is the value for that; see clear_refs in proc(5).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("starting to watch the memory of process %d: %w", pid, err)
	}
	return nil
}

// Postmaster is the process id of the server that runs on a data directory, from its lock file.
func Postmaster(pgdata string) (int, error) {
	b, err := os.ReadFile(filepath.Join(pgdata, "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("looking for the server of %s: %w", pgdata, err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0, fmt.Errorf("looking for the server of %s: %w", pgdata, err)
	}
	return pid, nil
}
