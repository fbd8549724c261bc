package passthrough

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
)

// An answer that is passed on keeps its bytes, also those of fields that the schema does
// not know, and can be looked into.
func TestAnAnswerKeepsItsBytes(t *testing.T) {
	t.Parallel()
	profile := &usersv1.Profile{Id: "a", FirstName: "Alice", CreateTime: timestamppb.New(timestamppb.Now().AsTime())}
	encoded, err := proto.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	encoded = append(encoded, 0xf8, 0x3f, 1) // an unknown field
	a := &answer{schema: profile.ProtoReflect().Descriptor()}
	buffer := bytes.Clone(encoded)
	if err := proto.Unmarshal(buffer, a); err != nil {
		t.Fatal(err)
	}
	clear(buffer) // a codec uses it again
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
	if err != nil || !bytes.Equal(again, encoded) || proto.Size(a) != len(encoded) {
		t.Errorf("encoded again: got %x, %v, want %x", again, err, encoded)
	}
	if copied, err := proto.Marshal(proto.Clone(a)); err != nil || !bytes.Equal(copied, encoded) {
		t.Errorf("a clone: got %x, %v, want %x", copied, err, encoded)
	}
	got := &usersv1.Profile{}
	text, err := protojson.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, got); err != nil || !proto.Equal(got, profile) {
		t.Errorf("in JSON: got %s, %v, want %v", text, err, profile)
	}
	a.Reset()
	if left, err := proto.Marshal(a); err != nil || len(left) != 0 {
		t.Errorf("after Reset: got %x, %v, want nothing", left, err)
	}
}

// Bytes that are no message are refused without a look into them.
func TestAnAnswerThatIsNoMessage(t *testing.T) {
	t.Parallel()
	for _, broken := range [][]byte{{0x0a, 5, 1}, {0x0a}, {0x0c}, {0x02, 0}, bytes.Repeat([]byte{0x53}, 100_000), {0x0f}} {
		if err := proto.Unmarshal(broken, &answer{schema: (*usersv1.Profile)(nil).ProtoReflect().Descriptor()}); err == nil {
			t.Errorf("% .20x is accepted", broken)
		}
	}
}
