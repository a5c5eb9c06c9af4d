package main

import (
	"fmt"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// preparePhases are the checkpoint and what was durable after it.
func preparePhases(x archive.Entry) (phases []phase) {
	begun, known := moment(x.Attrs, "started_at")
	if took, ok := number(x.Attrs, "checkpoint_seconds"); ok && known && took > 0 {
		text := fmt.Sprintf("it took %.2f s", took)
		if !yes(x.Attrs, "checkpointed") {
			text = fmt.Sprintf("it was given up after %.2f s", took)
		}
		at := begun.Add(time.Duration(took * float64(time.Second)))
		phases = append(phases, timed(stepCheckpoint, x.Epoch, at, map[string]any{"seconds": took, "complete": yes(x.Attrs, "checkpointed")}, text))
	}
	words := []string{prefixed("durable up to ", word(x.Attrs, "durable"))}
	if _, told := x.Attrs["complete"]; told && !yes(x.Attrs, "complete") {
		words = []string{prefixed("not all of it: ", word(x.Attrs, "error")), prefixed("durable up to ", word(x.Attrs, "durable"))}
	}
	if took, ok := number(x.Attrs, "seconds"); ok {
		words = append(words, fmt.Sprintf("asked for%s %.2f s before", prefixed(" by ", asker(word(x.Attrs, "reason"))), took))
	}
	return append(phases, timed(stepPrepared, x.Epoch, x.Time, x.Attrs, words...))
}

// asker is who asked for a preparation, in words.
func asker(reason string) string {
	return map[string]string{"notice": "the notice", "prestop": "the preStop hook"}[reason]
}

// evacuationPhases are what was asked for, or each half of the answer: the node's taint and the pod's move.
func evacuationPhases(x archive.Entry) (phases []phase) {
	add := func(name string, words ...string) {
		phases = append(phases, timed(name, x.Epoch, x.Time, x.Attrs, words...))
	}
	switch x.Event {
	case eventEvacuationAsked:
		add(stepEvacuationAsked, prefixed("the webhook is asked to move the pod before ", clock(x.Attrs, "release_at")))
		return phases
	case eventEvacuationFailed:
		add(stepEvacuationFailed, prefixed("no answer yet, it is asked again: ", word(x.Attrs, "error")))
		return phases
	}
	if _, said := x.Attrs["tainted"]; said && yes(x.Attrs, "tainted") {
		add(stepCordon, "node "+word(x.Attrs, "node")+" is tainted: nothing new is put there")
	} else if said {
		add(stepCordon, "node "+word(x.Attrs, "node")+" could not be tainted")
	}
	if status, ok := number(x.Attrs, "status"); ok && status >= 400 {
		add(stepEviction, fmt.Sprintf("refused (%.0f, %s): %s", status, word(x.Attrs, "outcome"), word(x.Attrs, "message")))
	} else {
		add(stepEviction, word(x.Attrs, "outcome")+prefixed(": ", word(x.Attrs, "message")))
	}
	return phases
}
