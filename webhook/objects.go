package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"outrider.dev/webhook/internal/inject"
)

// object is one document of a file: something that is or makes pods, or a namespace.
type object struct {
	kind, namespace, name string
	annotations           map[string]string // of a namespace, never nil there
	pod                   *corev1.Pod       // as it would be sent to the webhook
	decide                func(inject.Input) (inject.Decision, error)
}

// parse reads the documents of a file. Kinds without pods are passed over; pods that other kinds make, and fields that
// are misspelt, are errors, because the answer would be wrong.
func parse(raw []byte, namespace string) ([]object, error) {
	var objects []object
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("splitting it into documents: %w", err)
		}
		found, err := parseDocument(doc, namespace)
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	if len(objects) == 0 {
		return nil, errors.New("there is no Pod, StatefulSet, Deployment, Job or CronJob in it")
	}
	return objects, nil
}

func parseDocument(doc []byte, namespace string) ([]object, error) {
	var head struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Items             []any `json:"items"`
	}
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return nil, err
	}
	o := object{kind: head.Kind, name: head.Name, namespace: head.Namespace}
	if o.name == "" {
		o.name = head.GenerateName
	}
	if o.namespace == "" {
		o.namespace = namespace
	}
	var err error
	switch head.Kind {
	case "List":
		return parseItems(head.Items, namespace)
	case "Namespace":
		if o.annotations = head.Annotations; o.annotations == nil {
			o.annotations = map[string]string{}
		}
	case "Pod":
		o.pod = &corev1.Pod{}
		err = yaml.UnmarshalStrict(doc, o.pod)
		o.decide = func(in inject.Input) (inject.Decision, error) { return inject.Pod(o.pod, in) }
	case "StatefulSet":
		var s appsv1.StatefulSet
		err = yaml.UnmarshalStrict(doc, &s)
		o.pod = inject.StatefulSetPod(&s)
		o.decide = func(in inject.Input) (inject.Decision, error) { return inject.StatefulSet(&s, in) }
	case "Deployment":
		var d appsv1.Deployment
		err = yaml.UnmarshalStrict(doc, &d)
		o.pod = inject.DeploymentPod(&d)
		o.decide = func(in inject.Input) (inject.Decision, error) { return inject.Deployment(&d, in) }
	case "Job":
		var j batchv1.Job
		err = yaml.UnmarshalStrict(doc, &j)
		o.ofJob(&j)
	case "CronJob":
		var c batchv1.CronJob
		err = yaml.UnmarshalStrict(doc, &c)
		o.ofJob(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: c.Name + "-0", Namespace: c.Namespace}, Spec: c.Spec.JobTemplate.Spec})
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", head.Kind, o.name, err)
	}
	return []object{o}, nil
}

// ofJob is about the pods of a Job, which are left alone unless they hold a restore drill.
func (o *object) ofJob(j *batchv1.Job) {
	o.pod = inject.PodOfJob(j)
	o.decide = func(in inject.Input) (inject.Decision, error) { return inject.Pod(o.pod, in) }
}

func parseItems(items []any, namespace string) (objects []object, err error) {
	for _, item := range items {
		doc, err := yaml.Marshal(item)
		if err != nil {
			return nil, err
		}
		found, err := parseDocument(doc, namespace)
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	return objects, nil
}
