package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonCodec ignores unknown fields, which a newer client may send, but refuses unknown
// names of enum values. protojson ignores either both or none; if it ignored a misspelt
// status, a list would not be filtered.
type jsonCodec struct{ *connectproto.JSONCodec }

func newJSONCodec() jsonCodec { return jsonCodec{connectproto.NewJSONCodec()} }

// encodedOnce is a message that stores its JSON, such as a cached answer.
type encodedOnce interface {
	// JSON returns the message's JSON. The first call encodes it.
	JSON(encode func(proto.Message) ([]byte, error)) ([]byte, error)
}

// MarshalWrite implements [connect.Codec].
func (c jsonCodec) MarshalWrite(ctx context.Context, dst io.Writer, msg any) error {
	kept, ok := msg.(encodedOnce)
	if !ok {
		return c.JSONCodec.MarshalWrite(ctx, dst, msg)
	}
	text, err := kept.JSON(func(message proto.Message) ([]byte, error) {
		var buffer bytes.Buffer
		err := c.JSONCodec.MarshalWrite(ctx, &buffer, message)
		return buffer.Bytes(), err
	})
	if err != nil {
		return err
	}
	_, err = dst.Write(text)
	return err
}

// UnmarshalRead implements [connect.Codec].
func (c jsonCodec) UnmarshalRead(ctx context.Context, src io.Reader, msg any) error {
	text, err := readAll(src)
	if err != nil {
		return err
	}
	message, ok := msg.(proto.Message)
	if !ok || len(text) == 0 {
		return c.JSONCodec.UnmarshalRead(ctx, bytes.NewReader(text), msg)
	}
	strict := c.UnmarshalOptions
	strict.DiscardUnknown = false
	if err := strict.Unmarshal(text, message); err == nil || !strings.Contains(err.Error(), "unknown field ") {
		return err
	}
	if err := c.UnmarshalOptions.Unmarshal(text, message); err != nil {
		return err
	}
	var read any
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	return checkEnumNames(message.ProtoReflect().Descriptor(), read)
}

// readAll returns the rest of src, without a copy if it is a buffer.
func readAll(src io.Reader) ([]byte, error) {
	if buffer, ok := src.(*bytes.Buffer); ok {
		return buffer.Bytes(), nil
	}
	return io.ReadAll(src)
}

// checkEnumNames returns an error for an unknown name of an enum value, with the text that
// protojson would use.
func checkEnumNames(message protoreflect.MessageDescriptor, read any) error {
	object, ok := read.(map[string]any)
	if !ok {
		return nil // a message with a special JSON form, such as a timestamp
	}
	for name, value := range object {
		field := message.Fields().ByJSONName(name)
		if field == nil {
			field = message.Fields().ByTextName(name)
		}
		if field == nil || field.IsMap() {
			continue
		}
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, value := range list {
			text, named := value.(string)
			if field.Enum() != nil && named && field.Enum().Values().ByName(protoreflect.Name(text)) == nil {
				return fmt.Errorf("invalid value for enum field %s: %q", name, text)
			}
			if field.Message() == nil {
				continue
			}
			if err := checkEnumNames(field.Message(), value); err != nil {
				return err
			}
		}
	}
	return nil
}
