package page

import (
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// now is when the pages of these tests are looked at.
var now = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

func ago(d time.Duration) *time.Time { return new(now.Add(-d)) }

// healthy is a database with everything known.
func healthy() Status {
	s := Status{
		Now: now, State: "protected", Since: *ago(26 * time.Hour),
		Age: new(300 * time.Millisecond), Span: 10 * time.Minute, Step: 2 * time.Second, Target: time.Second,
		Restore: new(41 * time.Second), RestoreTarget: 5 * time.Minute,
		Restored: &Restored{Snapshot: "base_00000003000000000000002A", Started: *ago(26*time.Hour + 40*time.Second), Finished: *ago(26 * time.Hour)},
		From:     ago(75 * time.Hour), Retention: 7 * 24 * time.Hour, Known: true,
		Archive: "oss://backups/prod/shop/orders", SystemID: "7412345678901234567", Version: "v1.2.3", Epoch: 7, EpochConfirmed: ago(12 * time.Second), Timeline: 3,
		Durable: "0/5A3C1F8", Flushed: "0/5A3D000", Inserted: "0/5A3D0F0",
		Unshipped: new(int64(3592)), NotFlushed: new(int64(240)), Backlog: new(int64(18 << 20)), DiskFree: new(int64(61 << 30)), DiskFull: new(31 * time.Hour),
		Holdings: []Holding{{"snapshot", "Standard", 5321, 9 << 30}, {"segment", "Standard", 1873, 4 << 30}},
	}
	for i := range 300 {
		s.Ages = append(s.Ages, Sample{At: now.Add(-time.Duration(299-i) * s.Step), Age: new(time.Duration(200+i*37%450) * time.Millisecond)})
	}
	for h := 75; h > 0; h -= 3 {
		s.Snapshots = append(s.Snapshots, Snapshot{Name: "base_0000000300000000000000" + string(rune('A'+h%26)), Taken: *ago(time.Duration(h) * time.Hour), Stored: int64(h) << 22, Delta: h%24 != 3})
	}
	s.Journal = []Entry{
		{*ago(26 * time.Hour), "restored", []Attr{{"end", "0/2A000198"}, {"snapshot", "base_00000003000000000000002A"}, {"timeline", "3"}}},
		{*ago(25 * time.Minute), "snapshot_taken", []Attr{{"delta", "true"}, {"name", "base_00000003000000000000004C"}, {"seconds", "4.2"}}},
	}
	return s
}

// lagging has a store that is away, and minutes of which nothing is known.
func lagging() Status {
	s := healthy()
	s.State, s.Reason, s.Age = "lagging", "commits are not durable in the archive for 2m14s, the target is 1s", new(134*time.Second)
	s.Troubles = []Trouble{{"The archive does not take WAL", "putting a chunk: connection refused: is the endpoint right?", *ago(134 * time.Second)}}
	for i := range s.Ages {
		switch left := len(s.Ages) - 1 - i; {
		case left < 67:
			s.Ages[i].Age = new(time.Duration(67-left) * s.Step)
		case left > 120 && left < 150:
			s.Ages[i].Age = nil
		}
	}
	return s
}

func refused() Status {
	return Status{
		Now: now, State: "not_protected", Reason: "wal_level is minimal: set it to replica and restart Postgres", Since: *ago(time.Hour),
		NotProtectedSince: ago(time.Hour), Span: 10 * time.Minute, Step: 2 * time.Second, Target: time.Second, Archive: "oss://backups/prod/shop/orders",
	}
}

func stopping() Status {
	s := healthy()
	s.State, s.Reason, s.Release = "stopping", "the sidecar was told to go", new(now.Add(3*time.Minute))
	s.StopPhases = []Phase{{"checkpoint", 1200 * time.Millisecond}}
	return s
}

func waiting() Status {
	return Status{Now: now, State: "waiting", Since: *ago(time.Second), Span: 10 * time.Minute, Step: 2 * time.Second, Target: time.Second}
}

func render(t *testing.T, s Status) string {
	t.Helper()
	var b strings.Builder
	if err := New().Render(&b, s); err != nil {
		t.Fatal(err)
	}
	// For whoever wants to look at them: OUTRIDER_PAGES=/tmp/pages go test ./sidecar/internal/page
	if dir := os.Getenv("OUTRIDER_PAGES"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".html"), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// words are the text of a document as it is read, with what is drawn in words.
func read(t *testing.T, doc string) string {
	t.Helper()
	n, err := html.Parse(strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := range n.Descendants() {
		if p := n.Parent; n.Type == html.TextNode && p.Data != "script" && p.Data != "style" {
			b.WriteString(n.Data + " ")
		}
		for _, a := range n.Attr {
			if a.Key == "aria-label" {
				b.WriteString(a.Val + " ")
			}
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestStates(t *testing.T) {
	for name, c := range map[string]struct {
		status Status
		want   []string
		not    []string
	}{
		"protected": {
			healthy(), []string{
				"Protected · orders", "300 ms old at most; the target is 1 s", "about 41 s to the first write; within the target of 5 min",
				"3 d 3 h is restorable; the target is 7 d", "snapshot taken delta true", "and 17 older", "Epoch 7 confirmed 12 s ago", "0/5A3C1F8", "Full, if the archive stays away in 1 d 7 h",
				"now 300 ms, at most", "13.0 GiB in 7 194 objects", "Stored", "This server came out of a restore 40 s",
			}, []string{"No way back", "unknown", "not known:", "NaN", "Inf"},
		},
		"lagging": {
			lagging(),
			[]string{"Lagging since 13 Mar 13:09:26Z , for 1 d 2 h.", "for 2m14s", "The archive does not take WAL since 15:07:12Z", "connection refused", "2 min 14 s", "hatched: not known", "Where nothing is drawn it is not known"},
			[]string{"Protected"},
		},
		"not protected": {
			refused(), []string{
				"Not protected", "set it to replica and restart Postgres", "No way back since 14:09:26Z , 1 h ago", "Not in the archive yet unknown",
				"How fast can it be restored? unknown", "How far back? unknown", "What is paid for? unknown", "nothing is known", "Durable up to unknown", "Epoch unknown", "Nothing is in the journal",
			}, []string{"Not protected since", "0 B", "0 ms", "0 s"},
		},
		"stopping": {stopping(), []string{"Stopping", "This machine is going to be taken away in 3 min", "released at 15:12:26Z", "Stop, checkpoint 1.2 s"}, []string{"No way back"}},
		"waiting":  {waiting(), []string{"Waiting", "this database", "unknown"}, []string{"0 B"}},
		"new": {Status{Now: now, State: "of the art", Span: time.Minute, Step: time.Second, Target: time.Second, Known: true}, []string{
			"“of the art”, which this page does not know", "How far back? none there is no snapshot",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			text := read(t, render(t, c.status))
			for _, w := range c.want {
				if !strings.Contains(text, w) {
					t.Errorf("the page lacks %q", w)
				}
			}
			for _, w := range c.not {
				if strings.Contains(text, w) {
					t.Errorf("the page says %q", w)
				}
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

// Every text that comes from elsewhere is shown as it is, and nothing of it becomes an element, an attribute or a link.
func TestHostileText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>' style='x' {{.}} </title></style></svg>`
	s := stopping()
	s.State, s.Reason, s.Archive, s.Version, s.SystemID, s.Durable = evil, evil, "oss://b/"+evil, evil, evil, evil
	s.Troubles = []Trouble{{evil, evil, now}}
	s.Snapshots[0].Name, s.Restored.Snapshot = evil, evil
	s.Snapshots[len(s.Snapshots)-1].Name = evil
	s.Journal = []Entry{{now, evil, []Attr{{evil, evil}}}}
	s.Holdings = []Holding{{evil, evil, 1, 1}}
	s.StopPhases[0].Name = evil
	doc := render(t, s)
	if n := strings.Count(read(t, doc), evil); n < 12 {
		t.Errorf("the text is shown %d times", n)
	}
	n, err := html.Parse(strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	scripts := 0
	for n := range n.Descendants() {
		switch n.Data {
		case "script":
			scripts++
		case "img", "iframe", "object", "a", "form":
			if n.Type == html.ElementNode {
				t.Errorf("there is an element %s", n.Data)
			}
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				t.Errorf("%s has an attribute %s", n.Data, a.Key)
			}
		}
	}
	if scripts != 1 {
		t.Errorf("%d scripts", scripts)
	}
}

// What the policy allows is what is in the document, byte for byte, and nothing comes from elsewhere.
func TestPolicyAndResources(t *testing.T) {
	doc := render(t, healthy())
	p := New().Policy()
	for _, tag := range []string{"style", "script"} {
		found := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllStringSubmatch(doc, -1)
		if len(found) != 1 {
			t.Fatalf("%d elements %s", len(found), tag)
		}
		sum := sha256.Sum256([]byte(found[0][1]))
		if want := tag + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(p, want+";") {
			t.Errorf("the policy %s lacks %s", p, want)
		}
	}
	if strings.Contains(p, "unsafe") || !strings.HasPrefix(p, "default-src 'none'; ") {
		t.Errorf("the policy is %s", p)
	}
	for _, m := range regexp.MustCompile(`(?:src|href|action)="([^"]*)"`).FindAllStringSubmatch(doc, -1) {
		if !strings.HasPrefix(m[1], "data:image/svg+xml,") {
			t.Errorf("the document refers to %s", m[1])
		}
	}
}

// What is not known is not drawn: a gap is not bridged, and is not at 0.
func TestPlotGaps(t *testing.T) {
	s := Status{Now: now, Span: 2 * time.Minute, Step: time.Second, Target: time.Second}
	for i := 60; i >= 0; i-- {
		a := Sample{At: *ago(time.Duration(i) * time.Second), Age: new(time.Second)}
		switch {
		case i > 30 && i <= 40:
			a.Age = nil // asked, and not known
		case i > 10 && i <= 20:
			continue // not asked
		}
		s.Ages = append(s.Ages, a)
	}
	p := draw(s)
	if n := strings.Count(p.Line, "M"); n != 3 {
		t.Errorf("%d strokes, want 3: %s", n, p.Line)
	}
	if want := []band{{"31.67%", "18.33%"}, {"65.00%", "18.33%"}}; !slices.Equal(p.Gaps, want) {
		t.Errorf("gaps %v, want %v", p.Gaps, want)
	}
	if p.Points != 41 || p.Last == nil {
		t.Errorf("%d points, the last at %v", p.Points, p.Last)
	}
	s.Ages = append(s.Ages, Sample{At: now})
	if p := draw(s); p.Last != nil {
		t.Error("the newest sample is not known and has a dot")
	}
	if p := draw(Status{Now: now, Span: time.Minute, Step: time.Second, Target: time.Second}); p.Line != "" || len(p.Gaps) != 1 || p.Points != 0 {
		t.Errorf("without samples: %+v", p)
	}
}

// The plot of a young process is not mostly empty, and what there is no sample for at its begin is a gap as well.
func TestPlotOfAYoungProcess(t *testing.T) {
	s := Status{Now: now, Span: 10 * time.Minute, Step: time.Second, Target: time.Second}
	for i := 90; i >= 0; i-- {
		s.Ages = append(s.Ages, Sample{At: *ago(time.Duration(i) * time.Second), Age: new(time.Second)})
	}
	p := draw(s)
	if p.X[0].Text != "2 min ago" || len(p.Gaps) != 1 || p.Gaps[0] != (band{"0.00%", "25.00%"}) || p.Points != 91 {
		t.Errorf("%+v", p)
	}
}

// What can be restored begins where the oldest snapshot was complete, also if that was seconds ago.
func TestWindowOfSeconds(t *testing.T) {
	s := Status{Now: now, Since: now, From: ago(15 * time.Second), Age: new(3 * time.Second), Known: true, Snapshots: []Snapshot{{Name: "a", Taken: *ago(15 * time.Second)}}}
	if l := see(s).Line; l.Begin != "75.00%" || l.Width != "20.00%" || len(l.Marks) != 1 || l.Marks[0].X != "75.00%" {
		t.Errorf("%+v", l)
	}
}

func TestUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", time.Second: "1 s", 1250 * time.Millisecond: "1.2 s", 59900 * time.Millisecond: "59 s",
		time.Minute: "1 min", 61 * time.Second: "1 min 1 s", 24*time.Hour - 1: "23 h 59 min", 49 * time.Hour: "2 d 1 h", -time.Second: "-1 s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%d ns: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 300 << 20: "300 MiB", 5 << 40: "5.0 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := count(1234567); got != "1\u202f234\u202f567" {
		t.Errorf("count: %q", got)
	}
}

// Drills are spoken of where they are expected. That none was passed yet is no verdict, and said so.
func TestDrills(t *testing.T) {
	const fact = "Last restore drill that was passed"
	s := healthy()
	if text := read(t, render(t, s)); strings.Contains(text, "drill") {
		t.Errorf("nobody expects drills, and the page says: %s", text)
	}
	s.Drill = &Drill{}
	if text := read(t, render(t, s)); !strings.Contains(text, fact+" none yet") {
		t.Errorf("no drill was passed yet, and the page says: %s", text)
	}
	s.Drill = &Drill{Passed: ago(3 * time.Hour), LSN: "0/5A3C1F8", Answered: 41 * time.Second}
	if text := read(t, render(t, s)); !strings.Contains(text, fact+" 3 h ago at 12:09:26Z, up to 0/5A3C1F8, answered after 41 s") {
		t.Errorf("the page does not tell of the drill: %s", text)
	}
}
