package journal

import (
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
)

// maxEvent bounds the name of an event, which becomes part of a key.
const maxEvent = 64

// clean makes a name that any key can hold and no tool takes for that of a WAL segment.
func clean(event string) string {
	event = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToLower(event))
	if event == "" {
		return "unnamed"
	}
	return event[:min(len(event), maxEvent)]
}

// attributes makes a document of alternating keys and values.
func attributes(attrs []any) map[string]any {
	if len(attrs) == 0 {
		return nil
	}
	var r slog.Record
	r.Add(attrs...)
	m := make(map[string]any, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		m[a.Key] = value(a.Value)
		return true
	})
	return m
}

// maxExact is the largest integer that every reader of JSON keeps exactly.
const maxExact = 1 << 53

// value makes what JSON holds of v, and does not depend on what v points to any more.
func value(v slog.Value) (out any) {
	defer func() {
		if p := recover(); p != nil { // a String method of a nil pointer must not end the sidecar
			out = fmt.Sprintf("no value: %v", p)
		}
	}()
	switch v = v.Resolve(); v.Kind() {
	case slog.KindGroup:
		m := map[string]any{}
		for _, a := range v.Group() {
			m[a.Key] = value(a.Value)
		}
		return m
	case slog.KindDuration:
		return v.Duration().String()
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindInt64:
		if n := v.Int64(); n > maxExact || n < -maxExact {
			return v.String()
		}
	case slog.KindUint64:
		if v.Uint64() > maxExact {
			return v.String()
		}
	case slog.KindFloat64:
		if f := v.Float64(); math.IsNaN(f) || math.IsInf(f, 0) {
			return v.String()
		}
	case slog.KindAny, slog.KindBool, slog.KindString, slog.KindLogValuer:
	}
	return plain(v.Any())
}

func plain(v any) any {
	switch v := v.(type) {
	case nil, bool, int64, uint64, float64, string:
		return v
	case error:
		return v.Error()
	case json.Marshaler, encoding.TextMarshaler:
	case fmt.Stringer:
		return v.String()
	}
	var out any
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return fmt.Sprintf("%+v", v)
	}
	return out
}
