package database_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"golang.org/x/sync/errgroup"

	"gatehouse/internal/database"
	"gatehouse/internal/pgtest"
)

// replica is a primary with a standby, as a service uses them.
type replica struct {
	*testing.T
	*pgtest.Replica
	primary *database.Pool
	reader  *database.Reader
	metrics *metric.ManualReader
}

func startReplica(t *testing.T) *replica {
	t.Helper()
	r := &replica{T: t, Replica: pgtest.StartReplica(t), metrics: metric.NewManualReader()}
	primary, err := database.Open(t.Context(), r.URL("users"), "users")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Close)
	standby, err := database.OpenStandby(t.Context(), r.StandbyURL("users")+"&pool_max_conns=2", "users")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	r.primary = database.Retrying(primary)
	r.reader = database.NewReader(r.primary, standby)
	meters := metric.NewMeterProvider(metric.WithReader(r.metrics))
	if err := database.ObserveStandby(meters.Meter("test"), "users", standby); err != nil {
		t.Fatal(err)
	}
	return r
}

// write writes a tag to the primary and returns the position after it.
func (r *replica) write(tag string) string {
	r.Helper()
	if _, err := r.primary.Exec(r.Context(), "INSERT INTO users.changes (tag) VALUES ($1)", tag); err != nil {
		r.Fatal(err)
	}
	position, err := database.Position(r.Context(), r.primary)
	if err != nil {
		r.Fatal(err)
	}
	return position
}

// read reads the tag at a position, and reports whether a standby answered.
func (r *replica) read(position, tag string) (fromStandby bool, err error) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	var found string
	err = r.reader.At(position).QueryRow(ctx, "SELECT tag || pg_is_in_recovery() FROM users.changes WHERE tag = $1", tag).Scan(&found)
	return strings.HasSuffix(found, "true"), err
}

// mustRead is read, which must not fail.
func (r *replica) mustRead(position, tag string) bool {
	r.Helper()
	fromStandby, err := r.read(position, tag)
	if err != nil {
		r.Fatalf("read %s at %s: %v", tag, position, err)
	}
	return fromStandby
}

// untilRead waits until the standby, or the primary, answers.
func (r *replica) untilRead(position, tag string, wanted bool) {
	r.Helper()
	for deadline := time.Now().Add(time.Minute); r.mustRead(position, tag) != wanted; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("the standby answers: %v, for a minute; want %v", !wanted, wanted)
		}
	}
}

// counts returns the reads by what answered them.
func (r *replica) counts() map[string]int64 {
	r.Helper()
	var all metricdata.ResourceMetrics
	if err := r.metrics.Collect(r.Context(), &all); err != nil {
		r.Fatal(err)
	}
	found := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, one := range scope.Metrics {
			sum, ok := one.Data.(metricdata.Sum[int64])
			if !ok {
				continue
			}
			for _, point := range sum.DataPoints {
				by, _ := point.Attributes.Value("answered_by")
				found[by.AsString()] = point.Value
			}
		}
	}
	return found
}

func TestAStandbyAnswersOnceItHasReplayedThePosition(t *testing.T) {
	t.Parallel()
	r := startReplica(t)
	first := r.write("first")
	r.untilRead(first, "first", true)
	r.PauseReplay(t)
	second := r.write("second")
	for range 20 {
		if r.mustRead(second, "second") {
			t.Fatal("a standby answered at a position that it has not replayed")
		}
	}
	if got := r.counts(); got["primary_behind"] < 20 || got["standby"] == 0 {
		t.Errorf("the reads are counted as %v, want 20 for which the standby was behind", got)
	}
	r.untilRead(first, "first", true) // what it has, it still answers
	if r.mustRead(first, "second") {
		t.Error("the standby answered what it does not have")
	}
	if got := r.counts(); got["primary_empty"] == 0 {
		t.Errorf("the reads are counted as %v, want one that the standby found no row for", got)
	}
	r.ResumeReplay(t)
	r.untilRead(second, "second", true)
	for _, position := range []string{"", "garbage", "1.1.0/0'", strings.Replace(second, ".", ".9", 1), "9" + second} {
		if r.mustRead(position, "second") {
			t.Errorf("a standby answered at the position %q", position)
		}
	}
	r.untilRead(second, "second", true)
}

