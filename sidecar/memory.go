package main

import (
	"runtime/debug"
)

// heapGrowth is how much of what is alive may be added before the garbage collector runs, in percent (GOGC). Nearly all
// that is alive are reused buffers without pointers: a collection costs next to nothing, garbage costs memory that
// the database could use.
const heapGrowth = 50

// leanMemory keeps this process small beside its database, unless GOGC and GOMEMLIMIT say how. limit is the memory of the
// container in bytes, 0 for none: the collector works harder as it comes near, for a process that goes past it is
// killed.
func leanMemory(env func(string) (string, bool), limit int64) {
	if _, set := env("GOGC"); !set {
		debug.SetGCPercent(heapGrowth)
	}
	if _, set := env("GOMEMLIMIT"); !set && limit > 0 {
		debug.SetMemoryLimit(limit / 4 * 3) // the rest is for what is not Go's, such as the program itself
	}
}

// giveBack returns the memory that a snapshot needed to the system. Pools let go of what is in them at the second
// collection, and without load there would be none for minutes.
func giveBack() {
	debug.FreeOSMemory()
	debug.FreeOSMemory()
}
