package kubectl

import (
	"errors"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	noon   = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	before = noon.Add(-time.Hour)
)

// reporting is a database in good order, but for what changes, whose sidecar has answered.
func reporting(t *testing.T, r *Report, changes ...func(*corev1.Pod)) Database {
	t.Helper()
	pod := guarded(t, "orders-0", ended(0, ""), running)
	for _, change := range changes {
		change(pod)
	}
	d := one(t, shop, pod)
	d.told(r, nil)
	return d
}

// answer is that of a sidecar with nothing to complain of, but for what changes.
func answer(changes ...func(*Report)) *Report {
	r := &Report{
		State: "protected", Store: &Store{ProvenAt: &before, Versioning: "never", ClockAhead: new(0.4)},
		Slot: &Slot{Status: "reserved", WALLevel: "replica", MaxSlots: 10, MaxKeep: -1},
	}
	for _, change := range changes {
		change(r)
	}
	return r
}

func TestWhatSidecarsDependOn(t *testing.T) {
	for name, test := range map[string]struct {
		report  *Report
		outcome Outcome
		text    string
	}{
		"bucket":              {answer(), OK, "never had versioning"},
		"may not ask":         {answer(func(r *Report) { r.Store.Versioning = "" }), OK, "may not ask for that"},
		"keeps versions":      {answer(func(r *Report) { r.State, r.Store = "not_protected", &Store{Versioning: "suspended"} }), Failed, "is suspended"},
		"not proven":          {answer(func(r *Report) { r.State, r.Store.ProvenAt = "waiting", nil }), Unknown, "not proven yet"},
		"an old sidecar":      {answer(func(r *Report) { r.Store, r.Slot, r.Version = nil, nil, "v0.1.0" }), Unknown, "version v0.1.0, does not say"},
		"clock":               {answer(), OK, "the clock of its node agrees"},
		"clock ahead":         {answer(func(r *Report) { r.Store.ClockAhead = new(200.0) }), Warning, "3m20s ahead of the store's"},
		"clock far behind":    {answer(func(r *Report) { r.Store.ClockAhead = new(-3600.0) }), Failed, "1h0m0s behind the store's, which refuses"},
		"slot":                {answer(), OK, "slot is reserved, with wal_level replica"},
		"slot bounded":        {answer(func(r *Report) { r.Slot.MaxKeep = 1 << 30 }), Warning, "max_slot_wal_keep_size is 1Gi"},
		"slot bounded by 0":   {answer(func(r *Report) { r.Slot.MaxKeep = 0 }), Warning, "max_slot_wal_keep_size is 0"},
		"slot idles":          {answer(func(r *Report) { r.Slot.IdleTimeout = 60 }), Warning, "idle_replication_slot_timeout is 1m"},
		"slot idles for days": {answer(func(r *Report) { r.Slot.IdleTimeout = 86400 }), OK, "slot is reserved"},
		"slot going":          {answer(func(r *Report) { r.Slot.Status = "unreserved" }), Failed, "is unreserved"},
		"minimal":             {answer(func(r *Report) { r.Slot.WALLevel = "minimal" }), Failed, "wal_level is minimal"},
		"no slot":             {answer(func(r *Report) { r.Slot = nil }), Unknown, "replication slot could not be told"},
		"drill passed":        {answer(func(r *Report) { r.Drills = drills(true, noon.Add(time.Hour)) }), OK, "passed at 2026-11-20T11:00:00Z, up to 0/3000148"},
		"drill failed":        {answer(func(r *Report) { r.Drills = drills(false, noon.Add(time.Hour)) }), Failed, "was not passed: a flipped bit"},
		"drill overdue":       {answer(func(r *Report) { r.Drills = drills(true, before) }), Warning, "was due at"},
		"drill expected":      {answer(func(r *Report) { r.Drills = &Drills{Due: noon.Add(time.Hour)} }), OK, "is due by"},
	} {
		t.Run(name, func(t *testing.T) {
			var s section
			judgeSidecar(&s, "shop/orders-0", reporting(t, test.report), noon)
			expect(t, s.findings, test.outcome, test.text)
		})
	}
}

// drills are those of a database with one drill, which was held before.
func drills(passed bool, due time.Time) *Drills {
	d := &Drill{Passed: passed, VerifiedAt: before, LSN: "0/3000148"}
	all := &Drills{Last: d, Due: due}
	if passed {
		all.Passed = d
	} else {
		d.Failure = "a flipped bit"
	}
	return all
}

// TestNothingIsAskedOfClones: they have no archive to write, no slot, and are not drilled. Nor is there more to say of a
// sidecar that could not be asked than that.
func TestNothingIsAskedOfClones(t *testing.T) {
	mute := one(t, shop, guarded(t, "orders-0", ended(0, ""), running))
	mute.told(nil, errors.New("no route"))
	for _, d := range []Database{reporting(t, &Report{State: "not_archived"}), mute, reporting(t, &Report{State: "waiting"})} {
		var s section
		judgeSidecar(&s, "shop/orders-0", d, noon)
		if len(s.findings) != 0 {
			t.Errorf("%s: %+v", d.State, s.findings)
		}
	}
}

