package bff

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
)

// wantUser is what accountOf and profileOf make together.
func wantUser(id string) *bffv1.User {
	return &bffv1.User{
		Id: id, Email: id[9:13] + "@example.com", EmailVerified: true, Status: bffv1.UserStatus_USER_STATUS_ACTIVE, Roles: []string{"user"},
		FirstName: "Ada", LastName: "Lovelace", Locale: "en", Etag: "v1",
		CreateTime: accountOf(id).GetCreateTime(), UpdateTime: profileOf(id).GetUpdateTime(),
	}
}

func wantMessage(t testing.TB, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
	}
}

func TestAUserIsComposedOfAccountAndProfile(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		h := newHarness(t, options{apart: apart})
		res, got := ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: alice}, h.token(alice))
		wantNoError(t, "GetUser", got.err)
		wantMessage(t, "GetUser", res.GetUser(), wantUser(alice))
	}
	disabled := accountOf(alice)
	disabled.Status, disabled.UpdateTime = authv1.AccountStatus_ACCOUNT_STATUS_DISABLED, timestamppb.New(profileOf(alice).GetUpdateTime().AsTime().AddDate(1, 0, 0))
	want := wantUser(alice)
	want.Status, want.UpdateTime = bffv1.UserStatus_USER_STATUS_DISABLED, disabled.GetUpdateTime()
	wantMessage(t, "a disabled account that changed last", userOf(disabled, profileOf(alice)), want)
}

// Whichever part comes first: without an account there is no such user, and
// with one the profile is on its way.
func TestAUserWithoutAccountOrProfile(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GetMe", "GetUser"} {
		for _, first := range []string{"account", "profile"} {
			t.Run(method+", the "+first+" first", func(t *testing.T) {
				t.Parallel()
				h := newHarness(t, options{})
				account, profile := make(chan error), make(chan error)
				answer(h.backend, authv1.AccountServiceGetAccountProcedure, func(ctx context.Context, req *authv1.GetAccountRequest) (*authv1.GetAccountResponse, error) {
					select {
					case err := <-account:
						return &authv1.GetAccountResponse{Account: accountOf(req.GetAccountId())}, err
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				})
				answer(h.backend, usersv1.ProfileServiceGetProfileProcedure, func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
					select {
					case err := <-profile:
						return &usersv1.GetProfileResponse{Profile: profileOf(req.GetProfileId())}, err
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				})
				call := func(accountErr, profileErr error) reply {
					over := make(chan reply, 1)
					go func() {
						if method == "GetMe" {
							_, got := h.getMe(t, h.token(alice))
							over <- got
						} else {
							_, got := ask(t, h.users.GetUser, &bffv1.GetUserRequest{UserId: alice}, h.token(alice))
							over <- got
						}
					}()
					let := func(part chan error, err error) *reply {
						select {
						case part <- err:
							return nil
						case got := <-over: // the other's failure was enough
							return &got
						}
					}
					if first == "profile" {
						if got := let(profile, profileErr); got != nil {
							return *got
						}
						if got := let(account, accountErr); got != nil {
							return *got
						}
					} else {
						if got := let(account, accountErr); got != nil {
							return *got
						}
						if got := let(profile, profileErr); got != nil {
							return *got
						}
					}
					return <-over
				}
				wantError(t, "neither", call(errNoUser, errNoProfile), http.StatusNotFound, connect.CodeNotFound, "USER_NOT_FOUND")
				wantError(t, "a profile alone", call(errNoUser, nil), http.StatusNotFound, connect.CodeNotFound, "USER_NOT_FOUND")
				wantUnavailable(t, "an account alone", call(nil, errNoProfile), "PROFILE_PENDING")
				if got := call(nil, nil); got.err != nil {
					t.Errorf("both: %v", got.err)
				}
			})
		}
	}
}

