package main

import (
	"strings"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

func TestVerdict(t *testing.T) {
	claim := archive.Epoch{Number: 3, Timeline: 1, Since: 2 * mib}
	inventory := &archive.Inventory{Size: mib, Epochs: []archive.Epoch{claim}, Sealed: map[wal.Segment]archive.SegmentInfo{}}
	for n := uint64(2); n < 7; n++ {
		s := wal.Segment{Timeline: 1, Number: n}
		inventory.Sealed[s] = archive.SegmentInfo{Segment: s, Valid: mib}
	}
	receipt := func(clean bool, durable, checkpointEnd, localEnd wal.LSN) *archive.Receipt {
		return &archive.Receipt{
			Epoch: 3, Clean: clean, Timeline: 1, Durable: durable, CheckpointEnd: checkpointEnd, LocalEnd: localEnd,
			State: "shut down", Reason: "Postgres was still running", FinishedAt: time.Now(),
		}
	}
	running := func(durable wal.LSN) *archive.Receipt {
		return &archive.Receipt{Epoch: 3, Running: true, Timeline: 1, Durable: durable, FinishedAt: time.Now()}
	}
	beat := func(durable wal.LSN, age float64) *lastBeat {
		return &lastBeat{Heartbeat: archive.Heartbeat{Epoch: 3, Timeline: 1, Durable: durable, Interval: 60}, Age: age, At: time.Now()}
	}
	cases := []struct {
		name  string
		e     ending
		claim archive.Epoch
		want  outcome
		lost  string
		bytes int64 // -1: not known
	}{
		{"a clean stop", ending{Receipt: receipt(true, 7*mib, 7*mib, 0), Heartbeat: beat(6*mib, 900)}, claim, outcomeClean, "nothing", 0},
		{"a receipt that contradicts itself", ending{Receipt: receipt(true, 7*mib, 8*mib, 0)}, claim, outcomeInterrupted, "the receipt contradicts itself", -1},
		{"interrupted, with a rest on the disk", ending{Receipt: receipt(false, 7*mib, 0, 7*mib+4096)}, claim, outcomeInterrupted, "4096 bytes of WAL, from 0/700000 to 0/701000", 4096},
		{"interrupted, everything shipped", ending{Receipt: receipt(false, 7*mib, 0, 7*mib)}, claim, outcomeInterrupted, "nothing that was on the disk", -1},
		{"interrupted, Postgres went on", ending{Receipt: receipt(false, 7*mib, 0, 0)}, claim, outcomeInterrupted, "what was committed after 0/700000, if anything", -1},
		{"alive", ending{Heartbeat: beat(6*mib, 50)}, claim, outcomeRunning, "nothing so far", -1},
		{"alive again after a restart of the sidecar", ending{Receipt: receipt(false, 5*mib, 0, 0), Heartbeat: beat(6*mib, 50)}, claim, outcomeRunning, "nothing so far", -1},
		{"gone without a word", ending{Heartbeat: beat(6*mib, 900)}, claim, outcomeVanished, "what was committed after 0/700000, if anything", -1},
		{"alive, but another one has taken over", ending{Heartbeat: beat(6*mib, 5), Successor: &archive.Epoch{Number: 4}}, claim, outcomeVanished, "what was committed after 0/700000", -1},
		{
			"gone, and its disk went on",
			ending{Heartbeat: beat(6*mib, 900), Successor: &archive.Epoch{Number: 4, Timeline: 1, Since: 7 * mib}},
			claim, outcomeVanished,
			"nothing: epoch 4 went on with the same disk from 0/700000", -1,
		},
		{"gone without a word, after a clean stop of the same instance", ending{Receipt: running(6 * mib), Heartbeat: beat(6*mib, 900)}, claim, outcomeVanished, "what was committed after 0/700000, if anything", -1},
		{"alive again, and says so", ending{Receipt: running(6 * mib), Heartbeat: beat(6*mib, 5)}, claim, outcomeRunning, "nothing so far", -1},
		{"a receipt that the WAL has overtaken", ending{Receipt: receipt(true, 6*mib, 6*mib, 0), Heartbeat: beat(6*mib, 900)}, claim, outcomeVanished, "what was committed after 0/700000, if anything", -1},
		{"a receipt that a promotion has overtaken", ending{
			Receipt: receipt(true, 7*mib, 7*mib, 0), claims: []archive.TimelineClaim{{Timeline: 2, Epoch: 3, Parent: 1, Switch: 7 * mib}},
		}, claim, outcomeVanished, "what was committed after 0/700000, if anything", -1},
		{"a restore that was given up", ending{}, archive.Epoch{Number: 3}, outcomeNothing, "it never wrote", -1},
	}
	for _, c := range cases {
		c.e.Epoch, c.e.inventory = 3, inventory
		v := c.e.judge(c.claim)
		bytes := int64(-1)
		if v.Bytes != nil {
			bytes = *v.Bytes
		}
		if v.Outcome != c.want || !strings.Contains(v.Lost, c.lost) || bytes != c.bytes || v.Text == "" {
			t.Errorf("%s: %+v (%d bytes), want %s, %q, %d bytes", c.name, v, bytes, c.want, c.lost, c.bytes)
		}
	}
}

// What another epoch wrote on the same timeline says nothing about the receipt of the one before it.
func TestReceiptOutlivesItsSuccessor(t *testing.T) {
	claim := archive.Epoch{Number: 3, Timeline: 1, Since: 2 * mib}
	next := archive.Epoch{Number: 4, Timeline: 1, Since: 5 * mib}
	inventory := &archive.Inventory{Size: mib, Epochs: []archive.Epoch{claim, next}, Sealed: map[wal.Segment]archive.SegmentInfo{}}
	for n := uint64(2); n < 7; n++ {
		s := wal.Segment{Timeline: 1, Number: n}
		inventory.Sealed[s] = archive.SegmentInfo{Segment: s, Valid: mib}
	}
	e := ending{Epoch: 3, inventory: inventory, Successor: &next}
	e.Receipt = &archive.Receipt{Epoch: 3, Clean: true, Timeline: 1, Durable: 5 * mib, CheckpointEnd: 5 * mib}
	if v := e.judge(claim); v.Outcome != outcomeClean || v.Lost != "nothing" {
		t.Errorf("a clean stop, and its disk went on: %+v", v)
	}
	// It did not know yet that it was superseded, and both wrote.
	e.Receipt = &archive.Receipt{Epoch: 3, Clean: true, Timeline: 1, Durable: 5*mib + 100, CheckpointEnd: 5*mib + 100}
	if v := e.judge(claim); v.Outcome == outcomeClean || v.Bytes != nil || !strings.Contains(v.Lost, "at most 100 bytes") || !strings.Contains(v.Lost, "0/500000 to 0/500064") {
		t.Errorf("the next epoch began before the receipt's end: %+v", v)
	}
}

// What a stop proves is held against what the next writer went on from. One that took over while this one still wrote
// elsewhere has not seen its last WAL, and no receipt makes that clean.
func TestVerdictKnowsWhoWentOn(t *testing.T) {
	claim := archive.Epoch{Number: 3, Timeline: 1, Since: 2 * mib}
	restore := func(n uint64) archive.Epoch { return archive.Epoch{Number: n} }
	fork := func(epoch uint64, at wal.LSN, target string) archive.TimelineClaim {
		return archive.TimelineClaim{Timeline: wal.Timeline(epoch), Epoch: epoch, Parent: 1, Switch: at, Target: target}
	}
	clean := archive.Receipt{Clean: true, Durable: 7 * mib, CheckpointEnd: 7 * mib, LocalEnd: 7 * mib}
	superseded := clean
	superseded.Clean, superseded.Superseded = false, true
	crashed := archive.Receipt{Durable: 7 * mib, LocalEnd: 7 * mib}
	alive := archive.Receipt{Durable: 7 * mib}
	cases := map[string]struct {
		receipt archive.Receipt
		later   []archive.Epoch
		forks   []archive.TimelineClaim
		want    outcome
		lost    string
		bytes   int64 // -1: not known
	}{
		"restored from the end": {clean, []archive.Epoch{restore(4)}, []archive.TimelineClaim{fork(4, 7*mib, "")}, outcomeClean, "nothing", 0},
		"restored to an earlier point": {
			clean, []archive.Epoch{restore(4)}, []archive.TimelineClaim{fork(4, 3*mib, "0/300000")}, outcomeClean, `epoch 4 went on from 0/300000, before the end, because it was asked to restore "0/300000"`, 0,
		},
		"it had been superseded": {
			clean, []archive.Epoch{restore(4)}, []archive.TimelineClaim{fork(4, 6*mib, "")}, outcomeInterrupted, "1048576 bytes of WAL, from 0/600000 to 0/700000, without which epoch 4 went on", mib,
		},
		"it had, and one restore was given up": {
			clean, []archive.Epoch{restore(4), restore(5)}, []archive.TimelineClaim{fork(5, 6*mib, "")}, outcomeInterrupted, "without which epoch 5 went on", mib,
		},
		"its disk went on, and another one was restored later": {
			clean, []archive.Epoch{{Number: 4, Timeline: 1, Since: 7 * mib}, restore(5)}, []archive.TimelineClaim{fork(5, 6*mib, "")}, outcomeClean, "nothing", 0,
		},
		"it knew": {superseded, []archive.Epoch{restore(4)}, []archive.TimelineClaim{fork(4, 6*mib, "")}, outcomeInterrupted, "1048576 bytes of WAL", mib},
		"it knew, and all was seen": {
			superseded, []archive.Epoch{restore(4)}, []archive.TimelineClaim{fork(4, 7*mib, "")}, outcomeInterrupted, "nothing: epoch 4 went on from its end, 0/700000", -1,
		},
		"it knew, and the next one still restores": {superseded, []archive.Epoch{restore(4)}, nil, outcomeInterrupted, "it is not known yet", -1},
		"superseded, and crashed":                  {crashed, []archive.Epoch{restore(4)}, []archive.TimelineClaim{fork(4, 6*mib, "")}, outcomeInterrupted, "1048576 bytes of WAL", mib},
		"superseded, and alive":                    {alive, []archive.Epoch{restore(4)}, []archive.TimelineClaim{fork(4, 6*mib, "")}, outcomeInterrupted, "what was committed after 0/600000", -1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inv := &archive.Inventory{Size: mib, Epochs: append([]archive.Epoch{claim}, c.later...), Claims: map[wal.Timeline]archive.TimelineClaim{}}
			for _, f := range c.forks {
				inv.Claims[f.Timeline] = f
			}
			c.receipt.Epoch, c.receipt.Timeline, c.receipt.State, c.receipt.FinishedAt = 3, 1, "shut down", time.Now()
			v := ending{Epoch: 3, inventory: inv, Receipt: &c.receipt, Successor: &c.later[0]}.judge(claim)
			bytes := int64(-1)
			if v.Bytes != nil {
				bytes = *v.Bytes
			}
			if v.Outcome != c.want || !strings.Contains(v.Lost, c.lost) || bytes != c.bytes || v.Text == "" {
				t.Errorf("%+v (%d bytes), want %s, %q, %d bytes", v, bytes, c.want, c.lost, c.bytes)
			}
		})
	}
}

