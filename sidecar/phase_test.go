package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
)

// noon is when the recorded stops begin.
var noon = time.Date(2026, 4, 7, 12, 0, 0, 0, time.UTC)

func after(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// journalled is an entry as it comes back out of the archive: attrs are the JSON of its attributes, in which $N stands for
// the time N seconds after noon.
func journalled(t *testing.T, epoch uint64, seconds float64, event, attrs string) archive.Entry {
	t.Helper()
	for i := strings.IndexByte(attrs, '$'); i >= 0; i = strings.IndexByte(attrs, '$') {
		rest := attrs[i+1:]
		n := strings.IndexAny(rest, ",}")
		var s float64
		if err := json.Unmarshal([]byte(rest[:n]), &s); err != nil {
			t.Fatalf("%s: %v", attrs, err)
		}
		attrs = attrs[:i] + `"` + after(s).Format(time.RFC3339Nano) + `"` + rest[n:]
	}
	e := archive.Entry{Epoch: epoch, Time: after(seconds), Event: event}
	if err := json.Unmarshal([]byte(orNone(attrs)), &e.Attrs); err != nil {
		t.Fatalf("%s: %v", attrs, err)
	}
	return e
}

func orNone(attrs string) string {
	if attrs == "" {
		return "{}"
	}
	return attrs
}

// told is what a person is told of the time line.
func told(t *testing.T, e ending) string {
	t.Helper()
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	phasesText(w, e.Phases)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if e.Outage != nil {
		b.WriteString("outage: " + e.Outage.String() + "\n")
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, "2026-04-07 ")))
	}
	return strings.Join(lines, "\n")
}

func same(t *testing.T, want, got string) {
	t.Helper()
	if d := cmp.Diff(strings.TrimSpace(want), got); d != "" {
		t.Errorf("the time line (-want +got):\n%s\nall of it:\n%s", d, got)
	}
}

var (
	firstPod  = archive.Identity{Instance: "u1", Pod: "orders-0", Namespace: "shop", Node: "n1"}
	secondPod = archive.Identity{Instance: "u2", Pod: "orders-0", Namespace: "shop", Node: "n2"}
)

// restoredEntries are those of a pod that was restored.
func restoredEntries(t *testing.T) []archive.Entry {
	t.Helper()
	return []archive.Entry{
		journalled(t, 4, 40.5, eventShipping, `{"timeline":2,"from":"0/5000000","continued":true,"gap_from":"0/0"}`),
		journalled(t, 4, 41.0, eventRestored, `{"snapshot":"base_000000010000000000000003","timeline":1,"end":"0/5000100","target":"latest","missing":null,
			"started_at":$30,"unpacked_at":$36.5,"ready_at":$37.25,"last_commit":$5.5,"seconds":11}`),
		journalled(t, 4, 41.5, eventFirstWrite, `{"committed_at":$40.25,"end":"0/5000200","timeline":2}`),
	}
}

