package ledger

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"time"
)

// maxLosses is how many lost rows a report names.
const maxLosses = 20

// judge compares two readings of a journal with what a server held in between.
type judge struct {
	before, after *history
	found         *state
	options       Options

	result Report
	kills  []Instant          // in order
	begun  map[string][]int64 // by boot, in order: when the present rows were begun
	losses []lossAt
}

// lossAt is a loss: when it was begun and acknowledged, and how the server's life ended after that.
type lossAt struct {
	row   *row
	kind  string
	begun Instant
	at    Instant
	kill  Instant // zero if unknown
}

// age is kill minus acknowledgement, never negative; not ok when no kill is known.
func (l lossAt) age() (time.Duration, bool) {
	age, ok := l.kill.Since(l.at)
	return max(age, 0), ok
}

func (j *judge) report() Report {
	j.result = Report{
		Ledger: j.before.ledger, RPO: j.options.RPO.Seconds(), rpo: j.options.RPO,
		OtherRows: j.found.others, TornJournalBytes: j.after.torn,
	}
	j.kills = slices.Clone(j.after.kills)
	if !j.options.Kill.IsZero() {
		j.kills = append(j.kills, j.options.Kill)
	}
	slices.SortFunc(j.kills, func(a, b Instant) int { return cmp.Compare(a.Monotonic, b.Monotonic) })
	if len(j.kills) > 0 {
		j.result.Kill = &j.kills[len(j.kills)-1]
	}
	j.checkStored()
	for _, begun := range j.begun {
		slices.Sort(begun)
	}
	for _, r := range j.before.rows {
		j.balance(r)
	}
	for _, l := range j.losses {
		j.age(l)
	}
	j.finish(&j.result.Account)
	j.finish(&j.result.Async)
	j.nameLosses()
	return j.result
}

// checkStored judges what the server has: is each row one that was announced, once and unchanged?
func (j *judge) checkStored() {
	j.begun = map[string][]int64{}
	var total int64
	for id, s := range j.found.rows {
		total += int64(s.copies)
		j.result.Duplicates += s.copies - 1
		r := j.after.rows[id]
		if r == nil {
			j.result.Foreign++
			continue
		}
		if s.connection != r.connection || s.digest != sha256.Sum256(payload(id, r.size)) {
			j.result.Damaged++
		}
		if r.kind == rowPrepared && r.commit.IsZero() {
			j.result.Unasked++
		}
		begun := r.begun()
		j.begun[begun.Boot] = append(j.begun[begun.Boot], begun.Monotonic)
	}
	j.result.IndexDifference = j.found.indexRows - total
	for id := range j.found.prepared {
		r := j.after.rows[id]
		if r == nil || r.kind != rowPrepared {
			j.result.Foreign++
			continue
		}
		j.begun[r.intent.Boot] = append(j.begun[r.intent.Boot], r.intent.Monotonic)
	}
}

// balance judges one row of the journal.
func (j *judge) balance(r *row) {
	visible, prepared := j.found.rows[r.id] != nil, j.found.prepared[r.id]
	if r.kind == rowPrepared {
		j.balancePrepared(r, visible, prepared)
		return
	}
	if r.ack.IsZero() {
		j.inFlight(visible)
		return
	}
	account, kind := &j.result.Account, "commit"
	if r.kind == rowAsync {
		account, kind = &j.result.Async, "async commit"
	}
	account.Acknowledged++
	if visible {
		account.Present++
		return
	}
	account.Lost++
	j.losses = append(j.losses, lossAt{row: r, kind: kind, begun: r.intent, at: r.ack, kill: j.killAfter(r.intent)})
}