// A clean receipt speaks of its stop. Whether the same disk was started again is noted where it could be, and said to be
// unknown where it could not; what is known to be gone, or to have gone on, is not put in doubt.
func TestVerdictOnADiskThatIsStartedAgain(t *testing.T) {
	const doubt = "nothing up to this stop; whether the same disk was started again while the archive was away, it cannot know"
	made := archive.Epoch{Number: 3, Writer: archive.Identity{Pod: "orders-0"}} // by a restore
	kept := archive.Epoch{Number: 3, Writer: made.Writer, Timeline: 1, Since: 2 * mib}
	machine := archive.Epoch{Number: 3, Writer: archive.Identity{Host: "db"}}
	again := &archive.StartedAgain{At: time.Now(), Writer: archive.Identity{Instance: "next"}}
	cases := map[string]struct {
		claim archive.Epoch
		next  *archive.Epoch
		again *archive.StartedAgain
		want  outcome
		lost  string
	}{
		"a pod's own disk":             {made, nil, nil, outcomeClean, "nothing up to this stop"},
		"a disk that outlives pods":    {kept, nil, nil, outcomeClean, doubt},
		"a machine's":                  {machine, nil, nil, outcomeClean, doubt},
		"restored since":               {kept, &archive.Epoch{Number: 4}, nil, outcomeClean, "nothing up to this stop"},
		"it went on":                   {kept, &archive.Epoch{Number: 4, Timeline: 1, Since: 7 * mib}, nil, outcomeClean, "nothing"},
		"started again, and it is not": {kept, nil, again, outcomeVanished, "nothing up to this stop; and what was committed after " + timeText(again.At) + ", when the same disk was started again, if anything: the archive cannot know"},
		"started again, and went on":   {kept, &archive.Epoch{Number: 4, Timeline: 1, Since: 7 * mib}, again, outcomeClean, "nothing"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inv := &archive.Inventory{Size: mib, Epochs: []archive.Epoch{{Number: 1, Timeline: 1}, c.claim}, Claims: map[wal.Timeline]archive.TimelineClaim{1: {Timeline: 1, Epoch: 1}}}
			if c.next != nil {
				inv.Epochs = append(inv.Epochs, *c.next)
			}
			r := archive.Receipt{Epoch: 3, Clean: true, Timeline: 1, Durable: 7 * mib, CheckpointEnd: 7 * mib, LocalEnd: 7 * mib, FinishedAt: time.Now(), StartedAgain: c.again}
			v := ending{Epoch: 3, Writer: c.claim.Writer, inventory: inv, Receipt: &r, Successor: c.next}.judge(c.claim)
			if v.Outcome != c.want || v.Lost != c.lost || (v.Bytes == nil) != (c.again != nil && c.want != outcomeClean) {
				t.Errorf("%+v, want %s, %q", v, c.want, c.lost)
			}
		})
	}
}
