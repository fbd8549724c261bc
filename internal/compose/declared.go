package compose

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Declared is a part that fills one field of an answer. It is described by descriptors
// and functions over messages, so that this package depends on no generated type.
type Declared struct {
	Name     string
	Required bool
	// Limit bounds the fetch.
	Limit time.Duration
	// Field is the field of the answer that the part fills.
	Field protoreflect.FieldDescriptor
	// Fetch returns a message of the answer's type. Only Field of it is used.
	Fetch func(context.Context) (proto.Message, error)
}

// Add adds declared parts. Call the function that it returns after Wait has returned
// nil: it fills the fields of the answer. The field of an optional part that failed
// stays as it is.
func (c *Composition) Add(parts []Declared) (fill func(answer proto.Message)) {
	handles := make([]*Part[proto.Message], len(parts))
	for i, part := range parts {
		declare := Optional[proto.Message]
		if part.Required {
			declare = Required[proto.Message]
		}
		handles[i] = declare(c, part.Name, part.Limit, part.fetch)
	}
	return func(answer proto.Message) {
		for i, part := range parts {
			if value := handles[i].Value(); value != nil && value.ProtoReflect().Has(part.Field) {
				answer.ProtoReflect().Set(part.Field, value.ProtoReflect().Get(part.Field))
			}
		}
	}
}

// fetch refuses a message of another type as the failure of the part: setting its field
// would panic.
func (d Declared) fetch(ctx context.Context) (proto.Message, error) {
	value, err := d.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	if got, want := value.ProtoReflect().Descriptor(), d.Field.ContainingMessage(); got != want {
		return nil, fmt.Errorf("the part %s returned a %s, want a %s", d.Name, got.FullName(), want.FullName())
	}
	return value, nil
}