func TestGetMeSucceedsWithoutSessions(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	res, got := h.getMe(t, h.token(alice))
	wantNoError(t, "GetMe", got.err)
	wantMessage(t, "GetMe", res, &bffv1.GetMeResponse{
		User: wantUser(alice), Sessions: []*bffv1.Session{{Id: session, Current: true}}, Security: &bffv1.Security{ActiveSessions: 1, Level: 1},
	})
	if cache := got.header.Get("Cache-Control"); cache != "" {
		t.Errorf("a whole answer: got Cache-Control %q, want none", cache)
	}

	h.fail(authv1.SessionServiceListSessionsProcedure, fault.Unavailable())
	for name, client := range map[string]bffv1.AccountServiceClient{
		"POST": h.accounts, "GET": bffv1.NewAccountServiceClient(h.client(connecthttp.WithProtoJSON(), connecthttp.WithHTTPGet())),
	} {
		res, got = ask(t, client.GetMe, &bffv1.GetMeRequest{}, h.token(alice))
		wantNoError(t, "GetMe", got.err)
		wantMessage(t, name+" GetMe", res, &bffv1.GetMeResponse{
			User: wantUser(alice), Security: &bffv1.Security{ActiveSessions: 1, Level: 1}, Errors: []*bffv1.PartError{away("sessions")},
		})
		if cache := got.header.Get("Cache-Control"); got.status != http.StatusOK || cache != "no-store" {
			t.Errorf("%s of an answer that lacks a part: got %d, Cache-Control %q, want 200, no-store", name, got.status, cache)
		}
	}
}

func TestListUsersMakesTwoCallsForAnyPageSize(t *testing.T) {
	t.Parallel()
	for _, size := range []int32{1, 2, 25, 100} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{})
			var ids []string
			for i := range size {
				ids = append(ids, uuid.NewSHA1(uuid.Nil, []byte{byte(i)}).String())
			}
			answer(h.backend, usersv1.ProfileServiceListProfilesProcedure, func(_ context.Context, req *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
				wantMessage(t, "ListProfiles", req, &usersv1.ListProfilesRequest{
					PageSize: size, PageToken: "here", Query: "ada", Status: usersv1.ProfileStatus_PROFILE_STATUS_DISABLED, Order: usersv1.ProfileOrder_PROFILE_ORDER_EMAIL,
				})
				res := &usersv1.ListProfilesResponse{NextPageToken: "there"}
				for _, id := range ids {
					res.Profiles = append(res.Profiles, profileOf(id))
				}
				return res, nil
			})
			answer(h.backend, authv1.AccountServiceBatchGetAccountsProcedure, func(_ context.Context, req *authv1.BatchGetAccountsRequest) (*authv1.BatchGetAccountsResponse, error) {
				if !slices.Equal(req.GetAccountIds(), ids) {
					t.Errorf("BatchGetAccounts: got %d ids %q, want those of the page", len(req.GetAccountIds()), req.GetAccountIds())
				}
				// In any order, and without the one that has just gone.
				res := &authv1.BatchGetAccountsResponse{}
				for _, id := range slices.Backward(ids) {
					if size == 1 || id != ids[1] {
						res.Accounts = append(res.Accounts, accountOf(id))
					}
				}
				return res, nil
			})
			before := h.called("")
			res, got := ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{
				PageSize: size, PageToken: "here", Query: "ada", Status: bffv1.UserStatus_USER_STATUS_DISABLED, OrderBy: "email",
			}, h.token(alice, "admin"))
			wantNoError(t, "ListUsers", got.err)
			want := &bffv1.ListUsersResponse{NextPageToken: "there"}
			for i, id := range ids {
				if i != 1 {
					want.Users = append(want.Users, wantUser(id))
				}
			}
			wantMessage(t, "ListUsers", res, want)
			profiles, accounts := h.called(usersv1.ProfileServiceListProfilesProcedure), h.called(authv1.AccountServiceBatchGetAccountsProcedure)
			if profiles != 1 || accounts != 1 || h.called("") != before+2 {
				t.Errorf("got %d calls of ListProfiles, %d of BatchGetAccounts, %d of all, want 1, 1 and 2", profiles, accounts, h.called("")-before)
			}
		})
	}
}