func TestTimeLineOfAnOrderlyStop(t *testing.T) {
	stop := []archive.Entry{
		journalled(t, 3, -7200, eventShipping, ""),
		journalled(t, 3, -3600, eventNotice, `{"release_at":$-3300,"instance":"i-1"}`), // withdrawn: it is not told
		journalled(t, 3, -3590, eventNoticeWithdrawn, `{"instance":"i-1"}`),
		journalled(t, 3, 0, eventNotice, `{"release_at":$300,"instance":"i-1"}`),
		journalled(t, 3, 1.5, eventPrepared, `{"reason":"notice","complete":true,"checkpointed":true,"durable":"1@0/4000060","seconds":1.4,"started_at":$0.1,"checkpoint_seconds":0.9}`),
		journalled(t, 3, 1.6, eventEvacuationAsked, `{"release_at":$300,"url":"https://outrider-webhook/v1/evacuations"}`),
		journalled(t, 3, 1.8, eventEvacuationAnswered, `{"outcome":"evicted","status":200,"message":"the pod is evicted and has 120 s to stop","node":"n1","tainted":true,"grace_seconds":120}`),
		journalled(t, 3, 4, eventPrepared, `{"reason":"prestop","complete":true,"checkpointed":true,"durable":"1@0/5000060","seconds":0.5,"started_at":$3.5,"checkpoint_seconds":0.25}`),
		journalled(t, 3, 4.001, eventPrepared, `{"reason":"prestop","complete":true,"checkpointed":true,"durable":"1@0/5000060","seconds":0.5,"started_at":$3.5,"checkpoint_seconds":0.25}`),
		journalled(t, 3, 6, eventPostgresStopping, `{"status":"stopping"}`), // seen after it was over
		journalled(t, 3, 7.1, eventPostgresDown, `{"control_state":"shut down","control_written_at":$5.75}`),
		journalled(t, 3, 7.2, eventFinished, `{"clean":true,"reason":"Postgres shut down cleanly","durable":"0/5000100","seconds":0.4}`),
	}
	e := ending{
		Epoch: 3, Writer: firstPod, Verdict: verdict{Outcome: outcomeClean, Lost: "nothing"},
		inventory: &archive.Inventory{Size: mib},
		Receipt:   &archive.Receipt{Epoch: 3, Clean: true, Reason: "Postgres shut down cleanly", Timeline: 1, Durable: 0x5000100, FinishedAt: after(7)},
		After:     restoredEntries(t), later: []archive.Epoch{{Number: 4, Writer: secondPod, ClaimedAt: after(29)}},
	}
	e.timeLine(lastStop(stop))
	same(t, `
12:00:00.000Z            notice             the machine is released at 2026-04-07 12:05:00Z, i-1
12:00:01.000Z  +1.000s   checkpoint         it took 0.90 s
12:00:01.500Z  +0.500s   prepared           durable up to 1@0/4000060, asked for by the notice 1.40 s before
12:00:01.600Z  +0.100s   evacuation asked   the webhook is asked to move the pod before 2026-04-07 12:05:00Z
12:00:01.800Z  +0.200s   cordon             node n1 is tainted: nothing new is put there
12:00:01.800Z  +0.000s   eviction           evicted: the pod is evicted and has 120 s to stop
12:00:03.750Z  +1.950s   checkpoint         it took 0.25 s
12:00:04.000Z  +0.250s   prepared           durable up to 1@0/5000060, asked for by the preStop hook 0.50 s before
12:00:05.750Z  +1.750s   postgres stopping  Postgres lets nobody in any more
12:00:05.750Z  +0.000s   postgres down      pg_control says "shut down"
12:00:07.000Z  +1.250s   receipt            clean: Postgres shut down cleanly, timeline 1 was durable up to 0/5000100
12:00:29.000Z  +22.000s  claimed            epoch 4, by pod shop/orders-0 (u2) on node n2
12:00:30.000Z  +1.000s   restore            begun from snapshot base_000000010000000000000003, up to 0/5000100, nothing missing
12:00:36.500Z  +6.500s   unpacked           the snapshot is on the disk
12:00:37.250Z  +0.750s   replay begins      Postgres may start and replay its WAL
12:00:40.250Z  +3.000s   accepts writes     the server writes timeline 2, shipped from 0/5000000
12:00:40.250Z  +0.000s   first write        the first commit is in the archive, it ends at 0/5000200
outage: 34.5 s, from the moment when Postgres began to stop to the first write`, told(t, e))
	for _, p := range e.Phases {
		if before := p.At.Before(e.Outage.From); before != (p.Outage == nil) {
			t.Errorf("%s, at %s: %v seconds of an outage that begins at %s", p.Name, p.At, p.Outage, e.Outage.From)
		}
	}
}

// A node that is gone at once says nothing. What its successor has found is all there is.
func TestTimeLineOfALostNode(t *testing.T) {
	e := ending{
		Epoch: 3, Verdict: verdict{Outcome: outcomeVanished},
		Heartbeat: &lastBeat{Heartbeat: archive.Heartbeat{Timeline: 1, Durable: 0x5000000}, At: after(-20)},
		After:     restoredEntries(t), later: []archive.Epoch{{Number: 4, Writer: secondPod, ClaimedAt: after(29)}},
	}
	stop := []archive.Entry{journalled(t, 3, -7200, eventShipping, "")}
	e.timeLine(lastStop(stop))
	same(t, `
11:59:40.000Z            last heartbeat  the last sign of life, by the store's clock, timeline 1 was durable up to 0/5000000
12:00:05.500Z  +25.500s  last commit     the last one that was restored, by the clock of its server
not seen                            receipt         nothing proves a clean end: no receipt was left
12:00:29.000Z  +23.500s  claimed         epoch 4, by pod shop/orders-0 (u2) on node n2
12:00:30.000Z  +1.000s   restore         begun from snapshot base_000000010000000000000003, up to 0/5000100, nothing missing
12:00:36.500Z  +6.500s   unpacked        the snapshot is on the disk
12:00:37.250Z  +0.750s   replay begins   Postgres may start and replay its WAL
12:00:40.250Z  +3.000s   accepts writes  the server writes timeline 2, shipped from 0/5000000
12:00:40.250Z  +0.000s   first write     the first commit is in the archive, it ends at 0/5000200
outage: at most 34.8 s, from the last commit that was restored to the first write`, told(t, e))
}

