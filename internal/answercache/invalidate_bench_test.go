package answercache

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	servicev1 "gatehouse/gen/service/v1"
)

// A gateway decodes and applies a message of the feed, of whose tags it has no entry. Divide by
// the tags of a message: 1,700 a second are 425 a message.
func BenchmarkAMessageOfTagsWithoutEntries(b *testing.B) {
	for _, tags := range []int{1, 425} {
		b.Run(fmt.Sprint(tags, " tags"), func(b *testing.B) {
			c, messages := open(b, 64<<10), make([][]byte, 512)
			for i := range messages {
				message := &servicev1.WatchChangesResponse{}
				for range tags {
					message.Tags = append(message.Tags, "sessions/"+uuid.NewString())
				}
				var err error
				if messages[i], err = proto.Marshal(message); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				message := &servicev1.WatchChangesResponse{}
				if err := proto.Unmarshal(messages[i%len(messages)], message); err != nil {
					b.Fatal(err)
				}
				c.Invalidate(message.GetTags()...)
			}
		})
	}
}
