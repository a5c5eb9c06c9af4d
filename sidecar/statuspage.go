package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/page"
	"outrider.dev/sidecar/internal/wal"
)

// serveStatus answers a browser with a page, and everybody else with JSON.
func (g *guard) serveStatus(p *page.Page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		report := g.report(r.Context())
		if !wantsPage(r.Header) {
			answerJSON(w, report)
			return
		}
		var b bytes.Buffer
		if err := p.Render(&b, g.onPage(report, time.Now())); err != nil {
			g.log.Error("the status page could not be drawn", "error", err)
			answer(w, http.StatusInternalServerError, "the status page could not be drawn: "+err.Error()+"\n")
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", p.Policy())
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		_, _ = b.WriteTo(w) // the other side may have gone; there is nobody to tell
	}
}

// wantsPage says whether a request names HTML and likes it better than JSON (RFC 9110, section 12.5.1). Wildcards alone
// are what programs send.
func wantsPage(h http.Header) bool {
	quality := map[string]float64{}
	for _, field := range h.Values("Accept") {
		for item := range strings.SplitSeq(field, ",") {
			kind, parameters, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			q := 1.0
			if text, ok := parameters["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil {
					continue
				}
			}
			quality[kind] = q
		}
	}
	html := quality["text/html"]
	if json, named := quality["application/json"]; named {
		return html > json
	}
	return html > 0 && html >= max(quality["application/*"], quality["*/*"])
}

// onPage is a report as the page tells it.
func (g *guard) onPage(r statusReport, now time.Time) page.Status {
	s := page.Status{
		Now: now, State: string(r.State), Reason: r.Reason, Since: r.Since, NotProtectedSince: r.NotProtectedSince,
		Age: secondsOf(r.AgeSeconds), Ages: g.board.ages.all(), Span: agesSpan, Step: agesStep, Target: g.policy.RPO,
		Restore: secondsOf(r.PredictedRestore), RestoreTarget: g.policy.RTO,
		From: r.RecoverableFrom, Retention: g.policy.Retention,
		Archive: r.Archive, Version: r.Version, Epoch: r.Epoch, EpochConfirmed: r.EpochConfirmed, Timeline: uint32(r.Timeline),
		Durable: lsnText(r.Durable), Flushed: lsnText(r.Flushed), Inserted: lsnText(r.Inserted),
		Unshipped: r.UnshippedBytes, NotFlushed: r.AsyncBytes, Backlog: r.Backlog, DiskFree: r.DiskFree, DiskFull: secondsOf(r.DiskFull),
	}
	if r.State == stateLagging && g.board.snapshot().State == stateProtected {
		s.Since = lagsSince(r, now)
	}
	if r.SystemIdentifier != 0 {
		s.SystemID = strconv.FormatUint(r.SystemIdentifier, 10)
	}
	if r.Trouble != "" {
		s.Troubles = append(s.Troubles, page.Trouble{What: "The archive does not take WAL", Why: r.Trouble, Since: *r.TroubleSince})
	}
	if r.SnapshotTrouble != "" {
		s.Troubles = append(s.Troubles, page.Trouble{What: "The last snapshot did not succeed", Why: r.SnapshotTrouble})
	}
	for _, w := range r.Warnings {
		s.Troubles = append(s.Troubles, page.Trouble{What: "The database does not fit this server or machine", Why: w})
	}
	r.Drills.onPage(&s)
	if r.Notice != nil && !r.Notice.At.IsZero() {
		s.Release = &r.Notice.At
	}
	if a := r.Restored; a != nil {
		s.Restored = &page.Restored{Snapshot: a.Snapshot, Started: a.Started, Finished: a.Finished}
	}
	if n := r.SnapshotRunning; n != nil {
		s.Running = &page.Progress{Since: n.Since, Done: n.Done, Total: n.Total}
	}
	for _, name := range slices.Sorted(maps.Keys(r.StopPhases)) {
		s.StopPhases = append(s.StopPhases, page.Phase{Name: name, Took: *secondsOf(new(r.StopPhases[name]))})
	}
	for _, e := range r.Journal {
		s.Journal = append(s.Journal, onPageEntry(e))
	}
	g.snapshotsOnPage(&s)
	g.door.counts().each(func(kind objectKind, class string, h holding) {
		s.Holdings = append(s.Holdings, page.Holding{Kind: string(kind), Class: class, Objects: h.objects, Bytes: h.bytes})
	})
	slices.SortFunc(s.Holdings, func(a, b page.Holding) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Kind+a.Class, b.Kind+b.Class))
	})
	return s
}

// lagsSince is for how long shipping has lagged, which the board does not know: for it the database is protected.
func lagsSince(r statusReport, now time.Time) time.Time {
	var since time.Time
	if r.AgeSeconds != nil {
		since = now.Add(-*secondsOf(r.AgeSeconds))
	}
	if r.TroubleSince != nil && (since.IsZero() || r.TroubleSince.Before(since)) {
		since = *r.TroubleSince
	}
	return since
}

func (g *guard) snapshotsOnPage(s *page.Status) {
	v := g.current()
	if v == nil || v.ended() {
		return
	}
	v.mu.Lock()
	all := slices.Clone(v.snapshots)
	v.mu.Unlock()
	s.Known = true
	for _, b := range all {
		i := infoOf(b)
		s.Snapshots = append(s.Snapshots, page.Snapshot{Name: i.Name, Taken: i.Taken, Stored: i.Stored, Delta: b.Manifest != nil && b.Manifest.Delta != nil})
	}
}

func onPageEntry(e archive.Entry) page.Entry {
	out := page.Entry{Time: e.Time, Event: e.Event}
	for _, key := range slices.Sorted(maps.Keys(e.Attrs)) {
		text, isText := e.Attrs[key].(string)
		if !isText {
			b, err := json.Marshal(e.Attrs[key])
			if text = string(b); err != nil {
				text = fmt.Sprint(e.Attrs[key])
			}
		}
		out.Attrs = append(out.Attrs, page.Attr{Key: key, Value: text})
	}
	return out
}

func secondsOf(s *float64) *time.Duration {
	if s == nil {
		return nil
	}
	return new(time.Duration(*s * float64(time.Second)))
}

func lsnText(at *wal.LSN) string {
	if at == nil {
		return ""
	}
	return at.String()
}
