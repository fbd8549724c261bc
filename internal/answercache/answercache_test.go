package answercache

import (
	"fmt"
	"testing"
	"time"

	bffv1 "gatehouse/gen/bff/v1"
)

func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	const bound = 64 << 10
	c := open(t, bound)
	for i := range 2000 {
		message := &bffv1.GetUserResponse{User: &bffv1.User{FirstName: fmt.Sprint(i), LastName: "Lovelace"}}
		c.store(keyOf(fmt.Sprint(i), nil, nil), &entry{message: message, size: 100, staleUntil: time.Now().Add(time.Minute)}, nil)
	}
	c.entries.CleanUp()
	if got := c.Size(); got > bound || got < bound/2 {
		t.Errorf("2000 entries take %d bytes, want at most %d and not much less", got, bound)
	}
	var e epochs
	for i := range maxMarks + 10 {
		e.invalidate(fmt.Sprint("account/", i))
	}
	if n := len(e.marks) + len(e.olderMarks); n > maxMarks || e.valid([]string{"account/1"}, 0) || !e.valid([]string{"account/1"}, e.current()) {
		t.Errorf("%d marks are remembered, want at most %d; what was invalidated stays stale, and what is new is valid", n, maxMarks)
	}
}

// However many tags are invalidated, what was fetched lately stays valid unless it has one of
// them, and what has one stays stale.
func TestManyInvalidationsLeaveWhatWasFetchedLately(t *testing.T) {
	t.Parallel()
	type fetch struct {
		tag   string
		since epoch
		after int // how many tags had been invalidated
	}
	const lately = maxMarks/2 - 1
	var e epochs
	var fetches []fetch
	for i := range 3 * maxMarks {
		if i%1000 == 0 {
			fetches = append(fetches, fetch{"account/kept", e.current(), i}, fetch{fmt.Sprint("account/", i), e.current(), i})
		}
		e.invalidate(fmt.Sprint("account/", i))
		if i%10_000 != 0 {
			continue
		}
		for _, one := range fetches {
			valid := e.valid([]string{one.tag}, one.since)
			switch {
			case one.tag != "account/kept" && valid:
				t.Fatalf("after %d tags, an entry with the tag %s is valid, which was invalidated after its fetch", i+1, one.tag)
			case one.tag == "account/kept" && !valid && i-one.after < lately:
				t.Fatalf("after %d tags, an entry from %d tags ago is stale, and none of its tags was invalidated", i+1, i-one.after)
			}
		}
	}
}

// An invalidation of a kind makes stale what has a tag of it, with or without an ID,
// and what is being fetched, and nothing else.
func TestAKindIsInvalidatedAsAWhole(t *testing.T) {
	t.Parallel()
	var e epochs
	before := e.current()
	e.invalidateKinds("things")
	for tag, want := range map[string]bool{"things": false, "things/7": false, "thing": true, "account/things": true} {
		if got := e.valid([]string{tag}, before); got != want {
			t.Errorf("what was fetched before with the tag %s is valid: %v, want %v", tag, got, want)
		}
		if !e.valid([]string{tag}, e.current()) {
			t.Errorf("what is fetched afterwards with the tag %s is stale", tag)
		}
	}
}
