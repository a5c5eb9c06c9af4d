package cluster

import (
	"maps"
	"os"
	"path/filepath"
)

// podsRange holds the ranges of all nodes' pods.
const podsRange = "10.203.0.0/16"

// clusterDNS is where pods ask for names.
const clusterDNS = worldAddress

// object is a configuration file.
type object = map[string]any

// prepare writes the node's configuration and credentials.
func (n *Node) prepare() error {
	if err := os.MkdirAll(filepath.Join(n.dir, "pods"), 0o755); err != nil {
		return err
	}
	if err := makeCgroup(n.cgroup); err != nil {
		return err
	}
	if n.spec.Disk != "" {
		if err := os.MkdirAll(n.spec.Disk, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(n.spec.Disk, filepath.Join(n.dir, "disk")); err != nil {
			return err
		}
	}
	if err := os.Symlink(string(n.cluster.binaries), filepath.Join(n.dir, "programs")); err != nil {
		return err
	}
	serving, err := n.cluster.authority.issue("system:node:"+n.Name, []string{"system:nodes"}, []string{n.Name, n.Address.String()})
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt": n.cluster.authority.certificate, "kubelet.crt": serving.certificate, "kubelet.key": serving.key,
		"resolv.conf": []byte("nameserver " + clusterDNS + "\n"), "containerd.toml": []byte(containerdSettings),
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), content, 0o600); err != nil {
			return err
		}
	}
	if err := n.cluster.WriteKubeconfig(filepath.Join(n.dir, "kubelet.kubeconfig"), "system:node:"+n.Name, "system:nodes"); err != nil {
		return err
	}
	if err := n.cluster.WriteKubeconfig(filepath.Join(n.dir, "kube-proxy.kubeconfig"), "system:kube-proxy"); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(n.dir, "cni"), 0o755); err != nil {
		return err
	}
	if err := n.writeJSON("cni/pods.conflist", n.cniSettings()); err != nil {
		return err
	}
	return n.writeJSON("kube-proxy.json", n.proxySettings())
}

// containerdSettings: without CAP_SYS_RESOURCE, which is missing on some machines, runc cannot lower the score for the
// out-of-memory killer and dies of it, hence restrict_oom_score_adj.
const containerdSettings = `
version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
disabled_plugins = ['io.containerd.internal.v1.opt', 'io.containerd.nri.v1.nri', 'io.containerd.tracing.processor.v1.otlp', 'io.containerd.internal.v1.tracing']

[grpc]
address = '/run/containerd/containerd.sock'

[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '` + PauseImage + `'

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni']
conf_dir = '` + insideDir + `/cni'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
`

// cniSettings give each pod a link of its own to the node, which routes all of its packets. With a bridge, answers between
// two pods of a node would pass by what a Service's address was translated to.
func (n *Node) cniSettings() object {
	return object{
		"cniVersion": "1.0.0", "name": "pods",
		"plugins": []object{
			{
				"type": "ptp", "ipMasq": false,
				"ipam": object{
					"type": "host-local", "dataDir": "/var/lib/cni/networks",
					"ranges": [][]object{{{"subnet": n.PodRange.String()}}}, "routes": []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}
}

func (n *Node) proxySettings() object {
	return object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"clientConnection":   object{"kubeconfig": insideDir + "/kube-proxy.kubeconfig"},
		"mode":               "nftables",
		"clusterCIDR":        podsRange,
		"hostnameOverride":   n.Name,
		"healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
		"oomScoreAdj": 0,
		// These are the host's.
		"conntrack": object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	}
}

// kubeletSettings: the node speaks up often, because tests wait for its silence to be noticed.
func (n *Node) kubeletSettings() object {
	settings := object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": n.Address.String(), "readOnlyPort": 0,
		"tlsCertFile": insideDir + "/kubelet.crt", "tlsPrivateKeyFile": insideDir + "/kubelet.key",
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}, "x509": object{"clientCAFile": insideDir + "/ca.crt"},
		},
		"authorization":            object{"mode": "Webhook"},
		"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
		"clusterDNS":               []string{clusterDNS}, "clusterDomain": "cluster.local", "resolvConf": insideDir + "/resolv.conf",
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/" + n.cgroup, "enforceNodeAllocatable": []string{},
		"failCgroupV1": false, "failSwapOn": false, "oomScoreAdj": 0,
		"volumePluginDir": "/run/volume-plugins", "providerID": n.spec.ProviderID,
		"nodeStatusUpdateFrequency": "5s", "nodeLeaseDurationSeconds": 12, "volumeStatsAggPeriod": "10s",
		// What was imported cannot be pulled again.
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
		"evictionHard": object{
			"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.inodesFree": "1%",
		},
		"evictionPressureTransitionPeriod": "10s",
		"logging":                          object{"verbosity": 2},
	}
	if len(n.spec.Taints) > 0 {
		settings["registerWithTaints"] = n.spec.Taints
	}
	maps.Copy(settings, n.settings)
	return settings
}

// cgroup is below which all nodes have their control groups, relative to the top of each hierarchy.
func (c *Cluster) cgroup() string {
	return cgroupPrefix + os.Getenv(insideVariable)
}
