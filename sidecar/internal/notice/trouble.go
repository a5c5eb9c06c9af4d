package notice

import (
	"log/slog"
	"time"
)

// logEvery bounds the lines about errors that repeat with each question.
const logEvery = time.Minute

// trouble writes few lines about many errors.
type trouble struct {
	log    *slog.Logger
	count  int // errors since the last line
	logged time.Time
	told   bool // a line says that there is trouble
}

func (t *trouble) failed(err error) {
	t.count++
	if !t.logged.IsZero() && time.Since(t.logged) < logEvery {
		return
	}
	t.log.Warn("it is unknown whether this instance is to be released", "error", err, "count", t.count)
	t.count, t.logged, t.told = 0, time.Now(), true
}

func (t *trouble) over() {
	if t.told {
		t.log.Info("recovered: the metadata service answers", "errors_since_logged", t.count)
		t.told = false
	}
}
