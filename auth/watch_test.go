package auth

import (
	"testing"

	authv1 "gatehouse/gen/auth/v1"
)

// A poll that began before a stream did may know less than the copy of auth that
// its reader comes from.
func TestAStreamIsToldNothingOfAPollThatBeganBeforeIt(t *testing.T) {
	t.Parallel()
	r := newRevocations()
	before := r.begin()
	w := r.watch("")
	r.tell(before, poll{database: "1-1", horizon: 5}, nil, false)
	if n := len(w.messages); n != 0 {
		t.Fatalf("it was told %d times of the poll under way", n)
	}
	r.tell(r.begin(), poll{database: "1-1", horizon: 6}, nil, false)
	if len(w.messages) != 1 {
		t.Fatal("it was told nothing of the poll after that")
	}
	if first := <-w.messages; !first.GetComplete() || first.GetCursor() != "1-1.6" {
		t.Errorf("the first message is %v", first)
	}
}

func TestAReaderThatFellBehindCatchesUpInOneGo(t *testing.T) {
	t.Parallel()
	of := func(session string) []*authv1.Revocation {
		return []*authv1.Revocation{{Of: &authv1.Revocation_SessionId{SessionId: session}}}
	}
	keys := &authv1.SigningKeys{Keys: []*authv1.SigningKey{{Kid: "k"}}}
	first := &authv1.WatchRevocationsResponse{Complete: true, Revocations: of("a"), Cursor: "1", SigningKeys: keys}
	second := &authv1.WatchRevocationsResponse{Revocations: of("b"), Cursor: "2"}
	both := joined(first, second)
	if !both.GetComplete() || both.GetCursor() != "2" || both.GetSigningKeys() != keys || len(both.GetRevocations()) != 2 {
		t.Errorf("joined they are %v", both)
	}
	if len(first.GetRevocations()) != 1 || len(second.GetRevocations()) != 1 {
		t.Error("what others are told too was changed")
	}
	if got := joined(second, first); got != first {
		t.Errorf("the whole after another is %v, want the whole alone", got)
	}
}