// TestBacklogExcusesABound: a slot that we give up before PostgreSQL would is not lost to its setting.
func TestBacklogExcusesABound(t *testing.T) {
	for bound, want := range map[string]Outcome{"1Gi:drop": OK, "2Gi:drop": Warning, "unlimited": Warning} {
		pod := server("orders-0")
		pod.Annotations = map[string]string{"outrider.dev/max-wal-backlog": bound}
		d := one(t, shop, injected(t, pod))
		d.told(answer(func(r *Report) { r.Slot.MaxKeep = 1 << 30 }), nil)
		var s section
		judgeSlot(&s, "shop/orders-0", d)
		expect(t, s.findings, want, "")
	}
}

func TestGrace(t *testing.T) {
	seconds := func(n int64) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Spec.TerminationGracePeriodSeconds = &n }
	}
	for name, test := range map[string]struct {
		change  func(*corev1.Pod)
		outcome Outcome
		text    string
	}{
		"as the webhook makes it": {func(*corev1.Pod) {}, OK, "is 120, enough for the grace of its policy, 2m"},
		"longer":                  {seconds(600), OK, "is 600, enough"},
		"lowered":                 {seconds(60), Warning, "is 60, less than the grace of its policy, 2m"},
		"hasty":                   {seconds(5), Warning, "is 5: too short"},
		"not said":                {func(pod *corev1.Pod) { pod.Spec.TerminationGracePeriodSeconds = nil }, Warning, "is 30, less than"},
		"another version's": {func(pod *corev1.Pod) {
			c := initContainer(pod, "outrider")
			c.Env = append(c.Env, corev1.EnvVar{Name: "OUTRIDER_RPO", Value: "soonish"})
			c.Env = c.Env[len(c.Env)-1:]
		}, Unknown, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := guarded(t, "orders-0", ended(0, ""), running)
			test.change(pod)
			var s section
			judgeGrace(&s, "shop/orders-0", pod)
			expect(t, s.findings, test.outcome, test.text)
		})
	}
	longer := shop
	longer.annotations = map[string]string{"outrider.dev/archive": "oss://backups/prod", "outrider.dev/grace": "5m"}
	var s section
	judgeAnew(&s, "shop/orders-0", reporting(t, answer()), longer, configuration{})
	expect(t, s.findings, Warning, "asks for a grace of 5m now, and the pod was made with 2m")
}

// TestAnewWithoutTheConfiguration: what it holds may be all that is missing, so nothing is said to be refused.
func TestAnewWithoutTheConfiguration(t *testing.T) {
	bare := place{name: "shop", labels: shop.labels}
	for _, test := range []struct {
		conf    configuration
		refused bool
	}{{configuration{}, true}, {configuration{trouble: forbidden("configmaps", "no")}, false}} {
		var s section
		judgeAnew(&s, "shop/orders-0", reporting(t, answer()), bare, test.conf)
		if got := len(s.findings) > 0 && s.findings[0].Outcome == Failed; got != test.refused {
			t.Errorf("refused: %v, want %v: %+v", got, test.refused, s.findings)
		}
	}
}

func TestMachineClock(t *testing.T) {
	date := http.Header{"Date": {noon.Format(http.TimeFormat)}}
	for name, test := range map[string]struct {
		header  http.Header
		now     time.Time
		outcome Outcome
		text    string
	}{
		"right":  {date, noon.Add(900 * time.Millisecond), OK, "agrees"},
		"ahead":  {date, noon.Add(3 * time.Minute), Warning, "3m0s ahead of the API server's"},
		"behind": {date, noon.Add(-time.Hour), Warning, "1h0m1s behind the API server's"},
		"silent": {http.Header{}, noon, Unknown, "bear no date"},
	} {
		t.Run(name, func(t *testing.T) {
			var c clock
			c.note(test.header, test.now, test.now)
			var s section
			judgeMachine(&s, &c)
			expect(t, s.findings, test.outcome, test.text)
		})
	}
}

func TestServingCertificate(t *testing.T) {
	for name, test := range map[string]struct {
		data    []byte
		outcome Outcome
		text    string
	}{
		"none yet": {nil, Failed, "none yet"},
		"no PEM":   {[]byte("hello"), Failed, "cannot be read"},
		"damaged":  {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Failed, "cannot be read"},
		"expired":  {authority(t, noon.Add(-time.Hour)), Failed, "it expired at 2026-11-20T11:00:00Z"},
		"expiring": {authority(t, noon.Add(time.Hour)), Warning, "has not been renewed"},
		"valid":    {append(authority(t, noon.Add(24*60*time.Hour)), authority(t, before)...), OK, "it is valid until"},
	} {
		t.Run(name, func(t *testing.T) {
			var s section
			judgeServing(&s, "certificate", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: servingName}, Data: map[string][]byte{corev1.TLSCertKey: test.data}}, noon)
			expect(t, s.findings, test.outcome, test.text)
		})
	}
}
