package feed

import (
	"slices"
	"testing"
	"time"
)

// A poll that began before a watcher joined may have seen fewer rows than the instance
// that the watcher was connected to before.
func TestAWatcherReceivesNoPollThatStartedBeforeItJoined(t *testing.T) {
	t.Parallel()
	f := New(Config[string]{})
	before := f.beginPoll()
	w := f.join("")
	f.broadcast(before, poll[string]{database: "1-1", horizon: 5})
	if n := len(w.news); n != 0 {
		t.Fatalf("the watcher received %d messages of the poll in progress, want 0", n)
	}
	f.broadcast(f.beginPoll(), poll[string]{database: "1-1", horizon: 6})
	if len(w.news) != 1 {
		t.Fatal("the watcher received no message of the next poll")
	}
	if first := <-w.news; !first.First || !first.Complete || first.Cursor == "" {
		t.Errorf("the first message is %+v", first)
	}
}

func TestMessagesForASlowWatcherAreMerged(t *testing.T) {
	t.Parallel()
	now := time.Now()
	first := News[string]{First: true, Complete: true, Items: []Item[string]{{Value: "a"}}, Cursor: "1", Read: now, AskedAfter: time.Second}
	second := News[string]{Items: []Item[string]{{Value: "b"}}, Cursor: "2", Read: now.Add(time.Second), AskedAfter: 2 * time.Second}
	values := func(n News[string]) (values []string) {
		for _, item := range n.Items {
			values = append(values, item.Value)
		}
		return values
	}
	both := first.merge(second)
	if !both.First || !both.Complete || both.Cursor != "2" || both.Read != second.Read || both.AskedAfter != second.AskedAfter || !slices.Equal(values(both), []string{"a", "b"}) {
		t.Errorf("the merged message is %+v", both)
	}
	if len(first.Items) != 1 || len(second.Items) != 1 {
		t.Error("merging changed the messages, which other watchers receive too")
	}
	if got := second.merge(first); !got.Complete || got.First || !slices.Equal(values(got), []string{"a"}) {
		t.Errorf("merging a complete message gives %+v, want the complete message alone", got)
	}
}
