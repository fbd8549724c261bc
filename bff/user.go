package bff

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// reasonNoProfile is what users says of a profile that isn't there.
const reasonNoProfile = "PROFILE_NOT_FOUND"

var (
	errProfilePending = fault.WithRetry(fault.New(connect.CodeUnavailable, "PROFILE_PENDING",
		"The account is new and its profile is on its way. Try again in a moment."), time.Second)
	errMaskEmpty = fault.Invalid("UPDATE_MASK_INVALID", "update_mask", "name at least one of first_name, last_name and locale, or give one of them a value")
)

// userOf composes a user: email, status and roles are auth's, names are users'.
// profile may be nil.
func userOf(account *authv1.Account, profile *usersv1.Profile) *bffv1.User {
	status := bffv1.UserStatus_USER_STATUS_ACTIVE
	if account.GetStatus() == authv1.AccountStatus_ACCOUNT_STATUS_DISABLED {
		status = bffv1.UserStatus_USER_STATUS_DISABLED
	}
	return &bffv1.User{
		Id: account.GetId(), Email: account.GetEmail(), EmailVerified: account.GetEmailVerified(),
		Status: status, Roles: account.GetRoles(),
		FirstName: profile.GetFirstName(), LastName: profile.GetLastName(), Locale: profile.GetLocale(), Etag: profile.GetEtag(),
		CreateTime: account.GetCreateTime(), UpdateTime: later(account.GetUpdateTime(), profile.GetUpdateTime()),
	}
}

func later(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if b != nil && b.AsTime().After(a.AsTime()) {
		return b
	}
	return a
}

// account fetches an account for a composition.
func (s *Service) account(id string) func(context.Context) (*authv1.GetAccountResponse, error) {
	return func(ctx context.Context) (*authv1.GetAccountResponse, error) {
		return s.accounts.GetAccount(ctx, &authv1.GetAccountRequest{AccountId: id})
	}
}

// profile fetches a profile for a composition. One that isn't there is
// unavailable: while its account exists, the relay is about to bring it.
func (s *Service) profile(id string) func(context.Context) (*usersv1.Profile, error) {
	return func(ctx context.Context) (*usersv1.Profile, error) {
		response, err := s.profiles.GetProfile(ctx, &usersv1.GetProfileRequest{ProfileId: id})
		if fault.Reason(err) == reasonNoProfile {
			return nil, errProfilePending.WithCause(err)
		}
		return response.GetProfile(), err
	}
}

// withProfile composes a user of an account that is known and the profile if it
// can be had.
func (s *Service) withProfile(ctx context.Context, account *authv1.Account) (*bffv1.User, []*bffv1.PartError) {
	c := compose(ctx, s.logger)
	profile := optional(c, "profile", readLimit, s.profile(account.GetId()))
	_ = c.wait() // no part is required
	return userOf(account, profile.value), c.errors()
}

// CreateUser implements bffv1.UserServiceHandler.
func (s *Service) CreateUser(ctx context.Context, req *bffv1.CreateUserRequest) (*bffv1.CreateUserResponse, error) {
	created, err := s.createAccount(ctx, &authv1.CreateAccountRequest{
		Email: req.GetUser().GetEmail(), Password: req.GetPassword(), Roles: req.GetUser().GetRoles(),
		Profile: &authv1.ProfileSeed{
			FirstName: req.GetUser().GetFirstName(), LastName: req.GetUser().GetLastName(), Locale: req.GetUser().GetLocale(),
		},
	})
	if err != nil {
		return nil, err
	}
	user, missing := s.withProfile(ctx, created.GetAccount())
	return &bffv1.CreateUserResponse{User: user, Errors: missing}, nil
}

// createAccount chooses the id and asks auth for the account.
func (s *Service) createAccount(ctx context.Context, request *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("choose an id: %w", err)
	}
	request.AccountId, request.Origin, request.IdempotencyKey = id.String(), s.origin(ctx), idempotencyKey(ctx)
	crashpoint.Reach("bff: before auth is asked")
	created, err := fetchPart(ctx, writeLimit, func(ctx context.Context) (*authv1.CreateAccountResponse, error) {
		return s.accounts.CreateAccount(repeatable(ctx, request.GetIdempotencyKey()), request)
	})
	crashpoint.Reach("bff: after auth has answered")
	return created, err
}

