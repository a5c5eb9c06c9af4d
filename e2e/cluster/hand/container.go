package hand

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"outrider.dev/e2e/cluster"
)

// eagerProbe is how often a container that is not yet ready is asked, whatever its period: tests wait for it.
const eagerProbe = 200 * time.Millisecond

// nonRoot is the user of the project's images, which a pod need not name.
const nonRoot = 65532

// container is a container that has a process.
type container struct {
	pod     *pod
	spec    *corev1.Container
	program string
	root    string // the directory that the process takes for /

	mu       sync.Mutex
	process  *cluster.Process
	ready    bool
	restarts int32
	stopping bool
	last     string // why it does not run
}

func (c *container) current() *cluster.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// keepRunning starts the process, and again whenever it ends, until ctx does or the container is being stopped.
func (c *container) keepRunning(ctx context.Context) {
	for ctx.Err() == nil {
		process, err := c.start(ctx)
		switch {
		case err != nil:
			c.set(false, err.Error())
		case process == nil:
			return
		default:
			c.probe(ctx, process)
			if ctx.Err() != nil {
				return
			}
			c.set(false, fmt.Sprintf("ended: %v", process.Err()))
		}
		wait(ctx, restartDelay, nil)
		c.mu.Lock()
		c.restarts++
		c.mu.Unlock()
	}
}

// start starts the process. It returns nil for a container that is being stopped.
func (c *container) start(ctx context.Context) (*cluster.Process, error) {
	object, _ := c.pod.state()
	env, err := c.pod.environment(ctx, object, c.spec)
	if err != nil {
		return nil, err
	}
	args := append(append([]string{}, c.spec.Command...), c.spec.Args...)
	if len(c.spec.Command) > 0 {
		args = args[1:] // the program, by whatever path
	}
	for i := range args {
		args[i] = expand(args[i], env)
	}
	cmd := exec.Command("/"+filepath.Base(c.program), args...)
	cmd.Dir, cmd.Env = "/", env.list()
	user, group := userOf(object, c.spec)
	credential := &syscall.Credential{Uid: user, Gid: group}
	if s := object.Spec.SecurityContext; s != nil && s.FSGroup != nil {
		credential.Groups = []uint32{uint32(*s.FSGroup)}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Credential: credential}

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return nil, nil
	}
	log := filepath.Join(c.pod.kubelets.dir, fmt.Sprintf("%s_%s_%s.log", object.Namespace, object.Name, c.spec.Name))
	c.process, err = c.pod.space().Start(object.Name+"/"+c.spec.Name, cmd, log)
	return c.process, err
}

// set notes whether the container is ready, and lets the pod's goroutine report it.
func (c *container) set(ready bool, last string) {
	c.mu.Lock()
	changed := c.ready != ready || c.last != last
	c.ready, c.last = ready, last
	c.mu.Unlock()
	if changed {
		object, gone := c.pod.state()
		c.pod.tell(object, gone)
	}
}

// probe asks for readiness until the process has ended.
func (c *container) probe(ctx context.Context, process *cluster.Process) {
	probe := c.spec.ReadinessProbe
	if probe == nil {
		c.set(true, "")
	}
	failures, period := 0, eagerProbe
	for {
		timer := time.NewTimer(period)
		select {
		case <-ctx.Done():
		case <-process.Done():
		case <-timer.C:
		}
		timer.Stop()
		select {
		case <-process.Done():
			return
		default:
		}
		if ctx.Err() != nil {
			return
		}
		if probe == nil {
			continue
		}
		err := c.ask(ctx, probe)
		if err == nil {
			failures = 0
			c.set(true, "")
			period = time.Duration(max(1, probe.PeriodSeconds)) * time.Second
			continue
		}
		if failures++; failures >= int(max(1, probe.FailureThreshold)) {
			c.set(false, err.Error())
			period = eagerProbe
		}
	}
}

func (c *container) ask(ctx context.Context, probe *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(1, probe.TimeoutSeconds))*time.Second)
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return c.get(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", c.hostPort(probe.TCPSocket.Port))
		if err != nil {
			return err
		}
		return connection.Close()
	}
	return fmt.Errorf("readiness probe of container %s: only httpGet and tcpSocket are known here", c.spec.Name)
}

func (c *container) get(ctx context.Context, get *corev1.HTTPGetAction) error {
	url := strings.ToLower(string(get.Scheme)) + "://" + c.hostPort(get.Port) + "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	// A kubelet does not look at certificates either, and it asks anew each time.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("readiness probe: %s", response.Status)
	}
	return nil
}

// hostPort is the pod's address with a port that is a number or the name of one of the container's.
func (c *container) hostPort(port intstr.IntOrString) string {
	number := port.IntValue()
	for _, p := range c.spec.Ports {
		if port.Type == intstr.String && p.Name == port.StrVal {
			number = int(p.ContainerPort)
		}
	}
	return net.JoinHostPort(c.pod.address.String(), fmt.Sprint(number))
}

// stop asks the process to end, and kills it when its time is over or the pod's object is gone.
func (c *container) stop(ctx context.Context, gone func() bool, end time.Time) {
	c.mu.Lock()
	c.stopping = true
	process := c.process
	c.mu.Unlock()
	if process == nil {
		return
	}
	_ = process.Signal(syscall.SIGTERM) // if it cannot be asked it is killed below
	for time.Until(end) > 0 && ctx.Err() == nil && !gone() {
		timer := time.NewTimer(time.Until(end))
		select {
		case <-process.Done():
			timer.Stop()
			return
		case <-c.pod.changed:
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	_ = process.Kill() // clear tries again
}

// userOf is the user and group that a container's process runs as.
func userOf(object *corev1.Pod, spec *corev1.Container) (user, group uint32) {
	var ids [2]*int64
	asNonRoot := false
	if s := object.Spec.SecurityContext; s != nil {
		ids = [2]*int64{s.RunAsUser, s.RunAsGroup}
		asNonRoot = s.RunAsNonRoot != nil && *s.RunAsNonRoot
	}
	if s := spec.SecurityContext; s != nil {
		for i, id := range []*int64{s.RunAsUser, s.RunAsGroup} {
			if id != nil {
				ids[i] = id
			}
		}
		asNonRoot = asNonRoot || s.RunAsNonRoot != nil && *s.RunAsNonRoot
	}
	if asNonRoot {
		user, group = nonRoot, nonRoot
	}
	if ids[0] != nil {
		user = uint32(*ids[0])
	}
	if ids[1] != nil {
		group = uint32(*ids[1])
	}
	return user, group
}

// imageName is the last element of an image's repository.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	name, _, _ := strings.Cut(path.Base(image), ":")
	return name
}