// Reads that find all connections in use go to the primary, and do not keep others away
// from the standby.
func TestABusyStandbySharesItsReadsWithThePrimary(t *testing.T) {
	t.Parallel()
	r := startReplica(t)
	position := r.write("tag")
	r.untilRead(position, "tag", true)
	before := r.counts()
	const readers, reads = 20, 50
	var group errgroup.Group
	for range readers {
		group.Go(func() error {
			for range reads {
				if _, err := r.read(position, "tag"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("a read failed: %v", err)
	}
	after := r.counts()
	standby, busy := after["standby"]-before["standby"], after["primary_busy"]-before["primary_busy"]
	t.Logf("of %d reads, the standby answered %d; all its connections were in use for %d", readers*reads, standby, busy)
	if standby < 100 || busy < 10 {
		t.Errorf("the reads are counted as %v, want at least 100 by the standby and 10 for which it was busy", after)
	}
}

func TestAReadOutlivesItsStandby(t *testing.T) {
	t.Parallel()
	r := startReplica(t)
	position := r.write("tag")
	r.untilRead(position, "tag", true)
	for _, fault := range []struct {
		name      string
		begin     func()
		end       func()
		forGood   bool
		mayAnswer bool
	}{
		{name: "frozen", begin: r.FreezeStandby, end: r.ThawStandby},
		{name: "killed", begin: r.KillStandby, end: func() { r.StartStandby(t) }},
		{name: "cancelled and disconnected", begin: func() { r.disconnect() }, end: func() {}, mayAnswer: true},
		{name: "promoted", begin: func() { r.Promote(t) }, end: func() {}, forGood: true},
	} {
		fault.begin()
		slowest, fromStandby := time.Duration(0), false
		for range 200 {
			began := time.Now()
			var err error
			if fromStandby, err = r.read(position, "tag"); err != nil {
				t.Fatalf("%s: a read failed: %v", fault.name, err)
			}
			slowest = max(slowest, time.Since(began))
		}
		if fromStandby && !fault.mayAnswer { // a signal needs a moment
			t.Fatalf("%s: the standby answered the last read", fault.name)
		}
		t.Logf("%s: the slowest of 200 reads took %s", fault.name, slowest)
		fault.end()
		if !fault.forGood {
			r.untilRead(position, "tag", true)
		}
	}
}

// disconnect cancels statements of the standby and ends its connections, as a conflict with
// recovery may.
func (r *replica) disconnect() {
	conn := pgtest.Connect(r, r.StandbyOwner())
	for range 20 {
		if _, err := conn.Exec(r.Context(), "SELECT pg_cancel_backend(pid), pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatehouse users'"); err != nil {
			r.Fatal(err)
		}
	}
}

// A role that may not read the standby, or a URL of another server, only leaves the reads
// on the primary.
func TestAnUnusableStandbyIsLikeNone(t *testing.T) {
	t.Parallel()
	r := startReplica(t)
	position := r.write("tag")
	other := pgtest.New(t)
	for name, url := range map[string]string{
		"the primary":      r.URL("users"),
		"another database": other.Users,
		"a wrong password": strings.Replace(r.StandbyURL("users"), ":users@", ":wrong@", 1),
		"no server":        "postgres://users@127.0.0.1:1/gatehouse",
	} {
		standby, err := database.OpenStandby(t.Context(), url, "users")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(standby.Close)
		reader := database.NewReader(r.primary, standby)
		for range 3 {
			var recovering bool
			if err := reader.At(position).QueryRow(t.Context(), "SELECT pg_is_in_recovery() FROM users.changes LIMIT 1").Scan(&recovering); err != nil || recovering {
				t.Errorf("%s: a read returned %v, %v; want the answer of the primary", name, recovering, err)
			}
		}
	}
}
