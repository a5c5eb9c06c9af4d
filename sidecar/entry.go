package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// Attributes of a journal's entry, as they come back out of JSON. One that is not there, or not of its kind, is none:
// other versions have written it.

// word is an attribute as text.
func word(attrs map[string]any, key string) string {
	switch v := attrs[key].(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64) // never 2.3e+07
	default:
		return fmt.Sprint(v)
	}
}

func number(attrs map[string]any, key string) (float64, bool) {
	n, ok := attrs[key].(float64)
	return n, ok
}

func yes(attrs map[string]any, key string) bool {
	v, _ := attrs[key].(bool)
	return v
}

func moment(attrs map[string]any, key string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, word(attrs, key))
	return t, err == nil && t.Year() > 1
}

// clock is a time of an attribute for people.
func clock(attrs map[string]any, key string) string {
	if t, ok := moment(attrs, key); ok {
		return timeText(t)
	}
	return ""
}

// prefixed puts words before a text, if there is one.
func prefixed(words, text string) string {
	if text == "" {
		return ""
	}
	return words + text
}

// entriesText writes a journal: of each entry time, time since the one before, event, and what belongs to it.
func entriesText(w io.Writer, entries []archive.Entry) {
	var last time.Time
	for _, x := range entries {
		gap := ""
		if !last.IsZero() {
			gap = sinceText(x.Time.Sub(last))
		}
		last = x.Time
		var attrs []string
		for _, key := range slices.Sorted(maps.Keys(x.Attrs)) {
			if v := word(x.Attrs, key); v != "" {
				attrs = append(attrs, key+"="+v)
			}
		}
		row(w, x.Time.UTC().Format(stampFormat), gap, x.Event, strings.Join(attrs, " "))
	}
}
