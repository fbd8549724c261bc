package main

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// examples are values by full field name, or by short name for every field of that
// name. All are about the same user, Ada.
var examples = map[string]any{
	"access_token":            "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9.e30.c2lnbmF0dXJl",
	"active":                  true,
	"active_sessions":         1,
	"actor_id":                adaID,
	"attempts":                1,
	"code":                    "unavailable",
	"bff.v1.AuditEvent.count": 1,
	"create_time":             "2026-03-01T09:30:00Z",
	"current":                 true,
	"current_password":        "correct horse battery",
	"device_token":            "ghd_Zm9yLXRoaXMtZGV2aWNl",
	"email":                   "ada@example.com",
	"email_verified":          true,
	"end_time":                "2026-03-02T00:00:00Z",
	"etag":                    "AAAAAAAAAAE",
	"event":                   "session.login",
	"expire_time":             "2026-03-31T09:30:00Z",
	"expires_in":              300,
	"export_time":             "2026-03-01T10:00:00Z",
	"first_name":              "Ada",
	"id":                      adaID,
	"ip_address":              "203.0.113.7",
	"kind":                    "reset_password",
	"last_error":              "550 5.1.1 no such mailbox",
	"last_name":               "Lovelace",
	"last_sign_in_time":       "2026-03-01T09:30:00Z",
	"last_used_time":          "2026-03-01T09:30:00Z",
	"locale":                  "en-GB",
	"mail_id":                 mailID,
	"new_email":               "ada@analytical.example.com",
	"new_password":            "a loom weaves flowers and leaves",
	"next_attempt_time":       "2026-03-01T09:31:00Z",
	"next_page_token":         "cGFnZS0y",
	"order_by":                "email",
	"outcome":                 "succeeded",
	"page_size":               25,
	"page_token":              "cGFnZS0y",
	"part":                    "profile",
	"password":                "correct horse battery",
	"password_change_time":    "2026-03-01T09:30:00Z",
	"query":                   "ada",
	"reason":                  "CREDENTIALS_INVALID",
	"recipient":               "ada@example.com",
	"refresh_expires_in":      2592000,
	"refresh_token":           "ghr_b25lLWdlbmVyYXRpb24",
	"request_id":              "5f0c2f6e-6a3c-4a43-9a35-0d0a6b1c2d3e",
	"retryable":               true,
	"revoke_reason":           "logout",
	"revoke_time":             "2026-03-01T10:00:00Z",
	"revoked":                 2,
	"roles":                   "editor",
	"session_id":              sessionID,
	"start_time":              "2026-03-01T00:00:00Z",
	"token":                   "ghl_b3Blbi1pdC1hcy1pdC1zdGFuZHM",
	"token_type":              "Bearer",
	"update_mask":             "firstName,lastName",
	"update_time":             "2026-03-01T09:30:00Z",
	"user_agent":              "Mozilla/5.0",
	"user_id":                 adaID,
	"bff.v1.AuditEvent.id":    "0195514a-3c11-7b52-8f0e-1f6a0c9d2b71",
	"bff.v1.Mail.id":          mailID,
	"bff.v1.Session.id":       sessionID,
	"bff.v1.PartError.code":   "unavailable",

	"bff.v1.PartError.reason": "SERVICE_UNAVAILABLE",

	"bff.v1.ExportMeResponse.services": object{},
}

const (
	adaID     = "0195514a-2f40-7cc3-98c4-dc0c0c07398f"
	mailID    = "0195514a-5d22-7a90-b1c7-93e2f4a6d8b0"
	sessionID = "5b0d5c1e-7c39-4f4a-9d5e-2f8b1a6c3e47"
)

// unlikely fields are left out of example responses: they describe failures or past
// states.
var unlikely = map[protoreflect.FullName]bool{
	"bff.v1.AuditEvent.reason": true, "bff.v1.Mail.last_error": true, "bff.v1.Mail.next_attempt_time": true,
	"bff.v1.Session.revoke_time": true, "bff.v1.Session.revoke_reason": true,
}

// offered are optional fields that example requests include.
var offered = map[protoreflect.Name]bool{
	"first_name": true, "last_name": true, "roles": true, "refresh_token": true, "page_size": true,
}

// changedUser is the user in example updates.
var changedUser = object{{"firstName", "Ada"}, {"lastName", "King"}}

// requests are example requests that can't be derived from their fields.
var requests = map[protoreflect.FullName]object{
	"bff.v1.VerifyEmailRequest": {
		{"token", examples["token"]}, {"password", examples["password"]}, {"firstName", examples["first_name"]}, {"lastName", examples["last_name"]},
	},
	"bff.v1.CreateUserRequest": {
		{"user", object{{"email", "grace@example.com"}, {"firstName", "Grace"}, {"lastName", "Hopper"}, {"roles", []string{"editor"}}}},
		{"password", "correct horse battery"},
	},
	"bff.v1.UpdateMeRequest":   {{"user", changedUser}, {"updateMask", "firstName,lastName"}},
	"bff.v1.UpdateUserRequest": {{"user", append(object{{"id", adaID}}, changedUser...)}, {"updateMask", "firstName,lastName"}},
	"bff.v1.User":              changedUser,
}

// scalarExample returns an example of one value of a field.
func scalarExample(field protoreflect.FieldDescriptor) (any, error) {
	if field.Kind() == protoreflect.EnumKind {
		return string(field.Enum().Values().Get(1).Name()), nil
	}
	if example, ok := examples[string(field.FullName())]; ok {
		return example, nil
	}
	if example, ok := examples[string(field.Name())]; ok {
		return example, nil
	}
	return nil, fmt.Errorf("no example is known of %s", field.FullName())
}

// requestExample returns an example request, without the fields in the path.
func (s *schemas) requestExample(message protoreflect.MessageDescriptor, elsewhere map[protoreflect.Name]bool) (object, error) {
	if example, ok := requests[message.FullName()]; ok {
		return example, nil
	}
	return s.example(message, func(field protoreflect.FieldDescriptor) bool {
		_, needed, err := s.field(field)
		return err == nil && !elsewhere[field.Name()] && (needed || offered[field.Name()])
	})
}

// responseExample returns an example response with the first alternative of each
// oneof, or the last if asked for.
func (s *schemas) responseExample(message protoreflect.MessageDescriptor, last bool) (object, error) {
	return s.example(message, func(field protoreflect.FieldDescriptor) bool {
		if field.Message() != nil && field.Message().Name() == "PartError" || unlikely[field.FullName()] {
			return false
		}
		choice := field.ContainingOneof()
		if choice == nil {
			return true
		}
		chosen := 0
		if last {
			chosen = choice.Fields().Len() - 1
		}
		return choice.Fields().Get(chosen) == field
	})
}

func (s *schemas) example(message protoreflect.MessageDescriptor, shown func(protoreflect.FieldDescriptor) bool) (object, error) {
	example := object{}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if !shown(field) {
			continue
		}
		var value any
		var err error
		if field.Message() != nil && field.Message().ParentFile().Package() == publicPackage {
			value, err = s.example(field.Message(), shown)
		} else {
			value, err = scalarExample(field)
		}
		if err != nil {
			return nil, err
		}
		if field.IsList() {
			value = []any{value}
		}
		example.set(field.JSONName(), value)
	}
	return example, nil
}
