package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The key pair of the stand-in cloud. It opens nothing else.
const (
	accessKeyID     = "LTAI-stage"
	accessKeySecret = "stage-secret"
)

// Cloud is a running devcloud.
type Cloud struct {
	*Process
	OSS      string // URL
	Metadata string // URL
	env      []string
	stage    *Stage
}

// StartCloud starts the stand-in for OSS and the metadata service, on the data of an earlier one if there was one.
func (s *Stage) StartCloud(ctx context.Context) (*Cloud, error) {
	data := filepath.Join(s.Dir, "cloud")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	if err := s.hand(data); err != nil {
		return nil, err
	}
	c := &Cloud{OSS: "127.0.0.1:0", Metadata: "127.0.0.1:0", stage: s}
	err := c.Restart(ctx)
	return c, err
}

// Restart starts devcloud again where it was, after it has ended.
func (c *Cloud) Restart(ctx context.Context) error {
	data := filepath.Join(c.stage.Dir, "cloud")
	ready := filepath.Join(data, fmt.Sprintf("ready-%d.json", c.stage.next()))
	p, err := c.stage.Start("devcloud", c.stage.Command(filepath.Join(c.stage.bin, "devcloud"),
		"--oss-listen", strings.TrimPrefix(c.OSS, "http://"), "--metadata-listen", strings.TrimPrefix(c.Metadata, "http://"),
		"--data", filepath.Join(data, "objects"), "--access-key-id", accessKeyID, "--access-key-secret", accessKeySecret,
		"--region", Region, "--bucket", Bucket, "--ready-file", ready))
	if err != nil {
		return err
	}
	c.Process = p
	var at struct{ OSS, Metadata string }
	err = Until(ctx, "devcloud", func() (bool, error) {
		b, err := os.ReadFile(ready)
		if errors.Is(err, fs.ErrNotExist) && p.Running() {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("%w: %s", err, p.Tail(5))
		}
		return json.Unmarshal(b, &at) == nil, nil
	})
	c.OSS, c.Metadata = withScheme(at.OSS), withScheme(at.Metadata)
	return err
}

// Faults arms faults of OSS, given as JSON; without any all are taken away.
func (c *Cloud) Faults(ctx context.Context, faults ...string) error {
	_, err := c.Control(ctx, http.MethodPut, "faults", "["+strings.Join(faults, ",")+"]")
	return err
}

func withScheme(address string) string {
	if strings.Contains(address, "://") {
		return address
	}
	return "http://" + address
}

// Control turns one of devcloud's switches and returns the answer.
func (c *Cloud) Control(ctx context.Context, method, path, body string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.Metadata+"/control/"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	a, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return nil, fmt.Errorf("turning %s of devcloud: %w", path, err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode >= 300 {
		err = fmt.Errorf("turning %s of devcloud: %s: %s", path, a.Status, b)
	}
	return b, err
}

// Env is the environment with which outrider reaches the cloud.
func (c *Cloud) Env() []string {
	return append([]string{
		"OSS_ENDPOINT=" + c.OSS, "OSS_REGION=" + Region, "OSS_ACCESS_KEY_ID=" + accessKeyID, "OSS_ACCESS_KEY_SECRET=" + accessKeySecret,
		"OUTRIDER_METADATA_URL=" + c.Metadata,
	}, c.env...)
}

// With is the same cloud for an outrider with other or further variables.
func (c *Cloud) With(env ...string) *Cloud {
	other := *c
	other.env = env
	return &other
}

// Keys is the key pair that opens the bucket.
type Keys struct{ ID, Secret string }

// Keys are for clients other than outrider.
func (c *Cloud) Keys() Keys { return Keys{ID: accessKeyID, Secret: accessKeySecret} }
