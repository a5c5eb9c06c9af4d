package usage_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/bench/usage"
)

// burn uses CPU time of its own until it is seen in the figures.
func burn(t *testing.T, read func(int) (time.Duration, error), atLeast time.Duration) {
	t.Helper()
	before, err := read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	x := 1.0
	for {
		for range 1_000_000 {
			x *= 1.0000001
		}
		after, err := read(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after-before >= atLeast {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("the time that is used does not show")
		}
	}
}

func TestCPUCountsWhatIsUsed(t *testing.T) {
	burn(t, usage.CPU, 30*time.Millisecond)
	burn(t, usage.TreeCPU, 30*time.Millisecond)
}

func TestTreeCountsChildrenThatHaveEnded(t *testing.T) {
	own, err := usage.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tree, err := usage.TreeCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after, err := usage.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if tree <= after {
		t.Errorf("the tree used %v, this process alone %v (%v before): the child is missing", tree, after, own)
	}
}

func TestMemorySeesAPeakAndForgetsIt(t *testing.T) {
	const size = 64 << 20
	area, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < size; i += os.Getpagesize() {
		area[i] = 1
	}
	full := memory(t)
	if full.Anonymous < size || full.File == 0 || full.Resident < full.Anonymous+full.File {
		t.Errorf("with %d bytes in use this process holds %+v", size, full)
	}
	if err := syscall.Munmap(area); err != nil {
		t.Fatal(err)
	}
	if m := memory(t); m.Peak < size || m.Peak-m.Resident < size/2 {
		t.Errorf("after %d bytes were given back this process holds %+v", size, m)
	}
	if err := usage.ResetPeak(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if m := memory(t); m.Peak-m.Resident > size/2 {
		t.Errorf("the peak is still that of before: %+v", m)
	}
}

func memory(t *testing.T) usage.Memory {
	t.Helper()
	m, err := usage.MemoryOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestProcessThatHasEnded(t *testing.T) {
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if m, err := usage.MemoryOf(c.Process.Pid); err == nil {
		t.Errorf("a process that has ended holds %+v", m)
	}
	if used, err := usage.CPU(c.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that has ended used %v, %v", used, err)
	}
}
