package bff

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
)

func attributeOf(key, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
}

// A repeated call must not overwrite what the user has changed since the first one.
func TestARepeatedCreateUserKeepsAttributesThatAreThere(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	stored := ""
	answer(h.backend, usersv1.ProfileServiceCheckAttributesProcedure, func(context.Context, *usersv1.CheckAttributesRequest) (*usersv1.CheckAttributesResponse, error) {
		return &usersv1.CheckAttributesResponse{}, nil
	})
	answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(_ context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
		profile := profileOf(req.GetProfileId())
		profile.Attributes = stored
		return &usersv1.GetProfileResponse{Profile: profile}, nil
	})
	answer(h.backend, usersv1.ProfileServiceUpdateProfileProcedure, func(_ context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
		if !slices.Equal(req.GetUpdateMask().GetPaths(), []string{"attributes"}) || req.GetProfile().GetEtag() != "v1" || req.GetActor().GetAccountId() != alice {
			t.Errorf("UpdateProfile got %v, want the attributes of version v1 by alice", req)
		}
		profile := profileOf(req.GetProfile().GetId())
		profile.Attributes = req.GetProfile().GetAttributes()
		return &usersv1.UpdateProfileResponse{Profile: profile}, nil
	})
	create := &bffv1.CreateUserRequest{User: &bffv1.User{Email: "ada@example.com", Attributes: attributeOf("theme", "dark")}}
	for _, step := range []struct{ stored, want string }{{"", "dark"}, {`{"theme":"light"}`, "light"}} {
		stored = step.stored
		res, got := ask(t, h.users.CreateUser, create, h.token(alice, "admin"))
		wantNoError(t, "CreateUser", got.err)
		if theme := res.GetUser().GetAttributes().GetFields()["theme"].GetStringValue(); theme != step.want {
			t.Errorf("with %q stored, the theme is %q, want %q", step.stored, theme, step.want)
		}
	}
	if n := h.called(usersv1.ProfileServiceUpdateProfileProcedure); n != 1 {
		t.Errorf("UpdateProfile was called %d times, want once", n)
	}
}

// During a roll-out users may be of the version before, which does not know attributes.
func TestAttributesOfANewUserWaitForANewerUsers(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	h.fail(usersv1.ProfileServiceCheckAttributesProcedure, connect.NewError(connect.CodeUnimplemented, "unknown"))
	_, got := ask(t, h.users.CreateUser, &bffv1.CreateUserRequest{User: &bffv1.User{Email: "ada@example.com", AppAttributes: attributeOf("plan", "pro")}}, h.token(alice, "admin"))
	wantUnavailable(t, "CreateUser with attributes", got, "SERVICE_UNAVAILABLE")
	if n := h.called(authv1.AccountServiceCreateAccountProcedure); n != 0 {
		t.Errorf("CreateAccount was called %d times, want never", n)
	}
	_, got = ask(t, h.users.CreateUser, &bffv1.CreateUserRequest{User: &bffv1.User{Email: "ada@example.com"}}, h.token(alice, "admin"))
	wantNoError(t, "CreateUser without attributes", got.err)
}

func TestOnlyAdministratorsChangeAppAttributes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	var asked []string
	answer(h.backend, usersv1.ProfileServiceUpdateProfileProcedure, func(_ context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
		asked = req.GetUpdateMask().GetPaths()
		return &usersv1.UpdateProfileResponse{Profile: profileOf(req.GetProfile().GetId())}, nil
	})
	user := &bffv1.User{Id: alice, FirstName: "Ada", Attributes: attributeOf("theme", "dark"), AppAttributes: attributeOf("plan", "pro")}
	for _, test := range []struct {
		roles, mask, want []string
	}{
		{nil, nil, []string{"first_name", "attributes"}},
		{[]string{"editor"}, []string{"attributes"}, []string{"attributes"}},
		{[]string{"editor"}, []string{"attributes", "app_attributes"}, nil},
		{[]string{"admin"}, nil, []string{"first_name", "attributes", "app_attributes"}},
		{[]string{"admin"}, []string{"app_attributes"}, []string{"app_attributes"}},
	} {
		calls := map[string]func() reply{
			"UpdateMe": func() reply {
				_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: user, UpdateMask: maskOfPaths(test.mask)}, h.token(alice, test.roles...))
				return got
			},
			"UpdateUser": func() reply {
				_, got := ask(t, h.users.UpdateUser, &bffv1.UpdateUserRequest{User: user, UpdateMask: maskOfPaths(test.mask)}, h.token(alice, test.roles...))
				return got
			},
		}
		for name, call := range calls {
			asked = nil
			got := call()
			if test.want == nil {
				wantError(t, name, got, http.StatusForbidden, connect.CodePermissionDenied, "APP_ATTRIBUTES_READ_ONLY")
			} else {
				wantNoError(t, name, got.err)
			}
			if !slices.Equal(asked, test.want) {
				t.Errorf("%s of %v with the mask %v changes %v, want %v", name, test.roles, test.mask, asked, test.want)
			}
		}
	}
}

func maskOfPaths(paths []string) *fieldmaskpb.FieldMask {
	if paths == nil {
		return nil
	}
	return &fieldmaskpb.FieldMask{Paths: paths}
}
