package standbys

import (
	"fmt"
	"testing"
	"time"
)

// fixture is positions with a clock of their own.
type fixture struct {
	*testing.T
	*Positions
	time time.Time
}

func start(t *testing.T) *fixture {
	f := &fixture{T: t, time: time.Unix(1_000_000, 0)}
	f.Positions = New(time.Second, map[string]string{"account": "auth", "sessions": "auth", "profile": "users"})
	f.now = func() time.Time { return f.time }
	return f
}

// reports lets time pass, and then both services report a position of now.
func (f *fixture) reports(after time.Duration, position string) {
	f.time = f.time.Add(after)
	f.Reported("auth", position, f.time)
	f.Reported("users", position, f.time)
}

// wants checks the positions of auth and users for the tags.
func (f *fixture) wants(auth, users string, tags ...string) {
	f.Helper()
	found, _ := f.For(tags)
	if found["auth"] != auth || found["users"] != users {
		f.Errorf("the positions for %v are %v, want %q of auth and %q of users", tags, found, auth, users)
	}
}

func TestAReadHasTheLatestPositionOfTheServicesThatReportItsTags(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.wants("", "", "account/1")
	f.reports(0, "p1")
	f.wants("", "", "account/1") // what was written before is not known
	f.reports(2*time.Second, "p9")
	f.wants("p9", "", "account/1", "sessions/1")
	f.wants("", "p9", "profile/1")
	f.wants("p9", "p9", "account/1", "profile/1")
	f.wants("", "", "orders/1")
	f.wants("", "")
	// After a failover, the positions of the new primary may be lower.
	f.reports(time.Millisecond, "p2")
	f.wants("p2", "p2", "account/1", "profile/1")
	f.time = f.time.Add(700 * time.Millisecond)
	if _, age := f.For([]string{"account/1"}); age != 700*time.Millisecond {
		t.Errorf("the age of the position is %s, want 700ms", age)
	}
	f.time = f.time.Add(301 * time.Millisecond)
	f.wants("", "", "account/1", "profile/1") // too old
	f.reports(0, "")
	f.wants("", "", "account/1", "profile/1") // a copy without a standby
}

func TestWhatThisGatewayWroteIsReadFromThePrimary(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.reports(0, "p1")
	f.reports(2*time.Second, "p2")
	f.Wrote([]string{"profile/1"})
	f.wants("p2", "", "account/1", "profile/1")
	f.wants("p2", "p2", "account/2", "profile/2")
	f.reports(500*time.Millisecond, "p3")
	f.wants("p3", "", "account/1", "profile/1") // the clocks may run at different rates
	f.reports(501*time.Millisecond, "p4")
	f.wants("p4", "p4", "account/1", "profile/1")
}

// What cannot be remembered counts as written.
func TestManyWritesAreBounded(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.reports(0, "p1")
	f.reports(2*time.Second, "p2")
	for i := range maxWritten + 1 {
		f.Wrote([]string{fmt.Sprint("account/", i)})
	}
	if n := len(f.services["auth"].written); n > maxWritten {
		t.Errorf("%d tags are remembered, want at most %d", n, maxWritten)
	}
	f.wants("", "p2", "account/0", "profile/0")
	f.reports(2*time.Second, "p3")
	f.wants("p3", "p3", "account/0", "profile/0")
	if n := len(f.services["auth"].written); n > 0 {
		t.Errorf("%d tags are remembered that the feed has reported", n)
	}
}
