package hand

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// leaseRenewal is a kubelet's: a quarter of the time after which a node is taken for lost.
const leaseRenewal = 10 * time.Second

// AddNode makes a node that is ready and large, and keeps it so. Name, labels, taints and provider id are the caller's.
// It returns when the scheduler may use it.
func (k *Kubelets) AddNode(ctx context.Context, node *corev1.Node) error {
	name := node.Name
	k.mu.Lock()
	k.nodes[name] = true
	count := len(k.nodes)
	k.mu.Unlock()
	node = node.DeepCopy()
	metav1.SetMetaDataLabel(&node.ObjectMeta, corev1.LabelHostname, name)
	created, err := k.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("making node %s: %w", name, err)
	}
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error { // controllers write to it as well
		if created, err = k.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		fillNode(created, count)
		_, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("making node %s ready: %w", name, err)
	}
	// The admission chain taints a new node as not ready, and only a controller would lift that, some seconds later.
	taints, err := json.Marshal(map[string]any{"spec": map[string]any{"taints": node.Spec.Taints}})
	if err != nil {
		return err
	}
	if _, err := k.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, taints, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("lifting the first taint of node %s: %w", name, err)
	}
	return k.startLease(ctx, created)
}

// fillNode writes the status of the count-th node.
func fillNode(node *corev1.Node, count int) {
	now := metav1.Now()
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now,
	}}
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.200.1.%d", count)}, {Type: corev1.NodeHostName, Address: node.Name},
	}
	node.Status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"), corev1.ResourcePods: resource.MustParse("500"),
	}
	node.Status.Allocatable = node.Status.Capacity
	node.Status.NodeInfo.BootID = string(node.UID)
	node.Status.NodeInfo.KubeletVersion = "v1.37.2"
}

// startLease shows the node's controller that the kubelet lives, until Stop.
func (k *Kubelets) startLease(ctx context.Context, node *corev1.Node) error {
	leases := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	seconds, now := int32(40), metav1.NowMicro()
	lease, err := leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name:            node.Name,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &node.Name, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("making the lease of node %s: %w", node.Name, err)
	}
	k.running.Go(func() {
		for {
			select {
			case <-k.done:
				return
			case <-time.After(leaseRenewal):
			}
			now := metav1.NowMicro()
			lease.Spec.RenewTime = &now
			// A node that was deleted has no lease any more. What else goes wrong, the next round repeats.
			renewed, err := leases.Update(context.WithoutCancel(ctx), lease, metav1.UpdateOptions{})
			if err == nil {
				lease = renewed
			}
		}
	})
	return nil
}
