package wal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Switch is one line of a timeline history file: Parent was left at LSN.
type Switch struct {
	Parent Timeline `json:"parent"`
	LSN    LSN      `json:"lsn"`
	Reason string   `json:"reason,omitempty"`
}

// History is the ancestry of a timeline, oldest first, as its .history file tells it
// (src/backend/access/transam/timeline.c). Timeline 1 has none.
type History []Switch

// HistoryName is the file name of a timeline's history, such as "00000002.history".
func HistoryName(t Timeline) string { return fmt.Sprintf("%08X.history", uint32(t)) }

// ParseHistoryName is the inverse of HistoryName.
func ParseHistoryName(name string) (Timeline, bool) {
	digits, ok := strings.CutSuffix(name, ".history")
	if !ok || len(digits) != 8 || !isUpperHex(digits) {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return Timeline(n), err == nil && n > 0
}

// ParseHistory reads the content of the history file of timeline t. Like PostgreSQL it ignores comments and empty
// lines and demands increasing parents below t; unlike it, positions that go backwards are an error too.
func ParseHistory(t Timeline, content string) (History, error) {
	var h History
	for i, line := range strings.Split(content, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, "\t", 3)
		s, err := parseSwitch(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d of %s: %w", i+1, HistoryName(t), err)
		}
		if n := len(h); n > 0 && (s.Parent <= h[n-1].Parent || s.LSN < h[n-1].LSN) {
			return nil, fmt.Errorf("line %d of %s: timelines and positions must increase", i+1, HistoryName(t))
		}
		if s.Parent >= t {
			return nil, fmt.Errorf("line %d of %s: parent %d is not below timeline %d", i+1, HistoryName(t), s.Parent, t)
		}
		h = append(h, s)
	}
	if len(h) == 0 {
		return nil, fmt.Errorf("%s names no parent timeline", HistoryName(t))
	}
	return h, nil
}

func parseSwitch(fields []string) (Switch, error) {
	if len(fields) < 2 {
		return Switch{}, errors.New("expected a timeline and a WAL position separated by a tab")
	}
	n, err := strconv.ParseUint(strings.TrimSpace(fields[0]), 10, 32)
	if err != nil || n == 0 {
		return Switch{}, fmt.Errorf("%q is not a timeline number", fields[0])
	}
	at, err := ParseLSN(strings.TrimSpace(fields[1]))
	if err != nil {
		return Switch{}, err
	}
	s := Switch{Parent: Timeline(n), LSN: at}
	if len(fields) == 3 {
		s.Reason = fields[2]
	}
	return s, nil
}

// Format writes the history as PostgreSQL writes it.
func (h History) Format() string {
	var b strings.Builder
	for _, s := range h {
		fmt.Fprintf(&b, "%d\t%s\t%s\n", s.Parent, s.LSN, s.Reason)
	}
	return b.String()
}

// Begin is where timeline t with history h begins: the LSN at which its parent was left, 0 for a first timeline.
func (h History) Begin() LSN {
	if len(h) == 0 {
		return 0
	}
	return h[len(h)-1].LSN
}

// TimelineAt is the timeline of the branch (t with history h) that wrote the byte at l
// (tliOfPointInHistory, timeline.c).
func (h History) TimelineAt(t Timeline, l LSN) Timeline {
	for _, s := range h {
		if l < s.LSN {
			return s.Parent
		}
	}
	return t
}
