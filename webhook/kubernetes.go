package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// connection is how the API server is reached: as the pod's service account, or by a kubeconfig.
func connection(kubeconfig string) (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%w: reaching the API server: %w; outside of a pod name a --kubeconfig", errUsage, err)
	}
	c.UserAgent = "outrider-webhook/" + strings.ReplaceAll(version(), " ", "_")
	// The API server has its own priority and fairness. A limit here would delay admissions.
	c.QPS = -1
	return c, nil
}

// oldestMinor is the first Kubernetes whose native sidecars are on by default. An older API server drops the field
// restartPolicy from our container, and the pod would wait for it for ever in its initialisation.
const oldestMinor = 29

// errTooOld is final; asking again does not help.
var errTooOld = errors.New("too old")

func checkVersion(v *apiversion.Info) error {
	major, err1 := strconv.Atoi(v.Major)
	minor, err2 := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("reading the version of the API server, %q.%q: %w", v.Major, v.Minor, err)
	}
	if major == 1 && minor < oldestMinor {
		return fmt.Errorf("the API server is %s, %w for native sidecars: Outrider needs Kubernetes 1.%d or later", v.GitVersion, errTooOld, oldestMinor)
	}
	return nil
}

// identify asks what has to be known before the first admission: that the API server is new enough, and the uid of
// kube-system, which names this Kubernetes cluster in the archives.
func identify(ctx context.Context, client kubernetes.Interface) (string, error) {
	v, err := client.Discovery().ServerVersion()
	if err != nil {
		return "", fmt.Errorf("asking the API server for its version: %w", err)
	}
	if err := checkVersion(v); err != nil {
		return "", err
	}
	ns, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for the uid of the namespace %s, which names this cluster: %w", metav1.NamespaceSystem, err)
	}
	return string(ns.UID), nil
}

// How long to ask for what has to be known. The kubelet starts the program again after that.
const (
	identifyFor   = 30 * time.Second
	identifyEvery = time.Second
)

// identifyPatiently asks again while the API server does not answer. It returns the error of ctx if that ends.
func identifyPatiently(outer context.Context, client kubernetes.Interface, log *slog.Logger) (string, error) {
	ctx, cancel := context.WithTimeout(outer, identifyFor)
	defer cancel()
	for {
		uid, err := identify(ctx, client)
		if err == nil || errors.Is(err, errTooOld) {
			return uid, err
		}
		log.WarnContext(ctx, "the API server does not answer; asking again", "error", err)
		t := time.NewTimer(identifyEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return "", cmp.Or(outer.Err(), err)
		case <-t.C:
		}
	}
}
