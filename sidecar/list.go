package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/verify"
	"outrider.dev/sidecar/internal/wal"
)

// listing is the JSON of `outrider list`.
type listing struct {
	Archive          string           `json:"archive"`
	SystemIdentifier uint64           `json:"system_identifier,string,omitempty"`
	SegmentSize      wal.SegmentSize  `json:"wal_segment_size"`
	Snapshots        []listedSnapshot `json:"snapshots"`
	Branches         []listedBranch   `json:"branches"`
}

type listedSnapshot struct {
	Name          string           `json:"name"`
	Timeline      wal.Timeline     `json:"timeline"`
	Start         wal.LSN          `json:"start"`
	Stop          wal.LSN          `json:"stop"`
	Taken         *time.Time       `json:"taken_at,omitempty"`
	Raw           int64            `json:"raw_bytes"`
	Stored        int64            `json:"stored_bytes"`
	Kind          string           `json:"kind"` // full or delta
	Parent        string           `json:"parent,omitempty"`
	ParentMissing bool             `json:"parent_missing,omitempty"`
	Checksums     verify.Checksums `json:"page_checksums,omitempty"`
	Pages         int64            `json:"pages_verified,omitempty"`
	BadPages      []string         `json:"bad_pages,omitempty"`
	Permanent     bool             `json:"permanent,omitempty"`
	Writer        string           `json:"writer"` // outrider or wal-g
	Damaged       string           `json:"damaged,omitempty"`
}

// listedBranch is the recovery window of one line of history. It has several stretches where WAL is missing.
type listedBranch struct {
	Timeline wal.Timeline   `json:"timeline"`
	Newest   bool           `json:"newest"`
	Legs     []listedLeg    `json:"legs"`
	Windows  []listedWindow `json:"windows"`
	Holes    []archive.Gap  `json:"holes"`
	Latest   wal.Position   `json:"latest"` // end of the WAL
}

type listedLeg struct {
	Timeline wal.Timeline `json:"timeline"`
	From     wal.LSN      `json:"from"`
	To       *wal.LSN     `json:"to,omitempty"` // absent on the last one, which is open
}

type listedWindow struct {
	From      wal.LSN    `json:"from"` // earliest restorable position
	FromTime  *time.Time `json:"from_time,omitempty"`
	To        wal.LSN    `json:"to"`
	Snapshots []string   `json:"snapshots"`
}

func newListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List snapshots and the recovery window of each branch", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := a.openWAL(cmd.Context())
			if err != nil {
				return err
			}
			l, err := list(cmd.Context(), w, a.setting("OUTRIDER_ARCHIVE"))
			if err != nil {
				return err
			}
			return errors.Join(a.show(l, l.text), l.damage())
		},
	}
	a.outputFlag(cmd)
	return cmd
}

