package oss

import (
	"context"
	"errors"
	"fmt"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// call is one request, made as often as it takes.
type call struct {
	op   operation
	key  string // relative to the prefix; empty for the bucket itself
	size int64  // bytes of the request's body
	// run makes one attempt through the SDK with opts among its options. It must leave nothing behind when it fails.
	run func(opts []sdk.Option) error
	// check judges an answer that the SDK takes for a success.
	check func(x *exchange) error
	// keep leaves the attempt's context alive after a success, because the answer's body is still to be read. It is
	// then ended by exchange.cancel.
	keep bool
}

// reply is what became of a call.
type reply struct {
	*exchange
	cancel context.CancelCauseFunc // not nil only with call.keep
	// lost says that an earlier attempt may have been carried out although it did not look so.
	lost bool
	sum  stored // what a put has sent
}

// do makes attempts until one succeeds, a failure is final, or the limits are reached.
func (b *Bucket) do(ctx context.Context, c call) (reply, error) {
	begin := time.Now()
	total := b.limits.total(c.size)
	var r reply
	var renewed, clocked bool
	for n := 1; ; n++ {
		limit := min(b.limits.attempt(c.size), total-time.Since(begin))
		err := b.attempt(ctx, c, limit, &r)
		if err == nil {
			b.metrics.requests.WithLabelValues(string(c.op), "ok").Inc()
			return r, nil
		}
		f := b.judge(ctx, r.exchange, c.key, err)
		f.attempts = n
		if r.began {
			b.metrics.requests.WithLabelValues(string(c.op), f.result).Inc()
		}
		pause := b.limits.pause(n)
		switch f.reaction {
		case retry:
		case giveUp:
			return r, f
		case renew:
			if renewed || !b.credentials.Reject(b.current.load()) {
				return r, f
			}
			renewed, pause = true, 0
		case setClock:
			if clocked || !b.setClock(r.exchange) {
				return r, f
			}
			clocked, pause = true, 0
		}
		r.lost = r.lost || f.applied
		if n >= b.limits.Attempts || time.Since(begin)+pause >= total {
			return r, f
		}
		b.log.DebugContext(ctx, "oss request is tried again", "operation", string(c.op), "key", c.key, "attempt", n, "pause", pause, "error", f)
		b.metrics.retries.WithLabelValues(string(c.op)).Inc()
		if !sleep(ctx, pause) {
			f.abandon(ctx)
			return r, f
		}
	}
}

// attempt makes one request under its own deadline and returns when nobody reads its body any more.
func (b *Bucket) attempt(parent context.Context, c call, limit time.Duration, r *reply) error {
	x := &exchange{op: c.op}
	r.exchange = x
	ctx, cancel := context.WithCancelCause(withExchange(parent, x))
	timer := time.AfterFunc(limit, func() { cancel(errNoAnswer) })
	keys, err := b.credentials.Keys(ctx)
	if err == nil {
		b.current.store(keys)
		opts := []sdk.Option{sdk.WithContext(ctx)}
		if b.offset.Load() != 0 {
			opts = append(opts, sdk.SetHeader(sdk.HTTPHeaderDate, b.now().UTC().Format(dateFormat)))
		}
		err = c.run(opts)
		if err == nil && c.check != nil {
			err = c.check(x)
		}
	} else {
		err = fmt.Errorf("getting credentials: %w", err)
	}
	timer.Stop()
	if err == nil && c.keep {
		r.cancel = cancel
		return nil
	}
	if err != nil && parent.Err() == nil && errors.Is(context.Cause(ctx), errNoAnswer) {
		err = fmt.Errorf("%w: nothing for %s", errNoAnswer, limit.Round(time.Millisecond))
		// Other idle connections may be as dead as this one.
		b.transport.closeIdle()
	}
	cancel(nil)
	x.body.Wait()
	return err
}

// dateFormat is that of HTTP (http.TimeFormat), which the SDK puts into the signature as it is.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// setClock takes over the clock of OSS after it refused ours, and tells whether that can make a difference.
func (b *Bucket) setClock(x *exchange) bool {
	skew := b.skew(x)
	if skew == 0 {
		return false
	}
	before := b.offset.Swap(int64(-skew))
	if abs(time.Duration(before)+skew) < time.Minute {
		return false // it was set already and OSS is still not content
	}
	b.log.Warn("clock differs from that of oss, whose time is used for requests from now on", "ahead", skew.Round(time.Second))
	return true
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
