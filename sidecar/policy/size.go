package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const (
	mebibyte = 1 << 20
	gibibyte = 1 << 30
)

func sizeUnits() []unit {
	return []unit{{"Ti", 1 << 40}, {"Gi", gibibyte}, {"Mi", mebibyte}, {"Ki", 1 << 10}, {"", 1}}
}

// ParseSize reads a number of bytes such as 10Gi: a whole number, alone or with the unit Ki, Mi, Gi or Ti.
func ParseSize(s string) (int64, error) {
	for _, u := range sizeUnits() {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.size {
			return 0, fmt.Errorf("%q is too large a size", s)
		}
		return n * u.size, nil
	}
	return 0, fmt.Errorf("%q is not a size: expected a whole number with Ki, Mi, Gi or Ti, such as 10Gi", s)
}

// FormatSize writes a number of bytes as ParseSize reads it, with the largest unit that divides it.
func FormatSize(n int64) string {
	for _, u := range sizeUnits() {
		if n%u.size == 0 && n >= u.size {
			return strconv.FormatInt(n/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

// Resource is what a container asks for and may use at most: thousandths of a CPU, or bytes of memory.
type Resource struct{ Request, Limit int64 }

// parseResource reads REQUEST[:LIMIT]; one number is both.
func parseResource(s string, number func(string) (int64, error), low, high int64) (Resource, error) {
	request, limit, two := strings.Cut(s, ":")
	if !two {
		limit = request
	}
	var r Resource
	var err error
	if r.Request, err = number(request); err != nil {
		return Resource{}, err
	}
	if r.Limit, err = number(limit); err != nil {
		return Resource{}, err
	}
	switch {
	case r.Request > r.Limit:
		return Resource{}, fmt.Errorf("%q asks for more than its limit: expected REQUEST[:LIMIT]", s)
	case r.Request < low || r.Limit > high:
		return Resource{}, fmt.Errorf("%q is out of range", s)
	}
	return r, nil
}

func formatResource(r Resource, number func(int64) string) string {
	switch {
	case r == Resource{}:
		return ""
	case r.Request == r.Limit:
		return number(r.Limit)
	}
	return number(r.Request) + ":" + number(r.Limit)
}

// parseCPU reads thousandths of a CPU: 250m, or whole CPUs.
func parseCPU(s string) (int64, error) {
	digits, milli := strings.CutSuffix(s, "m")
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 || digits[0] == '+' {
		return 0, fmt.Errorf("%q is not an amount of CPU: expected thousandths such as 250m, or whole CPUs", s)
	}
	if !milli {
		n *= 1000
	}
	return n, nil
}

func formatCPU(n int64) string {
	if n%1000 == 0 {
		return strconv.FormatInt(n/1000, 10)
	}
	return strconv.FormatInt(n, 10) + "m"
}

// WALBacklog bounds the WAL that PostgreSQL keeps for us while the archive cannot take it.
type WALBacklog struct {
	Bytes int64   // 0: decided by the kind of volume; Unlimited: never bounded
	Then  Backlog // what happens at the bound; unset: decided by the kind of volume
}

// Unlimited is the number of bytes of a backlog without bound.
const Unlimited = -1

// Backlog is what happens when the bound is reached.
type Backlog string

// The values of Backlog.
const (
	BacklogKeep Backlog = "keep" // report it and let the volume fill up
	BacklogDrop Backlog = "drop" // give up the slot: a gap in the archive rather than a full volume
)

// String is the form that an annotation has.
func (b WALBacklog) String() string {
	size := "unlimited"
	if b.Bytes != Unlimited {
		size = FormatSize(b.Bytes)
	}
	if b.Then == "" {
		return size
	}
	return size + ":" + string(b.Then)
}

const minBacklog = 64 * mebibyte // four segments of the usual size: less would drop the slot at every pause

func parseBacklog(s string) (WALBacklog, error) {
	if s == "unlimited" {
		return WALBacklog{Bytes: Unlimited}, nil
	}
	size, then, ok := strings.Cut(s, ":")
	if ok && then != string(BacklogKeep) && then != string(BacklogDrop) {
		return WALBacklog{}, fmt.Errorf("%q is not a bound: expected SIZE, SIZE:keep, SIZE:drop or unlimited", s)
	}
	n, err := ParseSize(size)
	if err != nil {
		return WALBacklog{}, fmt.Errorf("%w; or unlimited", err)
	}
	if n < minBacklog {
		return WALBacklog{}, fmt.Errorf("%q is out of range: expected at least %s", s, FormatSize(minBacklog))
	}
	return WALBacklog{Bytes: n, Then: Backlog(then)}, nil
}
