package policy

import "google.golang.org/protobuf/proto"

// TextNormalizer is what a field's policy makes of its text.
var TextNormalizer = textNormalizer

// NormalizeMessage brings a message to the forms that its schema says.
func NormalizeMessage(message proto.Message) {
	newNormalizer(message.ProtoReflect().Descriptor()).apply(message.ProtoReflect())
}