// balancePrepared judges a two-phase row, which may have been acknowledged twice. What counts as the loss is the
// earliest acknowledgement that was broken.
func (j *judge) balancePrepared(r *row, visible, prepared bool) {
	loss := lossAt{row: r, kind: "prepare", begun: r.intent, at: r.prepared}
	if r.prepared.IsZero() || prepared {
		// Either PREPARE went unanswered, and the transaction was found and committed later, or it is there again.
		loss = lossAt{row: r, kind: "commit of prepared", begun: r.attempt, at: r.ack}
	}
	if r.prepared.IsZero() && r.ack.IsZero() {
		j.inFlight(visible || prepared)
		return
	}
	j.result.Acknowledged++
	j.result.Prepared.Acknowledged++
	switch {
	case visible:
		j.result.Present++
		j.result.Prepared.Committed++
	case prepared && r.ack.IsZero():
		j.result.Present++
		j.result.Prepared.Pending++
	default:
		j.result.Lost++
		j.result.Prepared.Lost++
		loss.kill = j.killAfter(loss.begun)
		j.losses = append(j.losses, loss)
	}
}

func (j *judge) inFlight(present bool) {
	if present {
		j.result.InFlight.Present++
	} else {
		j.result.InFlight.Absent++
	}
}

// killSlack is how late after its mark a kill may have taken effect.
const killSlack = 2 * time.Second

// killAfter is the end of the server's life in which a transaction was begun: a transaction does not outlive it. That is
// the next kill, unless the transaction was begun just after a mark and the ledger was started anew before the next
// one: then the mark was made a little before the server was gone.
func (j *judge) killAfter(begun Instant) Instant {
	next, previous := firstAfter(j.kills, begun), Instant{}
	for _, k := range j.kills {
		if d, ok := begun.Since(k); ok && d > 0 && d <= killSlack {
			previous = k
		}
	}
	run := firstAfter(j.after.runs, begun)
	switch {
	case previous.IsZero(), !next.IsZero() && (run.IsZero() || next.Monotonic < run.Monotonic):
		return next
	default:
		return previous
	}
}

// firstAfter is the first of the ordered instants that is not before at, in the same boot; zero if there is none.
func firstAfter(ordered []Instant, at Instant) Instant {
	for _, i := range ordered {
		if d, ok := i.Since(at); ok && d >= 0 {
			return i
		}
	}
	return Instant{}
}

// age puts one loss on the clock.
func (j *judge) age(l lossAt) {
	if j.isHole(l) {
		j.result.Holes++
	}
	account := &j.result.Account
	if l.row.kind == rowAsync {
		account = &j.result.Async
	}
	age, ok := l.age()
	if !ok {
		account.LostOfUnknownAge++
		return
	}
	if l.at.Monotonic > l.kill.Monotonic {
		account.LostAfterKill++
	}
	account.ages = append(account.ages, age)
}

// isHole says whether a present row was begun after the loss was acknowledged, and in the same life of the server. What
// a server writes after it has lost its tail comes later and proves nothing.
func (j *judge) isHole(l lossAt) bool {
	begun := j.begun[l.at.Boot]
	next, _ := slices.BinarySearch(begun, l.at.Monotonic+1)
	return next < len(begun) && (l.kill.IsZero() || begun[next] <= l.kill.Monotonic)
}

// finish derives the figures that need all ages.
func (j *judge) finish(a *Account) {
	a.LostOlderThanRPO = a.LostOlderThan(j.options.RPO)
	if len(a.ages) > 0 {
		oldest, newest := slices.Max(a.ages).Seconds(), slices.Min(a.ages).Seconds()
		a.OldestLostAge, a.NewestLostAge = &oldest, &newest
	}
}

// nameLosses lists the oldest losses.
func (j *judge) nameLosses() {
	slices.SortFunc(j.losses, func(a, b lossAt) int {
		return cmp.Or(cmp.Compare(a.at.Monotonic, b.at.Monotonic), cmp.Compare(a.row.id, b.row.id))
	})
	for _, l := range j.losses[:min(len(j.losses), maxLosses)] {
		loss := Loss{ID: l.row.id, Connection: l.row.connection, Kind: l.kind, AcknowledgedAt: l.at.Wall}
		if age, ok := l.age(); ok {
			seconds := age.Seconds()
			loss.Age = &seconds
		}
		j.result.Losses = append(j.result.Losses, loss)
	}
}