// GetUser implements bffv1.UserServiceHandler.
func (s *Service) GetUser(ctx context.Context, req *bffv1.GetUserRequest) (*bffv1.GetUserResponse, error) {
	user, err := s.user(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return &bffv1.GetUserResponse{User: user}, nil
}

// user composes a user of both parts.
func (s *Service) user(ctx context.Context, id string) (*bffv1.User, error) {
	c := compose(ctx, s.logger)
	account := required(c, "account", readLimit, s.account(id))
	profile := required(c, "profile", readLimit, s.profileAfter(id))
	if err := c.wait(); err != nil {
		return nil, err
	}
	if profile.value == nil {
		return nil, errProfilePending
	}
	return userOf(account.value.GetAccount(), profile.value), nil
}

// profileAfter fetches a profile; nil when there is none. Only once the account
// is there too does that mean that the profile is on its way, rather than that
// there is no such user.
func (s *Service) profileAfter(id string) func(context.Context) (*usersv1.Profile, error) {
	fetch := s.profile(id)
	return func(ctx context.Context) (*usersv1.Profile, error) {
		profile, err := fetch(ctx)
		if fault.Reason(err) == fault.Reason(errProfilePending) {
			return nil, nil
		}
		return profile, err
	}
}

var profileOrders = map[string]usersv1.ProfileOrder{
	"":                 usersv1.ProfileOrder_PROFILE_ORDER_NEWEST_FIRST,
	"create_time desc": usersv1.ProfileOrder_PROFILE_ORDER_NEWEST_FIRST,
	"create_time":      usersv1.ProfileOrder_PROFILE_ORDER_OLDEST_FIRST,
	"email":            usersv1.ProfileOrder_PROFILE_ORDER_EMAIL,
}

var profileStatuses = map[bffv1.UserStatus]usersv1.ProfileStatus{
	bffv1.UserStatus_USER_STATUS_ACTIVE:   usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE,
	bffv1.UserStatus_USER_STATUS_DISABLED: usersv1.ProfileStatus_PROFILE_STATUS_DISABLED,
}

// ListUsers implements bffv1.UserServiceHandler.
func (s *Service) ListUsers(ctx context.Context, req *bffv1.ListUsersRequest) (*bffv1.ListUsersResponse, error) {
	c := compose(ctx, s.logger)
	page := required(c, "profiles", readLimit, func(ctx context.Context) (*usersv1.ListProfilesResponse, error) {
		return s.profiles.ListProfiles(ctx, &usersv1.ListProfilesRequest{
			PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), Query: req.GetQuery(),
			Status: profileStatuses[req.GetStatus()], Order: profileOrders[req.GetOrderBy()],
		})
	})
	accounts := requiredBatch(c, "accounts", readLimit, page, idsOf, s.accountsByID)
	if err := c.wait(); err != nil {
		return nil, err
	}
	response := &bffv1.ListUsersResponse{NextPageToken: page.value.GetNextPageToken()}
	for _, profile := range page.value.GetProfiles() {
		// A profile whose account was deleted a moment ago is about to go.
		if account := accounts.value[profile.GetId()]; account != nil {
			response.Users = append(response.Users, userOf(account, profile))
		}
	}
	return response, nil
}

func idsOf(page *usersv1.ListProfilesResponse) []string {
	ids := make([]string, 0, len(page.GetProfiles()))
	for _, profile := range page.GetProfiles() {
		ids = append(ids, profile.GetId())
	}
	return ids
}

func (s *Service) accountsByID(ctx context.Context, ids []string) (map[string]*authv1.Account, error) {
	batch, err := s.accounts.BatchGetAccounts(ctx, &authv1.BatchGetAccountsRequest{AccountIds: ids})
	if err != nil {
		return nil, err
	}
	accounts := make(map[string]*authv1.Account, len(ids))
	for _, account := range batch.GetAccounts() {
		accounts[account.GetId()] = account
	}
	return accounts, nil
}

