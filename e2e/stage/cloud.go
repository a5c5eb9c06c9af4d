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
	ready := filepath.Join(data, fmt.Sprintf("ready-%d.json", s.next()))
	p, err := s.Start("devcloud", s.Command(filepath.Join(s.bin, "devcloud"), "--oss-listen", "127.0.0.1:0",
		"--metadata-listen", "127.0.0.1:0", "--data", filepath.Join(data, "objects"), "--access-key-id", accessKeyID,
		"--access-key-secret", accessKeySecret, "--region", Region, "--bucket", Bucket, "--ready-file", ready))
	if err != nil {
		return nil, err
	}
	c := &Cloud{Process: p, stage: s}
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
	return c, err
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
	a, err := http.DefaultClient.Do(r)
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
	return []string{
		"OSS_ENDPOINT=" + c.OSS, "OSS_REGION=" + Region, "OSS_ACCESS_KEY_ID=" + accessKeyID, "OSS_ACCESS_KEY_SECRET=" + accessKeySecret,
		"OUTRIDER_METADATA_URL=" + c.Metadata,
	}
}

// Keys is the key pair that opens the bucket.
type Keys struct{ ID, Secret string }

// Keys are for clients other than outrider.
func (c *Cloud) Keys() Keys { return Keys{ID: accessKeyID, Secret: accessKeySecret} }
