package rest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/vanguard"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gatehouse/internal/rpc"
)

// body is a call's message in JSON, built from the request when it is read: a call
// that is refused before that costs no decoding. An error in the request is returned
// in the form of the Connect handler's own errors, and gets its public text where
// those do.
type body struct {
	call       *call
	method     *method
	transcoded io.ReadCloser

	prepared bool
	text     []byte
	reader   *bytes.Reader
	err      error
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.prepare(); err != nil {
		return 0, err
	}
	return b.reader.Read(p)
}

func (b *body) Close() error { return b.transcoded.Close() }

func (b *body) prepare() error {
	if !b.prepared {
		b.prepared = true
		b.text, b.err = b.message()
		b.reader = bytes.NewReader(b.text)
	}
	return b.err
}

func (b *body) message() ([]byte, error) {
	if err := b.method.checkQuery(b.call.request.URL.RawQuery); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(b.transcoded)
	if err == nil && len(text) == 0 {
		// vanguard reports io.EOF for a body that it cannot read, and returns the
		// actual error only from the next Read.
		if _, err = b.transcoded.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			return []byte("{}"), nil
		}
	}
	switch {
	case err == nil:
		return text, nil
	case b.call.body.err != nil:
		return nil, b.call.body.err
	default:
		return nil, b.method.unreadable(err)
	}
}

// unreadable is what vanguard, or a codec of ours in it, finds wrong with a
// request.
func (m *method) unreadable(err error) error {
	if ours, ok := errors.AsType[*connect.Error](err); ok {
		return ours
	}
	theirs, ok := errors.AsType[*connectv1.Error](err)
	if ok && theirs.Code() == connectv1.CodeResourceExhausted {
		return rpc.ErrTooMuch
	}
	if ok {
		// It quotes the parameter's name, and then the value: that is dropped.
		if rest, ok := strings.CutPrefix(theirs.Message(), "invalid parameter "); ok {
			quoted, _ := strconv.QuotedPrefix(rest)
			name, _ := strconv.Unquote(quoted)
			if field := m.parameters[name]; field != nil {
				name = field.JSONName()
			}
			return decodeError("invalid value for parameter field " + name + ":")
		}
	}
	return decodeError(err.Error())
}

// decodeError returns an error of the form that the Connect handler has for what it
// cannot decode.
func decodeError(text string) error {
	return connect.Errorf(connect.CodeInvalidArgument, "unmarshal message: %s", text)
}

// checkQuery finds parameters that there are not, in the words that protojson
// has for fields.
func (m *method) checkQuery(raw string) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return decodeError("the query can't be read")
	}
	given := map[protoreflect.FieldDescriptor]int{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		field := m.parameters[name]
		if field == nil {
			return decodeError("unknown field " + strconv.Quote(name))
		}
		given[field] += len(values[name])
		if given[field] > 1 && !field.IsList() {
			return decodeError("duplicate field " + strconv.Quote(name))
		}
	}
	return nil
}

// normalizeQuery returns a query as vanguard takes it: with the fields of a mask in
// lowerCamelCase, and without "connect", which vanguard interprets itself.
func normalizeQuery(raw string) string {
	if raw == "" {
		return ""
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "" // checkQuery refuses it
	}
	values.Del("connect")
	for _, name := range []string{"updateMask", "update_mask"} {
		for i := range values[name] {
			values[name][i] = lowerCamel(values[name][i])
		}
	}
	return values.Encode()
}

var underscored = regexp.MustCompile(`_[a-z]`)

func lowerCamel(text string) string {
	return underscored.ReplaceAllStringFunc(text, func(pair string) string { return strings.ToUpper(pair[1:]) })
}

// innerCodecName makes vanguard decode and encode each message: between codecs
// of one name it passes them on unseen.
const innerCodecName = "message"

// innerCodec writes the message for the Connect handler.
func innerCodec(vanguard.TypeResolver) vanguard.Codec { return innerJSON{} }

type innerJSON struct{ strictJSON }

func (innerJSON) Name() string { return innerCodecName }

// strictCodec reads bodies, and has no field pass that there is not.
func strictCodec(vanguard.TypeResolver) vanguard.Codec { return strictJSON{} }

// strictJSON is not a [vanguard.StableCodec]: with one, vanguard would make a GET by
// itself, and read the message before the caller is authenticated.
type strictJSON struct{}

var _ vanguard.RESTCodec = strictJSON{}

func (strictJSON) Name() string { return vanguard.CodecJSON }

func (strictJSON) MarshalAppend(base []byte, message proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{}.MarshalAppend(base, message)
}

func (strictJSON) Unmarshal(data []byte, message proto.Message) error {
	if err := protojson.Unmarshal(data, message); err != nil {
		return decodeError(err.Error())
	}
	return nil
}

func (c strictJSON) MarshalAppendField(base []byte, message proto.Message, field protoreflect.FieldDescriptor) ([]byte, error) {
	return vanguard.JSONCodec{}.MarshalAppendField(base, message, field)
}

func (c strictJSON) UnmarshalField(data []byte, message proto.Message, field protoreflect.FieldDescriptor) error {
	if err := (vanguard.JSONCodec{}).UnmarshalField(data, message, field); err != nil {
		return decodeError(err.Error())
	}
	return nil
}

func newGzipReader() connectv1.Decompressor { return &rpc.GzipReader{} }
func newGzipWriter() connectv1.Compressor   { return gzip.NewWriter(io.Discard) }

var _ http.Flusher = (*discardWriter)(nil) // vanguard wants one
