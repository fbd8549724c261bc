package rpc

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	usersv1 "gatehouse/gen/users/v1"
)

// keptMessage counts how often it is encoded.
type keptMessage struct {
	proto.Message
	text    []byte
	encoded int
}

func (m *keptMessage) JSON(encode func(proto.Message) ([]byte, error)) (_ []byte, err error) {
	if m.text == nil {
		m.encoded++
		m.text, err = encode(m.Message)
	}
	return m.text, err
}

func TestAMessageThatKeepsItsJSONIsEncodedOnce(t *testing.T) {
	t.Parallel()
	codec := newJSONCodec()
	message := &usersv1.Profile{Id: "1", FirstName: "Ada <&>", Locale: "en"}
	var want bytes.Buffer
	if err := codec.MarshalWrite(t.Context(), &want, message); err != nil {
		t.Fatal(err)
	}
	kept := &keptMessage{Message: message}
	for range 3 {
		var got bytes.Buffer
		if err := codec.MarshalWrite(t.Context(), &got, kept); err != nil || got.String() != want.String() {
			t.Errorf("got %q, %v, want %q", got.String(), err, want.String())
		}
	}
	if kept.encoded != 1 {
		t.Errorf("encoded %d times, want once", kept.encoded)
	}
	var none bytes.Buffer
	if err := codec.MarshalWrite(t.Context(), &none, &keptMessage{Message: &usersv1.Profile{Id: "\xff"}}); err == nil {
		t.Errorf("a message that has no JSON: got %q, want an error", none.String())
	}
}
