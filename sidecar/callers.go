package main

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// callers are the connections to the port, which is open to the pod network. There may be so many that they cost the
// memory of the database beside. Where there are too many another one is closed, and the newest is let in: a kubelet
// that had to wait for its turn would take the database out of its Service.
type callers struct {
	most int

	mu   sync.Mutex
	open map[net.Conn]*caller
}

type caller struct {
	host  string
	busy  bool      // a request is being read or answered
	since time.Time // when that changed last
	end   context.CancelFunc
}

// mostCallers are a kubelet's, a few scrapers', and those of people who look at the status.
const mostCallers = 32

// begin is a ConnContext: what is done for a connection ends with it.
func (c *callers) begin(ctx context.Context, conn net.Conn) context.Context {
	ctx, end := context.WithCancel(ctx)
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		host = conn.RemoteAddr().String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.most {
		c.close(c.leastMissed(host))
	}
	if c.open == nil {
		c.open = map[net.Conn]*caller{}
	}
	c.open[conn] = &caller{host: host, since: time.Now(), end: end}
	return ctx
}

// changed is a ConnState.
func (c *callers) changed(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.open[conn]
	switch {
	case x == nil:
	case s == http.StateClosed || s == http.StateHijacked:
		x.end()
		delete(c.open, conn)
	case s != http.StateNew:
		x.busy, x.since = s == http.StateActive, time.Now()
	}
}

// leastMissed is a connection of the host with the most of them, counting one that newcomer is about to have: who fills
// the port pays for it. Of those it is one that is idle, and of these the one that has been so for longest.
func (c *callers) leastMissed(newcomer string) net.Conn {
	of := map[string]int{newcomer: 1}
	for _, x := range c.open {
		of[x.host]++
	}
	var conn net.Conn
	for k, x := range c.open {
		if conn == nil || x.beforeIn(of, c.open[conn]) {
			conn = k
		}
	}
	return conn
}

func (x *caller) beforeIn(of map[string]int, y *caller) bool {
	switch {
	case of[x.host] != of[y.host]:
		return of[x.host] > of[y.host]
	case x.busy != y.busy:
		return !x.busy
	}
	return x.since.Before(y.since)
}

func (c *callers) close(conn net.Conn) {
	x := c.open[conn]
	delete(c.open, conn)
	x.end()
	_ = conn.Close() // its own goroutine finds out
}

// foreign tells whether a browser asks on behalf of a page that is not ours: such a page need not be able to read the
// answer for a request to do something. No kubelet sends these headers.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}
