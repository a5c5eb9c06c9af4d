package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"outrider.dev/e2e/devcloud/devtest"
)

// beOutrider makes the test binary run as the program itself.
const beOutrider = "OUTRIDER_TEST_BE_OUTRIDER"

func TestMain(m *testing.M) {
	if os.Getenv(beOutrider) != "" {
		main()
	}
	os.Exit(m.Run())
}

// outcomeOf is what a run of the program left behind.
type outcomeOf struct {
	code           exitCode
	stdout, stderr string
}

// shell runs the program with an environment of its own.
type shell struct {
	env []string
}

// shellFor has everything that is needed to reach a root of the cloud's bucket.
func shellFor(c *devtest.Cloud, root string) shell {
	return shell{env: []string{
		"OUTRIDER_ARCHIVE=oss://" + c.Bucket + "/" + root, "OSS_ENDPOINT=" + c.Endpoint, "OSS_REGION=" + c.Region,
		"OSS_ACCESS_KEY_ID=" + c.AccessKeyID, "OSS_ACCESS_KEY_SECRET=" + c.AccessKeySecret,
	}}
}

// with is the same shell with further variables, which win.
func (s shell) with(env ...string) shell {
	return shell{env: append(append([]string{}, s.env...), env...)}
}

func (s shell) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append([]string{beOutrider + "=1", "PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=1"}, s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C of whoever runs the tests is not for it
	return cmd
}

func (s shell) run(t *testing.T, args ...string) outcomeOf {
	t.Helper()
	cmd := s.command(t, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcomeOf{code: exitCode(cmd.ProcessState.ExitCode()), stdout: stdout.String(), stderr: stderr.String()}
}

// says fails the test unless the program ended with a code, and its words are among those on stderr.
func (o outcomeOf) says(t *testing.T, code exitCode, words ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", o.code, code, o.stdout, o.stderr)
	}
	for _, w := range words {
		if !strings.Contains(o.stderr, w) {
			t.Errorf("stderr does not say %q:\n%s", w, o.stderr)
		}
	}
	if strings.Contains(o.stderr, "Usage:") {
		t.Errorf("an error is answered with the usage text:\n%s", o.stderr)
	}
}
