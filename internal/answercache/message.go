package answercache

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// encode encodes a message deterministically: protobuf allows an encoder to write
// the entries of a map in any order.
func encode(message proto.Message) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	return encoded, nil
}

// digest returns a hash of a message and its schema, and the encoded message.
func digest(schema string, message proto.Message) (text string, encoded []byte, err error) {
	if encoded, err = encode(message); err != nil {
		return "", nil, err
	}
	hash := sha256.New()
	hash.Write([]byte(schema))
	hash.Write(encoded)
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:15]), encoded, nil
}

// preencoded returns a message that encodes to these bytes at no cost: unknown
// fields are written as they were read.
func preencoded(encoded []byte) proto.Message {
	message := &emptypb.Empty{}
	message.ProtoReflect().SetUnknown(slices.Clip(slices.Clone(encoded)))
	return message
}

// inJSON is a message that is encoded in JSON at most once.
type inJSON struct {
	proto.Message
	once sync.Once
	text []byte
	err  error
}

// JSON returns the message's JSON, by encode the first time.
func (m *inJSON) JSON(encode func(proto.Message) ([]byte, error)) ([]byte, error) {
	m.once.Do(func() { m.text, m.err = encode(m.Message) })
	return m.text, m.err
}

// schemaHash returns a hash of everything that decides what messages mean: an
// answer of another schema is another answer.
func schemaHash(messages ...protoreflect.MessageDescriptor) string {
	hash := sha256.New()
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		// A descriptor that came from a file can be encoded as one.
		encoded, _ := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(file))
		hash.Write(encoded)
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
	}
	for _, message := range messages {
		add(message.ParentFile())
	}
	return string(hash.Sum(nil))
}
