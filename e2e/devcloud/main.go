// Command devcloud is a stand-in for the parts of Alibaba Cloud that Outrider touches: OSS, the ECS metadata service
// and STS. It is for development and tests only.
//
//	devcloud --oss-listen 127.0.0.1:9000 --metadata-listen 127.0.0.1:9001 --data /tmp/cloud --bucket backups
//
// The metadata listener also has the switches under /control/: see package control.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

type options struct {
	ossListen, metadataListen, stsListen string
	data, region, domain                 string
	accessKeyID, accessKeySecret         string
	buckets, stsNames                    []string
	noSync, debug                        bool
	readyFile, stsCAFile, role           string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "devcloud:", err)
		}
		stop()
		os.Exit(1)
	}
	stop()
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt, err := parse(args, stderr)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if opt.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(stdout, &slog.HandlerOptions{Level: level}))
	c, err := open(opt, log)
	if err != nil {
		return err
	}
	addresses, err := c.listen(ctx, opt)
	if err != nil {
		return errors.Join(err, c.shutdown())
	}
	log.Info("listening", "oss", addresses.OSS, "metadata", addresses.Metadata, "sts", addresses.STS)
	if err := writeReadyFile(opt.readyFile, addresses); err != nil {
		return errors.Join(err, c.shutdown())
	}
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case err = <-c.failed:
	}
	return errors.Join(err, c.shutdown())
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("devcloud", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.ossListen, "oss-listen", "127.0.0.1:9000", "`address` of OSS; port 0 takes a free one")
	f.StringVar(&o.metadataListen, "metadata-listen", "127.0.0.1:9001", "`address` of the metadata service, /sts/ and /control/")
	f.StringVar(&o.stsListen, "sts-listen", "", "`address` of STS over https with a certificate made at the start; off if empty")
	f.StringVar(&o.stsCAFile, "sts-ca-file", "", "`file` to write that certificate to, for SSL_CERT_FILE of clients")
	f.Func("sts-name", "host `name` or address in that certificate besides 127.0.0.1 and localhost; repeatable", appendTo(&o.stsNames))
	f.StringVar(&o.data, "data", "", "`directory` to keep everything in; required")
	f.StringVar(&o.accessKeyID, "access-key-id", "devcloud", "`id` of the access key that may do everything")
	f.StringVar(&o.accessKeySecret, "access-key-secret", "devcloud-secret", "`secret` of that key")
	f.StringVar(&o.region, "region", "cn-hangzhou", "`region` that signatures have to name")
	f.StringVar(&o.domain, "domain", "oss.test", "`name` below which bucket names are host names; everything else is path style")
	f.Func("bucket", "`name` of a bucket, created if missing; repeatable", appendTo(&o.buckets))
	f.StringVar(&o.role, "role", "", "`name` of the instance's RAM role")
	f.BoolVar(&o.noSync, "no-sync", false, "skip fsync: faster, and durable against the end of the process only")
	f.BoolVar(&o.debug, "debug", false, "log each request")
	f.StringVar(&o.readyFile, "ready-file", "", "`file` to write the addresses to as JSON once all are listening")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.data == "":
		return o, errors.New("--data is required")
	case o.accessKeyID == "" || o.accessKeySecret == "":
		return o, errors.New("--access-key-id and --access-key-secret cannot be empty")
	case o.stsCAFile != "" && o.stsListen == "":
		return o, errors.New("--sts-ca-file needs --sts-listen")
	}
	return o, nil
}

func appendTo(list *[]string) func(string) error {
	return func(v string) error {
		if strings.TrimSpace(v) == "" {
			return errors.New("empty")
		}
		*list = append(*list, v)
		return nil
	}
}

// addresses is the content of the ready file: URLs, and host:port for STS.
type addresses struct {
	OSS      string `json:"oss"`
	Metadata string `json:"metadata"`
	STS      string `json:"sts,omitempty"`
}

func writeReadyFile(path string, a addresses) error {
	if path == "" {
		return nil
	}
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}
