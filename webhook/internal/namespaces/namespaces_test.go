package namespaces

import (
	"context"
	"errors"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// counted is a Getter over a map that counts.
func counted(known map[string]map[string]string, err error, calls *int) Getter {
	return func(_ context.Context, name string) (*corev1.Namespace, error) {
		*calls++
		if err != nil {
			return nil, err
		}
		a, ok := known[name]
		if !ok {
			return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, name)
		}
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: a}}, nil
	}
}

// The API server is asked once where the informer may be behind, and never otherwise.
func TestLiveOnlyWhereTheInformerMayBeBehind(t *testing.T) {
	archive := map[string]string{"outrider.dev/archive": "oss://a/b"}
	for name, c := range map[string]struct {
		cached, live map[string]map[string]string
		asked        int
		want         map[string]string
	}{
		"known":                      {map[string]map[string]string{"shop": archive}, nil, 0, archive},
		"made a moment ago":          {nil, map[string]map[string]string{"shop": archive}, 1, archive},
		"annotated a moment ago":     {map[string]map[string]string{"shop": {"x": "y"}}, map[string]map[string]string{"shop": archive}, 1, archive},
		"archive is somewhere else":  {map[string]map[string]string{"shop": {"x": "y"}}, map[string]map[string]string{"shop": {"x": "y"}}, 1, map[string]string{"x": "y"}},
		"archive was just taken out": {map[string]map[string]string{"shop": nil}, map[string]map[string]string{"shop": nil}, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var cached, live int
			got, err := Reader{Cached: counted(c.cached, nil, &cached), Live: counted(c.live, nil, &live)}.Annotations(t.Context(), "shop")
			if err != nil || !maps.Equal(got, c.want) {
				t.Errorf("%v, %v", got, err)
			}
			if cached != 1 || live != c.asked {
				t.Errorf("the informer was asked %d times, the API server %d times", cached, live)
			}
		})
	}
}

// Not knowing is an error, never "no annotations": the pod would be refused for a reason that is not true, or go to the
// archive of the configuration instead of its own.
func TestNotKnowingIsAnError(t *testing.T) {
	away := errors.New("no route to host")
	for name, c := range map[string]struct{ cached, live error }{
		"the API server is away": {nil, away},
		"the informer is broken": {away, nil},
		"it does not exist":      {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var n int
			got, err := Reader{Cached: counted(nil, c.cached, &n), Live: counted(nil, c.live, &n)}.Annotations(t.Context(), "shop")
			if err == nil {
				t.Errorf("it answers %v", got)
			}
		})
	}
}
