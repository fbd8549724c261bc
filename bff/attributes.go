package bff

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// This file turns attributes, which the public API has as google.protobuf.Struct, into
// the JSON text that users takes and returns, and back.

const (
	attributesField    = "attributes"
	appAttributesField = "app_attributes"

	roleAdmin = "admin"
)

var errAppAttributes = fault.New(connect.CodePermissionDenied, "APP_ATTRIBUTES_READ_ONLY",
	"Only administrators may change app_attributes. Leave app_attributes out of update_mask.")

// attributesOf returns attributes that users stores. They are without keys if they can't
// be read: a user must not become unreadable by them.
func attributesOf(text string) *structpb.Struct {
	if text == "" {
		return nil
	}
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return nil
	}
	converted, err := structpb.NewStruct(object)
	if err != nil {
		return nil
	}
	return converted
}

// attributesText returns attributes as JSON; "" if they are unset. name is their path in
// the request.
func attributesText(name string, attributes *structpb.Struct) (string, error) {
	if attributes == nil {
		return "", nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(attributes.AsMap()) != nil {
		return "", fault.Invalid(fault.ReasonAttributes, name, "must be JSON, which has neither NaN nor infinities")
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// actor returns who calls, for the audit event of changed attributes; nil if the mask
// names none.
func (d *directory) actor(ctx context.Context, mask *fieldmaskpb.FieldMask) *usersv1.Actor {
	if !slices.Contains(mask.GetPaths(), attributesField) && !slices.Contains(mask.GetPaths(), appAttributesField) {
		return nil
	}
	client := d.clientInfo(ctx)
	return &usersv1.Actor{
		AccountId: client.GetAccountId(), SessionId: client.GetSessionId(),
		IpAddress: client.GetIpAddress(), UserAgent: client.GetUserAgent(), RequestId: client.GetRequestId(),
	}
}

func isAdministrator(ctx context.Context) bool { return caller(ctx).HasAny([]string{roleAdmin}) }

func hasAttributes(user *bffv1.User) bool {
	return len(user.GetAttributes().GetFields()) > 0 || len(user.GetAppAttributes().GetFields()) > 0
}

// withAttributes sets a profile's attributes from those of a user.
func withAttributes(profile *usersv1.Profile, user *bffv1.User) (*usersv1.Profile, error) {
	var err error
	if profile.Attributes, err = attributesText(attributesField, user.GetAttributes()); err != nil {
		return nil, err
	}
	if profile.AppAttributes, err = attributesText(appAttributesField, user.GetAppAttributes()); err != nil {
		return nil, err
	}
	return profile, nil
}

// checkAttributes refuses a new user's attributes before the account is created.
func (d *directory) checkAttributes(ctx context.Context, user *bffv1.User) error {
	if !hasAttributes(user) {
		return nil
	}
	wanted, err := withAttributes(&usersv1.Profile{}, user)
	if err != nil {
		return err
	}
	_, err = callService(ctx, readLimit, func(ctx context.Context) (*usersv1.CheckAttributesResponse, error) {
		checked, err := d.profiles.CheckAttributes(ctx, &usersv1.CheckAttributesRequest{Attributes: wanted.GetAttributes(), AppAttributes: wanted.GetAppAttributes()})
		if connect.CodeOf(err) == connect.CodeUnimplemented { // a users of the version before, during a roll-out
			err = fault.Unavailable().WithCause(err)
		}
		return checked, err
	})
	return err
}

// newProfile fetches the profile of a new account for a composition, and stores the
// user's attributes in it. A repeated call finds them stored, and changes nothing: the
// user may have changed them since.
func (d *directory) newProfile(id string, user *bffv1.User) func(context.Context) (*usersv1.Profile, error) {
	fetch := d.profile(id)
	if !hasAttributes(user) {
		return fetch
	}
	return func(ctx context.Context) (*usersv1.Profile, error) {
		found, err := fetch(ctx)
		if err != nil || found.GetAttributes() != "" || found.GetAppAttributes() != "" {
			return found, err
		}
		wanted, err := withAttributes(&usersv1.Profile{Id: id, Etag: found.GetEtag()}, user)
		if err != nil {
			return nil, err
		}
		mask := &fieldmaskpb.FieldMask{}
		if wanted.GetAttributes() != "" {
			mask.Paths = append(mask.Paths, attributesField)
		}
		if wanted.GetAppAttributes() != "" {
			mask.Paths = append(mask.Paths, appAttributesField)
		}
		updated, err := d.profiles.UpdateProfile(ctx, &usersv1.UpdateProfileRequest{Profile: wanted, UpdateMask: mask, Actor: d.actor(ctx, mask)})
		return updated.GetProfile(), err
	}
}
