package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/sidecar/internal/wal"
)

// Slot is a physical replication slot: it keeps WAL from RestartLSN on. RestartLSN goes back when the server crashes,
// so it never proves what was shipped.
type Slot struct {
	Name       string
	RestartLSN wal.LSN // 0 if the slot keeps nothing
	// Status is wal_status: reserved, extended, unreserved or lost; "" where it keeps nothing.
	Status       string
	Invalidation string // invalidation_reason of 17 and later, such as idle_timeout
	Active       bool   // a walsender or another session holds it now
	Limits       SlotLimits
	physical     bool
}

// SlotLimits are the settings of the server that bound slots. They come with each look at a slot, since most of them
// change with a reload.
type SlotLimits struct {
	WALLevel    string        // minimal, replica or logical
	MaxSlots    int           // max_replication_slots
	MaxKeep     int64         // max_slot_wal_keep_size in bytes: a slot that keeps more is lost; negative: unbounded
	IdleTimeout time.Duration // idle_replication_slot_timeout of 18 and later: one that nobody used so long is lost; 0: never
}

// Lost tells whether the server gave up the WAL that the slot was to keep.
func (s Slot) Lost() bool { return s.Status == "lost" || s.Invalidation != "" }

// invalidation_reason came with 17, idle_replication_slot_timeout with 18; to_jsonb reads a column that may not be there.
const slotQuery = `
SELECT slot_name::text, coalesce(restart_lsn::text, '0/0'), coalesce(wal_status, ''), active, slot_type = 'physical',
       coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),
       current_setting('wal_level'), current_setting('max_replication_slots')::int,
       pg_size_bytes(current_setting('max_slot_wal_keep_size')),
       extract(epoch FROM coalesce(current_setting('idle_replication_slot_timeout', true), '0')::interval)::float8
  FROM pg_replication_slots s WHERE slot_name = $1`

// Slot reads a slot; fs.ErrNotExist if there is none of that name.
func (c *Conn) Slot(ctx context.Context, name string) (Slot, error) {
	var s Slot
	err := c.do(ctx, "reading replication slot "+name, func(ctx context.Context, pg *pgx.Conn) (err error) {
		s, err = readSlot(ctx, pg, name)
		return err
	})
	return s, err
}

func readSlot(ctx context.Context, pg *pgx.Conn, name string) (Slot, error) {
	var s Slot
	var restart string
	var idle float64
	l := &s.Limits
	err := pg.QueryRow(ctx, slotQuery, name).Scan(&s.Name, &restart, &s.Status, &s.Active, &s.physical, &s.Invalidation,
		&l.WALLevel, &l.MaxSlots, &l.MaxKeep, &idle)
	l.IdleTimeout = time.Duration(idle * float64(time.Second))
	if errors.Is(err, pgx.ErrNoRows) {
		return s, fmt.Errorf("there is no such slot: %w", fs.ErrNotExist)
	}
	if err != nil {
		return s, err
	}
	s.RestartLSN, err = wal.ParseLSN(restart)
	return s, err
}

// EnsureSlot returns the physical slot of that name, and makes it first if there is none; from then on it keeps the WAL
// since the last checkpoint. One that lost its WAL is returned with ErrSlotLost and left as it is. One that never kept
// any is made anew. It works in recovery too.
func (c *Conn) EnsureSlot(ctx context.Context, name string) (Slot, error) {
	var s Slot
	err := c.do(ctx, "providing replication slot "+name, func(ctx context.Context, pg *pgx.Conn) (err error) {
		s, err = readSlot(ctx, pg, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !s.physical:
			return withRemedy(errors.New("there is a logical slot of that name"), "rename or drop that slot")
		case s.Lost():
			return lost(s)
		case s.RestartLSN != 0:
			return nil
		default:
			if err := dropSlot(ctx, pg, name); err != nil {
				return err
			}
		}
		if err := createSlot(ctx, pg, name); err != nil {
			return err
		}
		s, err = readSlot(ctx, pg, name)
		return err
	})
	return s, err
}

func createSlot(ctx context.Context, pg *pgx.Conn, name string) error {
	_, err := pg.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true)", name)
	switch codeOf(err) {
	case codePermission:
		return slotRemedy(pg, err)
	case codeLimit:
		return withRemedy(err, "drop a slot that nobody uses, or raise max_replication_slots and restart the server")
	case codeNotInState:
		return withRemedy(err, "set wal_level=replica and max_replication_slots to at least 1, and restart the server")
	}
	return err
}

func slotRemedy(pg *pgx.Conn, err error) error {
	return withRemedy(err, "run as a superuser: ALTER ROLE %q REPLICATION", pg.Config().User)
}

func lost(s Slot) error {
	reason := s.Invalidation
	if reason == "" {
		reason = "wal_status is " + s.Status
	}
	return fmt.Errorf("%w (%s)", ErrSlotLost, reason)
}

// AdvanceSlot lets the server remove WAL before to, never more, and returns the slot as it is now. If the slot is there
// already or further, it is advanced to where it is: that does nothing but keep 18 from invalidating it as idle.
// fs.ErrNotExist if there is no such slot, ErrSlotLost if it keeps nothing any more.
func (c *Conn) AdvanceSlot(ctx context.Context, name string, to wal.LSN) (Slot, error) {
	var now Slot
	err := c.do(ctx, fmt.Sprintf("advancing replication slot %s to %s", name, to),
		func(ctx context.Context, pg *pgx.Conn) (err error) {
			now, err = advanceSlot(ctx, pg, name, to)
			return err
		})
	return now, err
}

func advanceSlot(ctx context.Context, pg *pgx.Conn, name string, to wal.LSN) (Slot, error) {
	s, err := readSlot(ctx, pg, name)
	if err != nil {
		return s, err
	}
	if s.Lost() {
		return s, lost(s)
	}
	if to < s.RestartLSN {
		to = s.RestartLSN
	}
	var end string
	err = pg.QueryRow(ctx, "SELECT coalesce(end_lsn::text, '0/0') FROM pg_replication_slot_advance($1, $2::text::pg_lsn)",
		name, to.String()).Scan(&end)
	switch codeOf(err) {
	case "":
	case codePermission:
		return s, slotRemedy(pg, err)
	case codeInUse:
		return s, withRemedy(err, "end the process that uses the slot, or give it a slot of its own")
	case codeInvalidParameter, codeNotInState, codeUndefinedObject:
		// The slot changed since it was read: it is further, lost or gone now.
		now, rerr := readSlot(ctx, pg, name)
		switch {
		case rerr != nil:
			return now, errors.Join(rerr, err)
		case now.Lost() || now.RestartLSN == 0:
			return now, fmt.Errorf("%w: %w", lost(now), err)
		case now.RestartLSN >= to:
			return now, nil
		}
	}
	if err != nil {
		return s, err
	}
	s.RestartLSN, err = wal.ParseLSN(end)
	return s, err
}

// DropSlot drops the slot, so that it keeps no WAL any more. One that is not there counts as dropped.
func (c *Conn) DropSlot(ctx context.Context, name string) error {
	return c.do(ctx, "dropping replication slot "+name, func(ctx context.Context, pg *pgx.Conn) error {
		return dropSlot(ctx, pg, name)
	})
}

func dropSlot(ctx context.Context, pg *pgx.Conn, name string) error {
	_, err := pg.Exec(ctx, "SELECT pg_drop_replication_slot($1)", name)
	switch codeOf(err) {
	case codeUndefinedObject:
		return nil
	case codePermission:
		return slotRemedy(pg, err)
	case codeInUse:
		return withRemedy(err, "end the process that uses the slot")
	}
	return err
}
