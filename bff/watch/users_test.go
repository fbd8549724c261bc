package watch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/internal/fault"
	"gatehouse/internal/policy"
)

// profileTags are tags of the profiles of that many users.
func profileTags(n int) []string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = fmt.Sprintf("profile/user%03d", i)
	}
	return tags
}

func TestAStreamOfAllNamesTheUsersThatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		r, own := read(t, b.WatchAll, principal("admin"), ""), b.open(t, principal("admin"), "")
		defer r.stop()
		defer own.stop()
		own.all()
		if got := r.all(); len(got) != 1 || !got[0].Complete || got[0].Accounts != nil || got[0].Parts != nil {
			t.Fatalf("the stream begins with %+v, want one complete event without names", got)
		}
		for _, one := range []struct{ tags, want []string }{
			{[]string{"profile/ada"}, []string{"ada"}},
			{[]string{"account/ada", "sessions/eve", "profile/ada"}, []string{"ada", "eve"}},
			{[]string{"account/admin"}, []string{"admin"}},
			{[]string{"notes/ada", "ada", "", "/", "profile/", "profile", "xprofile/ada", "Profile/ada"}, nil},
		} {
			b.update("users", false, one.tags...)
			got := r.all()
			if one.want == nil && len(got) != 0 || one.want != nil && (len(got) != 1 || got[0].Complete || !slices.Equal(got[0].Accounts, one.want)) {
				t.Errorf("after changes of %q the stream sends %+v, want %q", one.tags, got, one.want)
			}
		}
		if got := own.all(); len(got) != 1 || !slices.Equal(got[0].Parts, []string{"account", "factors"}) || got[0].Accounts != nil {
			t.Errorf("the stream of the administrator's own changes sends %+v, want the account alone", got)
		}
	})
}

func TestAStreamOfAllIsCompleteInsteadOfNamingTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		b.run(20 * time.Second)
		r := read(t, b.WatchAll, principal("admin"), "")
		cursor := r.all()[0].Cursor
		b.update("users", false, profileTags(maxAccounts)...)
		if got := r.all(); len(got) != 1 || got[0].Complete || len(got[0].Accounts) != maxAccounts {
			t.Errorf("after changes of %d users the stream sends %+v", maxAccounts, got)
		}
		b.update("users", false, profileTags(maxAccounts+1)...)
		if got := r.all(); len(got) != 1 || !got[0].Complete || got[0].Accounts != nil {
			t.Errorf("after changes of %d users the stream sends %+v, want a complete event", maxAccounts+1, got)
		}
		b.update("users", false, "profile/ada")
		if got := r.all(); len(got) != 1 || got[0].Complete || !slices.Equal(got[0].Accounts, []string{"ada"}) {
			t.Errorf("after it the stream sends %+v, want the user that changed", got)
		}
		r.stop()
		resumed := read(t, b.WatchAll, principal("admin"), cursor)
		if got := resumed.all(); len(got) != 1 || !got[0].Complete || got[0].Accounts != nil {
			t.Errorf("after more than %d changes the stream resumes with %+v, want a complete event", maxAccounts, got)
		}
		resumed.stop()
	})
}

func TestAStreamOfAllResumesAtAnotherGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newBench(secret), newBench(secret)
		a.begin()
		b.begin()
		a.run(20 * time.Second)
		b.run(time.Second) // its clock is that of a
		first := read(t, a.WatchAll, principal("admin"), "")
		cursor := first.all()[0].Cursor
		first.stop()
		for _, one := range []*bench{a, b} {
			one.update("users", false, "profile/ada")
			one.update("auth", false, "sessions/eve", "notes/ada")
		}
		resumed := read(t, b.WatchAll, principal("admin"), cursor)
		defer resumed.stop()
		if got := resumed.all(); len(got) != 1 || got[0].Complete || !slices.Equal(got[0].Accounts, []string{"ada", "eve"}) {
			t.Errorf("the stream resumes with %+v, want ada and eve", got)
		}
	})
}

func TestASlowReaderOfAllLosesItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(secret)
		b.begin()
		interrupted := 0
		s := &stream{who: principal("admin"), all: true, interrupt: func() { interrupted++ }}
		if err := b.join(s, ""); err != nil {
			t.Fatal(err)
		}
		b.take(s) // and never sent
		for i := range maxMerged {
			b.update("users", false, profileTags(200)...)
			if s.ended != nil || len(s.accounts) > maxAccounts {
				t.Fatalf("after %d updates the stream's end is %v, and it holds %d users", i+1, s.ended, len(s.accounts))
			}
		}
		b.update("users", false, "profile/ada")
		if fault.Reason(s.ended) != "STREAM_TOO_SLOW" || interrupted != 1 {
			t.Errorf("after %d updates the stream's end is %v, and its write was interrupted %d times", maxMerged+1, s.ended, interrupted)
		}
		b.leave(s)
		if len(b.all) != 0 || len(b.counts) != 0 {
			t.Error("the stream is still held")
		}
	})
}

func TestEachMethodBoundsItsOwnStreams(t *testing.T) {
	b := newBench(secret)
	b.begin()
	me, users := &policy.Method{OpenStreams: &policy.OpenStreams{PerCaller: 2, Total: 3}}, &policy.Method{OpenStreams: &policy.OpenStreams{PerCaller: 1, Total: 1}}
	var open []*stream
	for i, one := range []struct {
		who    string
		method *policy.Method
		reason string
	}{
		{"ada", me, ""},
		{"ada", me, ""},
		{"ada", me, "TOO_MANY_STREAMS"},
		{"ada", users, ""},
		{"eve", users, "TOO_MANY_STREAMS"},
		{"eve", me, ""},
		{"bob", me, "TOO_MANY_STREAMS"},
	} {
		s := &stream{who: principal(one.who), method: one.method}
		err := b.join(s, "")
		if fault.Reason(err) != one.reason {
			t.Errorf("stream %d: got %v, want %q", i, err, one.reason)
		}
		if err == nil {
			open = append(open, s)
		}
	}
	for _, s := range open {
		b.leave(s)
	}
	if err := b.join(&stream{who: principal("eve"), method: users}, ""); err != nil {
		t.Errorf("after all streams were closed: %v", err)
	}
}

// A stream of one account never names a change of another, whatever tags a feed has; one
// of all accounts names those alone whose tags it has.
func FuzzStreamsNameTheChangesOfTheirAccountsAlone(f *testing.F) {
	for _, tags := range []string{"profile/eve", "profile/ada\naccount/eve", "sessions/adam\nprofile//ada", "notes/ada", "profile/ada/", "account/\x00ada", "/\n\n"} {
		f.Add(tags)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		b := newBench(secret)
		b.begin()
		streams := map[string]*stream{"ada": {who: principal("ada")}, "all": {who: principal("admin"), all: true}}
		for name, s := range streams {
			if err := b.join(s, ""); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			b.take(s)
			b.sent(s)
		}
		tags := strings.Split(joined, "\n")
		b.update("users", false, tags...)
		own, named := map[string]bool{}, map[string]bool{}
		for _, tag := range tags {
			for _, kind := range []string{"account", "profile", "sessions"} {
				account, ok := strings.CutPrefix(tag, kind+"/")
				if !ok || account == "" {
					continue
				}
				named[account] = true
				if account != "ada" {
					continue
				}
				own[kind] = true
				if kind != "profile" {
					own["factors"] = true
				}
			}
		}
		event, _ := b.take(streams["ada"])
		if !slices.Equal(event.Parts, slices.Sorted(maps.Keys(own))) || event.Accounts != nil || event.Complete {
			t.Errorf("after changes of %q the stream of ada sends %+v, want the parts %v", tags, event, own)
		}
		event, _ = b.take(streams["all"])
		if len(named) <= maxAccounts && len(event.Accounts) != len(named) {
			t.Errorf("after changes of %q the stream of all names %q, want %d users", tags, event.Accounts, len(named))
		}
		for _, account := range event.Accounts {
			if !named[account] {
				t.Errorf("after changes of %q the stream of all names %q", tags, account)
			}
		}
	})
}