// UpdateUser implements bffv1.UserServiceHandler.
func (s *Service) UpdateUser(ctx context.Context, req *bffv1.UpdateUserRequest) (*bffv1.UpdateUserResponse, error) {
	user, err := s.updateProfile(ctx, req.GetUser().GetId(), req.GetUser(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	return &bffv1.UpdateUserResponse{User: user}, nil
}

// updateProfile changes the masked profile fields and composes the user.
func (s *Service) updateProfile(ctx context.Context, id string, values *bffv1.User, mask *fieldmaskpb.FieldMask) (*bffv1.User, error) {
	mask, err := maskOf(values, mask)
	if err != nil {
		return nil, err
	}
	c := compose(ctx, s.logger)
	account := required(c, "account", readLimit, s.account(id))
	// Only once the account is there: an update must not be made whose answer can't
	// be given.
	updated := requiredFrom(c, "profile", writeLimit, account, func(ctx context.Context, _ *authv1.GetAccountResponse) (*usersv1.UpdateProfileResponse, error) {
		response, err := s.profiles.UpdateProfile(ctx, &usersv1.UpdateProfileRequest{
			Profile: &usersv1.Profile{
				Id: id, FirstName: values.GetFirstName(), LastName: values.GetLastName(), Locale: values.GetLocale(), Etag: values.GetEtag(),
			},
			UpdateMask: mask,
		})
		if fault.Reason(err) == reasonNoProfile {
			return nil, errProfilePending.WithCause(err)
		}
		return response, err
	})
	if err := c.wait(); err != nil {
		return nil, err
	}
	return userOf(account.value.GetAccount(), updated.value.GetProfile()), nil
}

// profileFields are what of a user is a profile's: all that an update changes.
var profileFields = []struct {
	path string
	of   func(*bffv1.User) string
}{
	{"first_name", (*bffv1.User).GetFirstName}, {"last_name", (*bffv1.User).GetLastName}, {"locale", (*bffv1.User).GetLocale},
}

func isProfileField(path string) bool {
	for _, field := range profileFields {
		if field.path == path {
			return true
		}
	}
	return false
}

// maskOf returns the mask, or without one the profile fields that have a value.
// It refuses a mask that names anything else, before a service is asked.
func maskOf(values *bffv1.User, mask *fieldmaskpb.FieldMask) (*fieldmaskpb.FieldMask, error) {
	for _, path := range mask.GetPaths() {
		if !isProfileField(path) {
			return nil, fault.Invalid("UPDATE_MASK_INVALID", "update_mask", fmt.Sprintf("%.64q can't be changed: name only first_name, last_name and locale", path))
		}
	}
	if len(mask.GetPaths()) > 0 {
		return mask, nil
	}
	mask = &fieldmaskpb.FieldMask{}
	for _, field := range profileFields {
		if field.of(values) != "" {
			mask.Paths = append(mask.Paths, field.path)
		}
	}
	if len(mask.GetPaths()) == 0 {
		return nil, errMaskEmpty
	}
	return mask, nil
}

// DisableUser implements bffv1.UserServiceHandler.
func (s *Service) DisableUser(ctx context.Context, req *bffv1.DisableUserRequest) (*bffv1.DisableUserResponse, error) {
	user, missing, err := s.setStatus(ctx, req.GetUserId(), authv1.AccountStatus_ACCOUNT_STATUS_DISABLED)
	if err != nil {
		return nil, err
	}
	return &bffv1.DisableUserResponse{User: user, Errors: missing}, nil
}

// EnableUser implements bffv1.UserServiceHandler.
func (s *Service) EnableUser(ctx context.Context, req *bffv1.EnableUserRequest) (*bffv1.EnableUserResponse, error) {
	user, missing, err := s.setStatus(ctx, req.GetUserId(), authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE)
	if err != nil {
		return nil, err
	}
	return &bffv1.EnableUserResponse{User: user, Errors: missing}, nil
}

func (s *Service) setStatus(ctx context.Context, id string, status authv1.AccountStatus) (*bffv1.User, []*bffv1.PartError, error) {
	return changed(ctx, s, func(ctx context.Context) (*authv1.SetAccountStatusResponse, error) {
		return s.accounts.SetAccountStatus(ctx, &authv1.SetAccountStatusRequest{AccountId: id, Status: status, Origin: s.origin(ctx)})
	})
}

// SetUserRoles implements bffv1.UserServiceHandler.
func (s *Service) SetUserRoles(ctx context.Context, req *bffv1.SetUserRolesRequest) (*bffv1.SetUserRolesResponse, error) {
	user, missing, err := changed(ctx, s, func(ctx context.Context) (*authv1.SetAccountRolesResponse, error) {
		return s.accounts.SetAccountRoles(ctx, &authv1.SetAccountRolesRequest{AccountId: req.GetUserId(), Roles: req.GetRoles(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.SetUserRolesResponse{User: user, Errors: missing}, nil
}

// ChangeUserEmail implements bffv1.UserServiceHandler.
func (s *Service) ChangeUserEmail(ctx context.Context, req *bffv1.ChangeUserEmailRequest) (*bffv1.ChangeUserEmailResponse, error) {
	crashpoint.Reach("bff: before auth is asked to change the email")
	user, missing, err := changed(ctx, s, func(ctx context.Context) (*authv1.ChangeAccountEmailResponse, error) {
		return s.accounts.ChangeAccountEmail(ctx, &authv1.ChangeAccountEmailRequest{AccountId: req.GetUserId(), Email: req.GetEmail(), Origin: s.origin(ctx)})
	})
	crashpoint.Reach("bff: after auth has changed the email")
	if err != nil {
		return nil, err
	}
	return &bffv1.ChangeUserEmailResponse{User: user, Errors: missing}, nil
}

// changed lets auth change an account and composes the user as it now is.
func changed[R interface {
	proto.Message
	GetAccount() *authv1.Account
}](ctx context.Context, s *Service, change func(context.Context) (R, error)) (*bffv1.User, []*bffv1.PartError, error) {
	c := compose(ctx, s.logger)
	account := required(c, "account", writeLimit, change)
	profile := optionalFrom(c, "profile", readLimit, account, func(ctx context.Context, changed R) (*usersv1.Profile, error) {
		return s.profile(changed.GetAccount().GetId())(ctx)
	})
	if err := c.wait(); err != nil {
		return nil, nil, err
	}
	return userOf(account.value.GetAccount(), profile.value), c.errors(), nil
}

// RevokeUserSessions implements bffv1.UserServiceHandler.
func (s *Service) RevokeUserSessions(ctx context.Context, req *bffv1.RevokeUserSessionsRequest) (*bffv1.RevokeUserSessionsResponse, error) {
	revoked, err := s.revokeSessions(ctx, req.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	return &bffv1.RevokeUserSessionsResponse{Revoked: revoked}, nil
}

func (s *Service) revokeSessions(ctx context.Context, id, except string) (int32, error) {
	response, err := fetchPart(ctx, writeLimit, func(ctx context.Context) (*authv1.RevokeSessionsResponse, error) {
		return s.sessions.RevokeSessions(ctx, &authv1.RevokeSessionsRequest{AccountId: id, ExceptSessionId: except, Origin: s.origin(ctx)})
	})
	return response.GetRevoked(), err
}

// DeleteUser implements bffv1.UserServiceHandler.
func (s *Service) DeleteUser(ctx context.Context, req *bffv1.DeleteUserRequest) (*bffv1.DeleteUserResponse, error) {
	if err := s.deleteAccount(ctx, req.GetUserId()); err != nil {
		return nil, err
	}
	return &bffv1.DeleteUserResponse{}, nil
}

func (s *Service) deleteAccount(ctx context.Context, id string) error {
	// Of one's own account. For another's, the origin asks for it: an auth of the
	// version before would look for a sign-in of the account that is deleted.
	recent := rpc.CallFrom(ctx).WantsRecentSignIn() && caller(ctx).is(id)
	crashpoint.Reach("bff: before auth is asked to delete")
	_, err := fetchPart(ctx, writeLimit, func(ctx context.Context) (*authv1.DeleteAccountResponse, error) {
		return s.accounts.DeleteAccount(ctx, &authv1.DeleteAccountRequest{AccountId: id, RequireRecentSignIn: recent, Origin: s.origin(ctx)})
	})
	crashpoint.Reach("bff: after auth has deleted")
	return err
}
