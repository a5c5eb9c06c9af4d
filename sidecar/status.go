package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func newStatusCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What is protected right now",
		Long:  "Asks the `outrider run` of this machine or pod how things stand. What the archive holds is told by `outrider list`.",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
	a.envFlag(cmd.Flags(), "listen", envListen, ":9850", "address on which `outrider run` answers")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) status(ctx context.Context) error {
	r, err := askStatus(ctx, a.setting(envListen))
	if err != nil {
		return err
	}
	if err := a.show(r, r.text); err != nil {
		return err
	}
	if r.State == stateSuperseded {
		return coded{errors.New(r.Reason), errSupersededStatus}
	}
	return nil
}

// askStatus asks the sidecar that listens on address.
func askStatus(ctx context.Context, address string) (statusReport, error) {
	var r statusReport
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return r, usagef("--listen %q: %w", address, err)
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/status"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return r, usagef("--listen %q: %w", address, err)
	}
	client := &http.Client{Timeout: 5 * time.Second}
	answer, err := client.Do(req)
	if err != nil {
		return r, coded{fmt.Errorf("asking outrider run: %w: is it running, and does it listen there?", err), errNothing}
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&r); err != nil {
		return r, fmt.Errorf("reading the answer of %s: %w: is it outrider that listens there?", url, err)
	}
	return r, nil
}

func (r statusReport) text(w io.Writer) {
	row(w, "state", r.State+detail(r.Reason))
	row(w, "since", timeText(r.Since))
	if r.NotProtectedSince != nil {
		row(w, "NOT PROTECTED since", timeText(*r.NotProtectedSince))
	}
	row(w, "archive", r.Archive)
	row(w, "epoch, timeline", fmt.Sprintf("%d, %d", r.Epoch, r.Timeline))
	if r.Durable != nil && r.Flushed != nil {
		row(w, "durable up to", fmt.Sprintf("%s of %s", *r.Durable, *r.Flushed))
	}
	if r.UnshippedBytes != nil {
		row(w, "unshipped", fmt.Sprintf("%d bytes", *r.UnshippedBytes))
	}
	if r.AsyncBytes != nil {
		row(w, "not flushed by Postgres", fmt.Sprintf("%d bytes", *r.AsyncBytes))
	}
	if r.AgeSeconds != nil {
		row(w, "oldest unshipped commit", fmt.Sprintf("at most %.3f s old", *r.AgeSeconds))
	}
	if r.Trouble != "" {
		row(w, "trouble", fmt.Sprintf("%s (since %s)", r.Trouble, timeText(*r.TroubleSince)))
	}
	if r.RecoverableFrom != nil {
		row(w, "can be restored", "every moment since "+timeText(*r.RecoverableFrom))
	}
	if r.PredictedRestore != nil {
		row(w, "a restore would take", fmt.Sprintf("about %.0f s, until the first write", *r.PredictedRestore))
	}
	r.Drills.text(w)
	r.Store.text(w)
	if h := r.Holdings; h != nil {
		row(w, "in the archive", fmt.Sprintf("%s in %d objects", bytesText(h.Bytes), h.Objects))
	}
	if s := r.LastSnapshot; s != nil {
		row(w, "last snapshot", fmt.Sprintf("%s, taken %s, %s stored", s.Name, timeText(s.Taken), bytesText(s.Stored)))
	}
	if s := r.SnapshotRunning; s != nil {
		row(w, "snapshot running", fmt.Sprintf("%s of %s", bytesText(s.Done), bytesText(s.Total)))
	}
	if r.SnapshotTrouble != "" {
		row(w, "snapshot trouble", r.SnapshotTrouble)
	}
	for _, text := range r.Warnings {
		row(w, "warning", text)
	}
	if r.Notice != nil {
		row(w, "termination notice", "the machine is released at "+timeText(r.Notice.At))
	}
}

func detail(reason string) protection {
	if reason == "" {
		return ""
	}
	return protection(": " + reason)
}
