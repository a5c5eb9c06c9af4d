// Package page draws how things stand for a person with a browser: one struct in, one HTML document out. The document
// needs nothing from anywhere else. Its style and its script are in it, and its Content-Security-Policy allows those two
// by their hashes and nothing besides, so that no text that found its way into a reason or a journal can become more
// than text. Without the script the document is complete; the script asks for it again every few seconds.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"time"
)

// Status is what the page tells. Pointers that are nil, and texts that are empty, are not known and said to be so.
type Status struct {
	Now               time.Time // ages on the page are as of this moment
	State             string    // as in the JSON of /status
	Reason            string    // why, and what is to be done
	Since             time.Time
	NotProtectedSince *time.Time // nil while there is a way back
	Troubles          []Trouble
	Release           *time.Time // of the machine, if its end was announced

	Age    *time.Duration // upper bound for the age of the oldest commit that is not durable in the archive
	Ages   []Sample       // the same of late, oldest first
	Span   time.Duration  // that Ages may cover
	Step   time.Duration  // between two of Ages
	Target time.Duration  // for Age: the policy's rpo

	Restore       *time.Duration // predicted, from its start to the first write
	RestoreTarget time.Duration  // the policy's rto
	Restored      *Restored      // what the running server came out of
	Drill         *Drill         // nil where none are expected

	From      *time.Time // begin of the recovery window
	Retention time.Duration
	Known     bool       // whether Snapshots are; there may be none
	Snapshots []Snapshot // that a restore could begin with, oldest first
	Running   *Progress  // of the snapshot that is being taken

	Journal []Entry // oldest first

	Archive, SystemID, Version string
	Epoch                      uint64 // 0: none yet
	EpochConfirmed             *time.Time
	Timeline                   uint32 // 0: not known
	Durable, Flushed, Inserted string // positions in WAL
	Unshipped, NotFlushed      *int64 // bytes
	Backlog, DiskFree          *int64 // bytes
	DiskFull                   *time.Duration
	Holdings                   []Holding // what lies in the archive
	StopPhases                 []Phase
}

// Trouble is something that does not work at the moment.
type Trouble struct {
	What, Why string
	Since     time.Time // zero: not known
}

// Sample is the age of unshipped WAL at a moment.
type Sample struct {
	At  time.Time
	Age *time.Duration // nil: not known
}

// Restored is a restore that is over.
type Restored struct {
	Snapshot          string
	Started, Finished time.Time
}

// Drill is the last restore drill that was passed.
type Drill struct {
	Passed   *time.Time // nil: none was yet
	LSN      string     // up to which it replayed
	Answered time.Duration
}

// Snapshot is one that a restore could begin with.
type Snapshot struct {
	Name   string
	Taken  time.Time
	Stored int64 // bytes; 0: not known
	Delta  bool  // it holds only what changed since an earlier one
}

// Progress is how far something has come, in bytes.
type Progress struct {
	Since       time.Time
	Done, Total int64 // a Total of 0 is not known
}

// Entry is one of the journal.
type Entry struct {
	Time  time.Time
	Event string
	Attrs []Attr
}

// Attr says more about an entry.
type Attr struct{ Key, Value string }

// Holding is what lies in the archive of a kind and storage class.
type Holding struct {
	Kind, Class    string
	Objects, Bytes int64
}

// Phase is how long a part of the stop took.
type Phase struct {
	Name string
	Took time.Duration
}

//go:embed page.html.tmpl
var document string

//go:embed page.css
var style string

//go:embed page.js
var script string

// Page draws. It is safe for concurrent use.
type Page struct {
	t      *template.Template
	policy string
}

// New reads the template.
func New() *Page {
	return &Page{
		t: template.Must(template.New("page").Parse(document)),
		policy: "default-src 'none'; style-src " + hash(style) + "; script-src " + hash(script) +
			"; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
}

// Policy is the Content-Security-Policy that the document is to be sent with.
func (p *Page) Policy() string { return p.policy }

// Render writes the document, all of it or nothing.
func (p *Page) Render(w io.Writer, s Status) error {
	var b bytes.Buffer
	v := see(s)
	v.Style, v.Script = template.CSS(style), template.JS(script) // our own files
	if err := p.t.Execute(&b, v); err != nil {
		return err
	}
	_, err := b.WriteTo(w)
	return err
}

// hash is a source of CSP: https://www.w3.org/TR/CSP3/#grammardef-hash-source.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
