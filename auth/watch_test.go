package auth

import "testing"

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