// What goes wrong has words of its own, and what older versions did not note is absent.
func TestTimeLineOfABadStop(t *testing.T) {
	stop := []archive.Entry{
		journalled(t, 3, 0, eventNotice, `{"release_at":$300}`),
		journalled(t, 3, 20, eventPrepared, `{"reason":"notice","complete":false,"checkpointed":false,"durable":"1@0/4000060","seconds":20,"started_at":$0,"checkpoint_seconds":14,"error":"the time is over"}`),
		journalled(t, 3, 20.1, eventEvacuationFailed, `{"error":"no route"}`),
		journalled(t, 3, 25, eventEvacuationAnswered, `{"outcome":"not_spot","status":403,"message":"the node is none that is reclaimed"}`),
		journalled(t, 3, 60, eventSuperseded, `{"reason":"epoch 5 was claimed"}`),
		journalled(t, 3, 60.5, eventFencedReadOnly, ``),
		journalled(t, 3, 61, eventPostgresDown, `{"control_state":"in production","control_written_at":$-500}`),
		journalled(t, 3, 62, eventFinished, `{"clean":false}`),
	}
	e := ending{
		Epoch: 3, Verdict: verdict{Outcome: outcomeInterrupted},
		inventory: &archive.Inventory{Size: mib},
		Receipt:   &archive.Receipt{Epoch: 3, Reason: "Postgres did not shut down cleanly", Timeline: 1, Durable: 0x5000100, FinishedAt: after(61.5)},
		After: []archive.Entry{
			journalled(t, 5, 70, eventShipping, `{"timeline":2}`),
			journalled(t, 5, 71, eventRestored, `{"snapshot":"base_1","end":"0/1","target":"2026-04-07T11:00:00Z","missing":["WAL from 0/2 on","more"],"started_at":$63,"seconds":8}`),
		},
		later: []archive.Epoch{{Number: 4, Writer: secondPod, ClaimedAt: after(50)}, {Number: 5, Writer: secondPod, ClaimedAt: after(59)}},
	}
	e.timeLine(lastStop(stop))
	same(t, `
12:00:00.000Z            notice             the machine is released at 2026-04-07 12:05:00Z
12:00:14.000Z  +14.000s  checkpoint         it was given up after 14.00 s
12:00:20.000Z  +6.000s   prepared           not all of it: the time is over, durable up to 1@0/4000060, asked for by the notice 20.00 s before
12:00:20.100Z  +0.100s   evacuation failed  no answer yet, it is asked again: no route
12:00:25.000Z  +4.900s   eviction           refused (403, not_spot): the node is none that is reclaimed
12:00:50.000Z  +25.000s  claimed            epoch 4, by pod shop/orders-0 (u2) on node n2
12:00:59.000Z  +9.000s   claimed            epoch 5, by pod shop/orders-0 (u2) on node n2
12:01:00.000Z  +1.000s   superseded         this writer has stopped for good, epoch 5 was claimed
12:01:00.500Z  +0.500s   fenced read only   the database was made read-only
12:01:01.000Z  +0.500s   postgres down      no server was there any more, pg_control says "in production"
12:01:01.500Z  +0.500s   receipt            not clean: Postgres did not shut down cleanly, timeline 1 was durable up to 0/5000100
12:01:03.000Z  +1.500s   restore            begun from snapshot base_1, up to 0/1 at most, for the target 2026-04-07T11:00:00Z, missing: WAL from 0/2 on more
12:01:10.000Z  +7.000s   accepts writes     the server writes timeline 2`, told(t, e))
	if e.Outage != nil {
		t.Errorf("no first write is known, and the outage is %v", e.Outage)
	}
}

// Of an epoch with several stops the last one is told, with what announced it.
func TestTheLastStop(t *testing.T) {
	for name, test := range map[string]struct{ events, want string }{
		"nothing happened":                    {"shipping", ""},
		"the sidecar alone was started again": {"shipping prepared postgres_stopping finished shipping notice finished", "notice finished"},
		"Postgres alone was started again":    {"shipping prepared postgres_stopping shipping prepared finished", "prepared finished"},
		"Postgres was, after the notice":      {"shipping notice prepared shipping prepared finished", "notice prepared prepared finished"},
		"a notice is withdrawn":               {"shipping notice prepared evacuation_answered notice_withdrawn prepared finished", "prepared finished"},
		"it is too late to withdraw it":       {"shipping notice postgres_stopping notice_withdrawn finished", "notice postgres_stopping notice_withdrawn finished"},
		"a stop that was told twice":          {"prepared finished postgres_down finished", "prepared finished postgres_down finished"},
	} {
		var entries []archive.Entry
		for _, event := range strings.Fields(test.events) {
			entries = append(entries, archive.Entry{Event: event})
		}
		var got []string
		for _, x := range lastStop(entries) {
			got = append(got, x.Event)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %q, want %q", name, s, test.want)
		}
	}
}

// What another version has written in another way makes the line poorer, and breaks nothing.
func TestTimeLineOfStrangeEntries(t *testing.T) {
	var stop, came []archive.Entry
	for i, event := range append(stopEvents(), afterEvents()...) {
		for j, attrs := range []string{"", `{"status":"x","outcome":7,"tainted":"yes","missing":{},"started_at":"then","committed_at":5,"seconds":"long","complete":0,"control_state":[1],"node":null}`} {
			x := journalled(t, 3, float64(2*i+j), event, attrs)
			if i < len(stopEvents()) {
				stop = append(stop, x)
			} else {
				x.Epoch = 4
				came = append(came, x)
			}
		}
	}
	e := ending{Epoch: 3, Verdict: verdict{Outcome: outcomeVanished}, After: came, later: []archive.Epoch{{Number: 4}}}
	e.timeLine(stop)
	if len(e.Phases) < len(stop) {
		t.Errorf("of %d entries there are %d phases", len(stop)+len(came), len(e.Phases))
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
}