func TestListUsersOfAnEmptyPageMakesOneCall(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	answer(h.backend, usersv1.ProfileServiceListProfilesProcedure, func(context.Context, *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
		return &usersv1.ListProfilesResponse{}, nil
	})
	res, got := ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{}, h.token(alice, "admin"))
	wantNoError(t, "ListUsers", got.err)
	wantMessage(t, "ListUsers", res, &bffv1.ListUsersResponse{})
	if calls := h.called(authv1.AccountServiceBatchGetAccountsProcedure); calls != 0 {
		t.Errorf("got %d calls of BatchGetAccounts, want none", calls)
	}
	h.fail(usersv1.ProfileServiceListProfilesProcedure, fault.Invalid("PAGE_TOKEN_INVALID", "page_token", "is of another query"))
	_, got = ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{PageToken: "x"}, h.token(alice, "admin"))
	wantError(t, "a foreign page token", got, http.StatusBadRequest, connect.CodeInvalidArgument, "PAGE_TOKEN_INVALID")
}

func TestEveryOrderAndStatusHasItsCounterpart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	asked := make(chan *usersv1.ListProfilesRequest, 1)
	answer(h.backend, usersv1.ProfileServiceListProfilesProcedure, func(_ context.Context, req *usersv1.ListProfilesRequest) (*usersv1.ListProfilesResponse, error) {
		asked <- req
		return &usersv1.ListProfilesResponse{}, nil
	})
	for order, want := range map[string]usersv1.ProfileOrder{
		"": usersv1.ProfileOrder_PROFILE_ORDER_NEWEST_FIRST, "create_time desc": usersv1.ProfileOrder_PROFILE_ORDER_NEWEST_FIRST,
		"create_time": usersv1.ProfileOrder_PROFILE_ORDER_OLDEST_FIRST, "email": usersv1.ProfileOrder_PROFILE_ORDER_EMAIL,
	} {
		_, got := ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{OrderBy: order}, h.token(alice, "admin"))
		wantNoError(t, "ListUsers by "+order, got.err)
		if req := <-asked; req.GetOrder() != want {
			t.Errorf("ListUsers by %q: got %s, want %s", order, req.GetOrder(), want)
		}
	}
	for status := range bffv1.UserStatus_name {
		_, got := ask(t, h.users.ListUsers, &bffv1.ListUsersRequest{Status: bffv1.UserStatus(status)}, h.token(alice, "admin"))
		wantNoError(t, "ListUsers", got.err)
		want := strings.Replace(bffv1.UserStatus(status).String(), "USER_", "PROFILE_", 1)
		if req := <-asked; req.GetStatus().String() != want {
			t.Errorf("ListUsers of %s: got %s, want %s", bffv1.UserStatus(status), req.GetStatus(), want)
		}
	}
}

func TestUpdatesPassValuesMaskAndEtag(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	asked := make(chan *usersv1.UpdateProfileRequest, 1)
	answer(h.backend, usersv1.ProfileServiceUpdateProfileProcedure, func(_ context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
		asked <- req
		updated := profileOf(req.GetProfile().GetId())
		updated.FirstName = "Grace"
		return &usersv1.UpdateProfileResponse{Profile: updated}, nil
	})
	want := wantUser(alice)
	want.FirstName = "Grace"
	for _, test := range []struct {
		name string
		user *bffv1.User
		mask []string
		want []string
	}{
		{"no mask", &bffv1.User{LastName: "L", FirstName: "F", Locale: "de"}, nil, []string{"first_name", "last_name", "locale"}},
		{"no mask, some values", &bffv1.User{Locale: "de", LastName: "L"}, nil, []string{"last_name", "locale"}},
		{"no mask, one value", &bffv1.User{LastName: "L"}, nil, []string{"last_name"}},
		{"an empty mask", &bffv1.User{LastName: "L"}, []string{}, []string{"last_name"}},
		{"a mask", &bffv1.User{LastName: "L", FirstName: "F"}, []string{"last_name"}, []string{"last_name"}},
		{"a mask of an empty value", &bffv1.User{}, []string{"locale"}, []string{"locale"}},
		{"a mask in its own order", &bffv1.User{}, []string{"locale", "first_name"}, []string{"locale", "first_name"}},
	} {
		mask := &fieldmaskpb.FieldMask{Paths: test.mask}
		if test.mask == nil {
			mask = nil
		}
		for range 5 { // the same each time
			test.user.Etag = "v7"
			me, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: test.user, UpdateMask: mask}, h.token(alice))
			wantNoError(t, test.name, got.err)
			wantMessage(t, test.name, me.GetUser(), want)
			values := &usersv1.Profile{Id: alice, FirstName: test.user.GetFirstName(), LastName: test.user.GetLastName(), Locale: test.user.GetLocale(), Etag: "v7"}
			wantMessage(t, test.name, <-asked, &usersv1.UpdateProfileRequest{Profile: values, UpdateMask: &fieldmaskpb.FieldMask{Paths: test.want}})
		}
	}

	// One's own profile, whatever id stands in the message.
	_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: &bffv1.User{Id: bob, FirstName: "F"}}, h.token(alice))
	wantNoError(t, "UpdateMe with another's id", got.err)
	if id := (<-asked).GetProfile().GetId(); id != alice {
		t.Errorf("UpdateMe with another's id changed %s, want one's own", id)
	}

	before := h.called("")
	for name, user := range map[string]*bffv1.User{"nothing": {}, "account fields alone": {Email: "a@example.com", Roles: []string{"admin"}}} {
		_, got := ask(t, h.accounts.UpdateMe, &bffv1.UpdateMeRequest{User: user}, h.token(alice))
		wantError(t, name, got, http.StatusBadRequest, connect.CodeInvalidArgument, "UPDATE_MASK_INVALID")
		if fields := violations(t, got.err); len(fields) != 1 || fields[0].GetField() != "update_mask" {
			t.Errorf("%s: got violations %v, want one of update_mask", name, fields)
		}
	}
	if h.called("") != before {
		t.Error("an update of nothing called a service")
	}
}

func TestUpdatesThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		procedure string
		err       error
		status    int
		code      connect.Code
		reason    string
	}{
		{"a stale etag", usersv1.ProfileServiceUpdateProfileProcedure, fault.New(connect.CodeAborted, "ETAG_MISMATCH", "It has changed."), 409, connect.CodeAborted, "ETAG_MISMATCH"},
		{"a wrong mask", usersv1.ProfileServiceUpdateProfileProcedure, fault.Invalid("UPDATE_MASK_INVALID", "update_mask", "no"), 400, connect.CodeInvalidArgument, "UPDATE_MASK_INVALID"},
		{"no profile yet", usersv1.ProfileServiceUpdateProfileProcedure, errNoProfile, 503, connect.CodeUnavailable, "PROFILE_PENDING"},
		{"no account", authv1.AccountServiceGetAccountProcedure, errNoUser, 404, connect.CodeNotFound, "USER_NOT_FOUND"},
		{"auth away", authv1.AccountServiceGetAccountProcedure, fault.Unavailable(), 503, connect.CodeUnavailable, fault.ReasonUnavailable},
		{"users away", usersv1.ProfileServiceUpdateProfileProcedure, fault.Unavailable(), 503, connect.CodeUnavailable, fault.ReasonUnavailable},
	} {
		h := newHarness(t, options{})
		h.fail(test.procedure, test.err)
		_, got := ask(t, h.users.UpdateUser, &bffv1.UpdateUserRequest{User: &bffv1.User{Id: alice, FirstName: "F", Etag: "v0"}}, h.token(alice))
		wantError(t, test.name, got, test.status, test.code, test.reason)
		if test.procedure == authv1.AccountServiceGetAccountProcedure && h.called(usersv1.ProfileServiceUpdateProfileProcedure) != 0 {
			t.Errorf("%s: the update was made all the same", test.name)
		}
	}
}

