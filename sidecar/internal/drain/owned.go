package drain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// How long after an answer that could not be had the archive is asked again whose it is, and how long an answer is
// waited for that no proof hangs on.
const (
	askAgain  = 500 * time.Millisecond
	ownerSoon = time.Second
)

// owned asks, as the last thing before the receipt, whether the archive is still this writer's: whoever took over may
// have gone on from before the end of what was shipped, and then nothing is proven by it. outcome is how the shipping
// ended. If there is no answer soon, the receipt that says so is there before all time is over.
func (f *Finisher) owned(ctx context.Context, r archive.Receipt, outcome error) (archive.Receipt, error) {
	if f.Owner == nil {
		return r, outcome
	}
	told := make(chan error, 1)
	go func() { told <- f.askOwner(ctx, r.Clean) }()
	var err error
	select {
	case err = <-told:
	case <-time.After(answerSoon):
		open := r
		open.Clean, open.Reason = false, r.Reason+"; the archive had not said yet whether another writer had taken over"
		f.interim(ctx, open)
		err = <-told
	}
	switch {
	case err == nil:
		return r, outcome
	case errors.Is(err, ErrOvertaken):
		r.Clean, r.Superseded, r.Reason = false, true, ErrOvertaken.Error()+"; "+r.Reason
		return r, errors.Join(outcome, err)
	case !r.Clean:
		return r, outcome // it proves nothing either way
	}
	r.Clean = false
	r.Reason += "; but it could not be told whether another writer had taken over: " + err.Error()
	return r, errors.Join(outcome, fmt.Errorf("%w: it could not be told whether another writer had taken over: %w", ErrNotAll, err))
}

// askOwner asks until there is an answer if there is a proof to lose: what was shipped is in the archive by then, so all
// the time that is left may go into it. A receipt that proves nothing is worth one question.
func (f *Finisher) askOwner(ctx context.Context, proof bool) error {
	if !proof {
		ctx, cancel := context.WithTimeoutCause(ctx, ownerSoon, errors.New("the archive did not say in time"))
		defer cancel()
		return f.Owner(ctx)
	}
	for {
		err := f.Owner(ctx)
		if err == nil || errors.Is(err, ErrOvertaken) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(askAgain):
		}
	}
}
