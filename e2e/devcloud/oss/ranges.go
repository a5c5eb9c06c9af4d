package oss

import (
	"strconv"
	"strings"
)

// span is the part of an object that a GET returns.
type span struct {
	from, length int64
	partial      bool // 206 with Content-Range, else 200
}

// parseRange applies a Range header to an object of the size. OSS knows two behaviours for ranges that do not fit:
// by default it returns the whole object with 200; with x-oss-range-behavior: standard it cuts an end that is too far
// and refuses (ok is false, 416) a begin that is too far. Headers that are malformed mean the whole object in both.
func parseRange(header string, size int64, standard bool) (s span, ok bool) {
	whole := span{0, size, false}
	spec, isBytes := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if header == "" || !isBytes || !dash || first == "" && last == "" {
		return whole, true
	}
	a, okA := parseOffset(first)
	b, okB := parseOffset(last)
	if !okA || !okB {
		return whole, true
	}
	if first == "" { // the last b bytes
		switch {
		case b > 0 && b <= size:
			return span{size - b, b, true}, true
		case !standard:
			return whole, true
		case b == 0 || size == 0:
			return whole, false
		}
		return span{0, size, true}, true
	}
	if last == "" {
		b = size - 1
	} else if b < a {
		return whole, true
	}
	switch {
	case a < size && b < size:
		return span{a, b - a + 1, true}, true
	case !standard:
		return whole, true
	case a >= size:
		return whole, false
	}
	return span{a, size - a, true}, true
}

// parseOffset reads digits only; nothing is 0.
func parseOffset(s string) (int64, bool) {
	if s == "" {
		return 0, true
	}
	if strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