// What auth changes is done once auth says so: the profile is asked for only to
// show the user.
func TestChangesOfAnAccountNeedNoProfile(t *testing.T) {
	t.Parallel()
	changed := accountOf(bob)
	changed.Roles = []string{"changed"}
	type composed interface {
		GetUser() *bffv1.User
		GetErrors() []*bffv1.PartError
	}
	for name, test := range map[string]struct {
		prepare func(*harness)
		call    func(*harness) (composed, reply)
	}{
		"DisableUser": {
			func(h *harness) {
				answer(h.backend, authv1.AccountServiceSetAccountStatusProcedure, func(_ context.Context, req *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
					if req.GetAccountId() != bob || req.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_DISABLED {
						t.Errorf("DisableUser asked for %v", req)
					}
					return &authv1.SetAccountStatusResponse{Account: changed}, nil
				})
			},
			func(h *harness) (composed, reply) {
				return ask(t, h.users.DisableUser, &bffv1.DisableUserRequest{UserId: bob}, h.token(alice, "admin"))
			},
		},
		"EnableUser": {
			func(h *harness) {
				answer(h.backend, authv1.AccountServiceSetAccountStatusProcedure, func(_ context.Context, req *authv1.SetAccountStatusRequest) (*authv1.SetAccountStatusResponse, error) {
					if req.GetAccountId() != bob || req.GetStatus() != authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE {
						t.Errorf("EnableUser asked for %v", req)
					}
					return &authv1.SetAccountStatusResponse{Account: changed}, nil
				})
			},
			func(h *harness) (composed, reply) {
				return ask(t, h.users.EnableUser, &bffv1.EnableUserRequest{UserId: bob}, h.token(alice, "admin"))
			},
		},
		"SetUserRoles": {
			func(h *harness) {
				answer(h.backend, authv1.AccountServiceSetAccountRolesProcedure, func(_ context.Context, req *authv1.SetAccountRolesRequest) (*authv1.SetAccountRolesResponse, error) {
					if req.GetAccountId() != bob || !slices.Equal(req.GetRoles(), []string{"a", "b"}) || req.GetOrigin().GetAccountId() != alice {
						t.Errorf("SetUserRoles asked for %v", req)
					}
					return &authv1.SetAccountRolesResponse{Account: changed}, nil
				})
			},
			func(h *harness) (composed, reply) {
				return ask(t, h.users.SetUserRoles, &bffv1.SetUserRolesRequest{UserId: bob, Roles: []string{"a", "b"}}, h.token(alice, "admin"))
			},
		},
		"ChangeUserEmail": {
			func(h *harness) {
				answer(h.backend, authv1.AccountServiceChangeAccountEmailProcedure, func(_ context.Context, req *authv1.ChangeAccountEmailRequest) (*authv1.ChangeAccountEmailResponse, error) {
					if req.GetAccountId() != bob || req.GetEmail() != "b@example.com" {
						t.Errorf("ChangeUserEmail asked for %v", req)
					}
					return &authv1.ChangeAccountEmailResponse{Account: changed}, nil
				})
			},
			func(h *harness) (composed, reply) {
				return ask(t, h.users.ChangeUserEmail, &bffv1.ChangeUserEmailRequest{UserId: bob, Email: "b@example.com"}, h.token(alice, "admin"))
			},
		},
		"CreateUser": {
			func(h *harness) {
				answer(h.backend, authv1.AccountServiceCreateAccountProcedure, func(_ context.Context, req *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
					if id, err := uuid.Parse(req.GetAccountId()); err != nil || id.Version() != 7 || req.GetSignIn() ||
						req.GetEmail() != "b@example.com" || req.GetPassword() != "long enough" || !slices.Equal(req.GetRoles(), []string{"a"}) ||
						req.GetProfile().GetFirstName() != "F" || req.GetProfile().GetLastName() != "L" || req.GetProfile().GetLocale() != "de" {
						t.Errorf("CreateUser asked for %v", req)
					}
					return &authv1.CreateAccountResponse{Account: changed}, nil
				})
			},
			func(h *harness) (composed, reply) {
				return ask(t, h.users.CreateUser, &bffv1.CreateUserRequest{
					User: &bffv1.User{Email: "b@example.com", FirstName: "F", LastName: "L", Locale: "de", Roles: []string{"a"}}, Password: "long enough",
				}, h.token(alice, "admin"))
			},
		},
	} {
		h := newHarness(t, options{})
		test.prepare(h)
		want := wantUser(bob)
		want.Roles = changed.GetRoles()
		res, got := test.call(h)
		wantNoError(t, name, got.err)
		wantMessage(t, name, res.GetUser(), want)
		wantMissing(t, name, res.GetErrors())

		bare := userOf(changed, nil)
		for why, missing := range map[error]*bffv1.PartError{
			fault.Unavailable(): away("profile"),
			errNoProfile:        {Part: "profile", Code: "unavailable", Reason: "PROFILE_PENDING", Retryable: true},
		} {
			h.fail(usersv1.ProfileServiceGetProfileProcedure, why)
			res, got = test.call(h)
			wantNoError(t, name, got.err)
			wantMessage(t, name+" with "+why.Error(), res.GetUser(), bare)
			wantMissing(t, name+" with "+why.Error(), res.GetErrors(), missing)
		}
	}
}

func TestDeletingOneselfNeedsARecentSignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	asked := make(chan *authv1.DeleteAccountRequest, 1)
	answer(h.backend, authv1.AccountServiceDeleteAccountProcedure, func(_ context.Context, req *authv1.DeleteAccountRequest) (*authv1.DeleteAccountResponse, error) {
		asked <- req
		return &authv1.DeleteAccountResponse{}, nil
	})
	_, got := ask(t, h.accounts.DeleteMe, &bffv1.DeleteMeRequest{}, h.token(alice))
	wantNoError(t, "DeleteMe", got.err)
	if req := <-asked; req.GetAccountId() != alice || !req.GetRequireRecentSignIn() || req.GetOrigin().GetSessionId() != session {
		t.Errorf("DeleteMe asked for %v, want one's own account, with a recent sign-in in this session", req)
	}
	_, got = ask(t, h.users.DeleteUser, &bffv1.DeleteUserRequest{UserId: bob}, h.token(alice, "admin"))
	wantNoError(t, "DeleteUser", got.err)
	// An auth of the version before would look for a sign-in of bob's.
	if req := <-asked; req.GetAccountId() != bob || req.GetRequireRecentSignIn() || !req.GetOrigin().GetRequireRecentSignIn() || req.GetOrigin().GetAccountId() != alice {
		t.Errorf("DeleteUser asked for %v, want the other's account, by alice, with a recent sign-in of hers", req)
	}
}

func TestSessionsAreEndedForTheRightAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{})
	all, one := make(chan *authv1.RevokeSessionsRequest, 1), make(chan *authv1.RevokeSessionRequest, 1)
	answer(h.backend, authv1.SessionServiceRevokeSessionsProcedure, func(_ context.Context, req *authv1.RevokeSessionsRequest) (*authv1.RevokeSessionsResponse, error) {
		all <- req
		return &authv1.RevokeSessionsResponse{Revoked: 3}, nil
	})
	answer(h.backend, authv1.SessionServiceRevokeSessionProcedure, func(_ context.Context, req *authv1.RevokeSessionRequest) (*authv1.RevokeSessionResponse, error) {
		one <- req
		return &authv1.RevokeSessionResponse{}, nil
	})
	others, got := ask(t, h.accounts.RevokeOtherSessions, &bffv1.RevokeOtherSessionsRequest{}, h.token(alice))
	wantNoError(t, "RevokeOtherSessions", got.err)
	if req := <-all; req.GetAccountId() != alice || req.GetExceptSessionId() != session || others.GetRevoked() != 3 {
		t.Errorf("RevokeOtherSessions asked for %v and said %d", req, others.GetRevoked())
	}
	users, got := ask(t, h.users.RevokeUserSessions, &bffv1.RevokeUserSessionsRequest{UserId: bob}, h.token(alice, "admin"))
	wantNoError(t, "RevokeUserSessions", got.err)
	if req := <-all; req.GetAccountId() != bob || req.GetExceptSessionId() != "" || users.GetRevoked() != 3 {
		t.Errorf("RevokeUserSessions asked for %v and said %d", req, users.GetRevoked())
	}
	_, got = ask(t, h.accounts.RevokeSession, &bffv1.RevokeSessionRequest{SessionId: bob}, h.token(alice))
	wantNoError(t, "RevokeSession", got.err)
	if req := <-one; req.GetAccountId() != alice || req.GetSessionId() != bob {
		t.Errorf("RevokeSession asked for %v, want a session of alice's", req)
	}
	list, got := ask(t, h.accounts.ListSessions, &bffv1.ListSessionsRequest{}, h.token(alice))
	wantNoError(t, "ListSessions", got.err)
	if len(list.GetSessions()) != 1 || !list.GetSessions()[0].GetCurrent() {
		t.Errorf("ListSessions: got %v, want the current one", list.GetSessions())
	}
}