// list collects the listing. A snapshot that cannot be read is listed as damaged and left out of the windows.
func list(ctx context.Context, w *archive.WAL, place string) (listing, error) {
	l := listing{Archive: place, SegmentSize: w.Size, Snapshots: []listedSnapshot{}, Branches: []listedBranch{}}
	c, err := w.Cluster(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	l.SystemIdentifier = c.SystemIdentifier
	names, err := w.BackupNames(ctx)
	if err != nil {
		return l, err
	}
	var all []archive.Backup
	for _, name := range names {
		b, err := w.Backup(ctx, name)
		permanent := false
		if err == nil {
			permanent, err = w.Permanent(ctx, b)
		}
		switch {
		case errors.Is(err, archive.ErrCorrupt):
			l.Snapshots = append(l.Snapshots, listedSnapshot{Name: name, Timeline: b.Timeline(), Damaged: err.Error()})
			continue
		case errors.Is(err, fs.ErrNotExist):
			continue // expired since it was listed
		case err != nil:
			return l, err
		}
		all = append(all, b)
		l.Snapshots = append(l.Snapshots, describe(b, permanent))
	}
	for i, s := range l.Snapshots {
		l.Snapshots[i].ParentMissing = s.Parent != "" && !slices.ContainsFunc(all, func(b archive.Backup) bool { return b.Name == s.Parent })
	}
	inv, err := w.Inventory(ctx)
	if err != nil {
		return l, err
	}
	l.Branches, err = branches(inv, all)
	return l, err
}

func describe(b archive.Backup, permanent bool) listedSnapshot {
	s := listedSnapshot{
		Name: b.Name, Timeline: b.Timeline(), Start: b.Start(), Stop: b.Stop(), Kind: "full", Permanent: permanent,
		Raw: b.Sentinel.UncompressedSize, Stored: b.Sentinel.CompressedSize, Writer: "wal-g", Checksums: verify.PagesOf(b), Taken: takenAt(b),
	}
	if b.Delta() {
		s.Kind, s.Parent = "delta", *b.Sentinel.DeltaFrom
	}
	if m := b.Manifest; m != nil {
		s.Writer, s.Raw, s.Stored = "outrider", m.RawSize, m.StoredSize
		s.Pages, s.BadPages = m.Checksums.Pages, m.Checksums.Bad
	}
	return s
}

// takenAt is when a snapshot was complete, as whoever took it says; nil if nobody does.
func takenAt(b archive.Backup) *time.Time {
	at := b.Sentinel.FinishTime
	if b.Manifest != nil && !b.Manifest.StopTime.IsZero() {
		at = b.Manifest.StopTime
	}
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

// branches computes the recovery windows. The newest branch comes last.
func branches(inv *archive.Inventory, all []archive.Backup) ([]listedBranch, error) {
	newest, err := inv.Newest()
	if errors.Is(err, archive.ErrNoBranch) {
		return []listedBranch{}, nil
	}
	if err != nil {
		return nil, err
	}
	found := []listedBranch{}
	for _, t := range inv.Tips() {
		b, err := inv.Branch(t)
		if err != nil {
			return nil, err
		}
		if t != newest.Timeline {
			found = append(found, window(inv, b, all))
		}
	}
	last := window(inv, newest, all)
	last.Newest = true
	return append(found, last), nil
}

func window(inv *archive.Inventory, b archive.Branch, all []archive.Backup) listedBranch {
	l := listedBranch{Timeline: b.Timeline, Windows: []listedWindow{}, Holes: []archive.Gap{}}
	for _, g := range b.Legs {
		leg := listedLeg{Timeline: g.Timeline, From: g.From}
		if g.To != archive.MaxLSN {
			leg.To = &g.To
		}
		l.Legs = append(l.Legs, leg)
	}
	from := archive.MaxLSN
	for _, w := range inv.Windows(b, all) {
		lw := listedWindow{From: w.From, To: w.To}
		for _, s := range w.Snapshots {
			lw.Snapshots = append(lw.Snapshots, s.Name)
			start, stop := inv.Extent(s)
			if from = min(from, start); stop == w.From {
				lw.FromTime = takenAt(s)
			}
		}
		l.Windows = append(l.Windows, lw)
	}
	if from == archive.MaxLSN {
		_, l.Latest = inv.Gaps(b, 0) // without a snapshot nothing can be restored, and nothing is missing
		return l
	}
	holes, latest := inv.Gaps(b, from)
	l.Holes, l.Latest = append(l.Holes, holes...), latest
	return l
}

// damage is the error that a listing with damaged snapshots ends with.
func (l listing) damage() error {
	var errs []error
	for _, s := range l.Snapshots {
		if s.Damaged != "" {
			errs = append(errs, coded{fmt.Errorf("snapshot %s is damaged: %s: use another one", s.Name, s.Damaged), errProblems})
		}
	}
	return errors.Join(errs...)
}

func (l listing) text(w io.Writer) {
	row(w, "SNAPSHOT", "TIMELINE", "START", "STOP", "TAKEN", "RAW", "STORED", "KIND", "PAGES")
	for _, s := range l.Snapshots {
		kind := s.Kind
		if s.Damaged != "" {
			row(w, s.Name, s.Timeline, "-", "-", "-", "-", "-", "damaged", "-")
			continue
		}
		if s.Parent != "" {
			kind += " of " + s.Parent
		}
		if s.ParentMissing {
			kind += " (missing)"
		}
		if s.Permanent {
			kind += ", permanent"
		}
		var taken time.Time
		if s.Taken != nil {
			taken = *s.Taken
		}
		row(w, s.Name, s.Timeline, s.Start, s.Stop, timeText(taken), bytesText(s.Raw), bytesText(s.Stored), kind, s.pages())
	}
	fmt.Fprintln(w)
	row(w, "BRANCH", "RESTORABLE FROM", "AT", "UP TO", "LATEST", "HOLES")
	for _, b := range l.Branches {
		b.text(w)
	}
}

func (s listedSnapshot) pages() string {
	switch s.Checksums {
	case verify.PagesVerified:
		return fmt.Sprintf("%d verified", s.Pages)
	case verify.PagesBad:
		return fmt.Sprintf("%d bad, first %s", len(s.BadPages), s.BadPages[0])
	default:
		return string(s.Checksums)
	}
}

func (b listedBranch) text(w io.Writer) {
	name := fmt.Sprintf("timeline %d", b.Timeline)
	if b.Newest {
		name += " (newest)"
	}
	holes := "none"
	if len(b.Holes) > 0 {
		holes = ""
		for i, h := range b.Holes {
			if i > 0 {
				holes += ", "
			}
			holes += fmt.Sprintf("%d@%s to %s", h.Timeline, h.From, h.To)
		}
	}
	if len(b.Windows) == 0 {
		row(w, name, "nothing: there is no snapshot that a restore could begin with", "-", "-", b.Latest, holes)
		return
	}
	for i, x := range b.Windows {
		var at time.Time
		if x.FromTime != nil {
			at = *x.FromTime
		}
		if i > 0 {
			name, holes = "", ""
		}
		row(w, name, x.From, timeText(at), x.To, b.Latest, holes)
	}
}
