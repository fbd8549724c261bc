package rpc

import (
	"strings"
	"testing"

	bffv1 "gatehouse/gen/bff/v1"
)

func TestAnEnumsValueByAnUnknownNameIsRefusedAndAnUnknownFieldIsNot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"status":"USER_STATUS_DISABLED"}`:                  "",
		`{"status":2,"hat":1}`:                               "",
		`{"status":99}`:                                      "", // the validator's matter
		`{"status":null,"hat":{"status":"NOPE"}}`:            "",
		`{"hat":1,"status":"USER_STATUS_DISABLED"}`:          "",
		`{"status":"NOPE"}`:                                  "enum field status",
		`{"hat":1,"status":"NOPE"}`:                          "enum field status",
		`{"status":"","hat":1}`:                              "enum field status",
		`{"hat":1,"pageSize":"many"}`:                        "pageSize",
		`{"hat":1,"query":"unknown field \"hat\"","page":1}`: "",
		``:    "zero-length",
		`{"h`: "unexpected",
	} {
		err := newJSONCodec().UnmarshalRead(t.Context(), strings.NewReader(text), &bffv1.ListUsersRequest{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	// In a message in the message, and with the rest of it read.
	var request bffv1.CreateUserRequest
	err := newJSONCodec().UnmarshalRead(t.Context(), strings.NewReader(`{"user":{"hat":1,"email":"a@example.com","create_time":"2026-01-01T00:00:00Z"}}`), &request)
	if want := "a@example.com"; err != nil || request.GetUser().GetEmail() != want || request.GetUser().GetCreateTime() == nil {
		t.Errorf("got %v, %v; want the email %s and the time", &request, err, want)
	}
	err = newJSONCodec().UnmarshalRead(t.Context(), strings.NewReader(`{"user":{"hat":1,"status":"NOPE"}}`), &request)
	if err == nil || !strings.Contains(err.Error(), "enum field status") {
		t.Errorf("got %v and %v, want the status refused", &request, err)
	}
}
