package bff

import (
	"context"

	"gatehouse/bff/apikeys"
	"gatehouse/bff/traces"
	"gatehouse/bff/watch"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/compose"
	"gatehouse/internal/crashpoint"

	"google.golang.org/protobuf/proto"
)

// userService implements bffv1.UserServiceHandler: user management by administrators.
type userService struct {
	*directory
	*apikeys.User
	traces *traces.Recorder
	*watch.Users
}

// CreateUser implements bffv1.UserServiceHandler.
func (s *userService) CreateUser(ctx context.Context, req *bffv1.CreateUserRequest) (*bffv1.CreateUserResponse, error) {
	if err := s.checkAttributes(ctx, req.GetUser()); err != nil {
		return nil, err
	}
	created, err := s.createAccount(ctx, &authv1.CreateAccountRequest{
		Email: req.GetUser().GetEmail(), Password: req.GetPassword(), Roles: req.GetUser().GetRoles(),
		Profile: &authv1.ProfileSeed{
			FirstName: req.GetUser().GetFirstName(), LastName: req.GetUser().GetLastName(), Locale: req.GetUser().GetLocale(),
		},
	})
	if err != nil {
		return nil, err
	}
	user, missing := s.withProfileFrom(ctx, created.GetAccount(), s.newProfile(created.GetAccount().GetId(), req.GetUser()))
	return &bffv1.CreateUserResponse{User: user, Errors: missing}, nil
}

// GetUser implements bffv1.UserServiceHandler.
func (s *userService) GetUser(ctx context.Context, req *bffv1.GetUserRequest) (*bffv1.GetUserResponse, error) {
	user, err := s.user(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return &bffv1.GetUserResponse{User: user}, nil
}

// ListUsers implements bffv1.UserServiceHandler.
func (s *userService) ListUsers(ctx context.Context, req *bffv1.ListUsersRequest) (*bffv1.ListUsersResponse, error) {
	c := compose.New(ctx, fromBackend)
	page := compose.Required(c, "profiles", readLimit, func(ctx context.Context) (*usersv1.ListProfilesResponse, error) {
		return s.profiles.ListProfiles(ctx, &usersv1.ListProfilesRequest{
			PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), Query: req.GetQuery(),
			Status: profileStatuses[req.GetStatus()], Order: profileOrders[req.GetOrderBy()],
		})
	})
	accounts := compose.RequiredFrom(c, "accounts", readLimit, page, s.accountsOf)
	if err := c.Wait(); err != nil {
		return nil, err
	}
	response := &bffv1.ListUsersResponse{NextPageToken: page.Value().GetNextPageToken()}
	for _, profile := range page.Value().GetProfiles() {
		// The account was just deleted; auth's outbox is about to delete the profile.
		if account := accounts.Value()[profile.GetId()]; account != nil {
			response.Users = append(response.Users, userOf(account, profile))
		}
	}
	return response, nil
}

// UpdateUser implements bffv1.UserServiceHandler.
func (s *userService) UpdateUser(ctx context.Context, req *bffv1.UpdateUserRequest) (*bffv1.UpdateUserResponse, error) {
	user, err := s.updateProfile(ctx, req.GetUser().GetId(), req.GetUser(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	return &bffv1.UpdateUserResponse{User: user}, nil
}

// DisableUser implements bffv1.UserServiceHandler.
func (s *userService) DisableUser(ctx context.Context, req *bffv1.DisableUserRequest) (*bffv1.DisableUserResponse, error) {
	user, missing, err := s.setStatus(ctx, req.GetUserId(), authv1.AccountStatus_ACCOUNT_STATUS_DISABLED)
	if err != nil {
		return nil, err
	}
	return &bffv1.DisableUserResponse{User: user, Errors: missing}, nil
}

// EnableUser implements bffv1.UserServiceHandler.
func (s *userService) EnableUser(ctx context.Context, req *bffv1.EnableUserRequest) (*bffv1.EnableUserResponse, error) {
	user, missing, err := s.setStatus(ctx, req.GetUserId(), authv1.AccountStatus_ACCOUNT_STATUS_ACTIVE)
	if err != nil {
		return nil, err
	}
	return &bffv1.EnableUserResponse{User: user, Errors: missing}, nil
}

// SetUserRoles implements bffv1.UserServiceHandler.
func (s *userService) SetUserRoles(ctx context.Context, req *bffv1.SetUserRolesRequest) (*bffv1.SetUserRolesResponse, error) {
	user, missing, err := changed(ctx, s, func(ctx context.Context) (*authv1.SetAccountRolesResponse, error) {
		return s.accounts.SetAccountRoles(ctx, &authv1.SetAccountRolesRequest{AccountId: req.GetUserId(), Roles: req.GetRoles(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.SetUserRolesResponse{User: user, Errors: missing}, nil
}

// ChangeUserEmail implements bffv1.UserServiceHandler.
func (s *userService) ChangeUserEmail(ctx context.Context, req *bffv1.ChangeUserEmailRequest) (*bffv1.ChangeUserEmailResponse, error) {
	crashpoint.Reach("bff: before auth is asked to change the email")
	user, missing, err := changed(ctx, s, func(ctx context.Context) (*authv1.ChangeAccountEmailResponse, error) {
		return s.accounts.ChangeAccountEmail(ctx, &authv1.ChangeAccountEmailRequest{AccountId: req.GetUserId(), Email: req.GetEmail(), Origin: s.clientInfo(ctx)})
	})
	crashpoint.Reach("bff: after auth has changed the email")
	if err != nil {
		return nil, err
	}
	return &bffv1.ChangeUserEmailResponse{User: user, Errors: missing}, nil
}

// ForcePasswordReset implements bffv1.UserServiceHandler.
func (s *userService) ForcePasswordReset(ctx context.Context, req *bffv1.ForcePasswordResetRequest) (*bffv1.ForcePasswordResetResponse, error) {
	user, missing, err := changed(ctx, s, func(ctx context.Context) (*authv1.ForcePasswordResetResponse, error) {
		return s.accounts.ForcePasswordReset(ctx, &authv1.ForcePasswordResetRequest{AccountId: req.GetUserId(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ForcePasswordResetResponse{User: user, Errors: missing}, nil
}

// RevokeUserSessions implements bffv1.UserServiceHandler.
func (s *userService) RevokeUserSessions(ctx context.Context, req *bffv1.RevokeUserSessionsRequest) (*bffv1.RevokeUserSessionsResponse, error) {
	revoked, err := s.revokeSessions(ctx, req.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	return &bffv1.RevokeUserSessionsResponse{Revoked: revoked}, nil
}

// ListUserSessions implements bffv1.UserServiceHandler.
func (s *userService) ListUserSessions(ctx context.Context, req *bffv1.ListUserSessionsRequest) (*bffv1.ListUserSessionsResponse, error) {
	response, err := callService(ctx, readLimit, s.liveSessions(req.GetUserId()))
	if err != nil {
		return nil, err
	}
	return &bffv1.ListUserSessionsResponse{Sessions: sessionsOf(ctx, response.GetSessions())}, nil
}

// RevokeUserSession implements bffv1.UserServiceHandler.
func (s *userService) RevokeUserSession(ctx context.Context, req *bffv1.RevokeUserSessionRequest) (*bffv1.RevokeUserSessionResponse, error) {
	if err := s.revokeSession(ctx, req.GetUserId(), req.GetSessionId()); err != nil {
		return nil, err
	}
	return &bffv1.RevokeUserSessionResponse{}, nil
}

// DeleteUser implements bffv1.UserServiceHandler.
func (s *userService) DeleteUser(ctx context.Context, req *bffv1.DeleteUserRequest) (*bffv1.DeleteUserResponse, error) {
	if err := s.deleteAccount(ctx, req.GetUserId()); err != nil {
		return nil, err
	}
	return &bffv1.DeleteUserResponse{}, nil
}

// ListAuditEvents implements bffv1.UserServiceHandler.
func (s *userService) ListAuditEvents(ctx context.Context, req *bffv1.ListAuditEventsRequest) (*bffv1.ListAuditEventsResponse, error) {
	page, err := s.auditEvents(ctx, &authv1.ListAuditEventsRequest{
		PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), AccountId: req.GetUserId(), ActorId: req.GetActorId(),
		Event: req.GetEvent(), Outcome: req.GetOutcome(), StartTime: req.GetStartTime(), EndTime: req.GetEndTime(),
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ListAuditEventsResponse{Events: auditEventsOf(page.GetEvents()), NextPageToken: page.GetNextPageToken()}, nil
}

// ListMails implements bffv1.UserServiceHandler.
func (s *userService) ListMails(ctx context.Context, req *bffv1.ListMailsRequest) (*bffv1.ListMailsResponse, error) {
	page, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListMailsResponse, error) {
		return s.mails.ListMails(ctx, &authv1.ListMailsRequest{
			PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), Status: authv1.MailStatus(req.GetStatus()),
		})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ListMailsResponse{Mails: mailsOf(page.GetMails()), NextPageToken: page.GetNextPageToken()}, nil
}

// RetryMail implements bffv1.UserServiceHandler.
func (s *userService) RetryMail(ctx context.Context, req *bffv1.RetryMailRequest) (*bffv1.RetryMailResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RetryMailResponse, error) {
		return s.mails.RetryMail(ctx, &authv1.RetryMailRequest{MailId: req.GetMailId(), Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RetryMailResponse{Mail: mailOf(response.GetMail())}, nil
}

// user composes a user of its account and its profile.
func (s *userService) user(ctx context.Context, id string) (*bffv1.User, error) {
	c := compose.New(ctx, fromBackend)
	account := compose.Required(c, "account", readLimit, s.account(id))
	profile := compose.Required(c, "profile", readLimit, s.profileAfter(id))
	if err := c.Wait(); err != nil {
		return nil, err
	}
	if profile.Value() == nil {
		return nil, errProfilePending
	}
	return userOf(account.Value().GetAccount(), profile.Value()), nil
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

// accountsOf fetches the accounts of a page of profiles, by ID. The page limit is at most
// the limit of one call to auth.
func (s *userService) accountsOf(ctx context.Context, page *usersv1.ListProfilesResponse) (map[string]*authv1.Account, error) {
	ids := make([]string, 0, len(page.GetProfiles()))
	for _, profile := range page.GetProfiles() {
		ids = append(ids, profile.GetId())
	}
	if len(ids) == 0 {
		return nil, nil
	}
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

func (s *userService) setStatus(ctx context.Context, id string, status authv1.AccountStatus) (*bffv1.User, []*bffv1.PartError, error) {
	return changed(ctx, s, func(ctx context.Context) (*authv1.SetAccountStatusResponse, error) {
		return s.accounts.SetAccountStatus(ctx, &authv1.SetAccountStatusRequest{AccountId: id, Status: status, Origin: s.clientInfo(ctx)})
	})
}

// changed changes an account in auth and composes the resulting user.
func changed[R interface {
	proto.Message
	GetAccount() *authv1.Account
}](ctx context.Context, s *userService, change func(context.Context) (R, error)) (*bffv1.User, []*bffv1.PartError, error) {
	c := compose.New(ctx, fromBackend)
	account := compose.Required(c, "account", writeLimit, change)
	profile := compose.OptionalFrom(c, "profile", readLimit, account, func(ctx context.Context, changed R) (*usersv1.Profile, error) {
		return s.profile(changed.GetAccount().GetId())(ctx)
	})
	if err := c.Wait(); err != nil {
		return nil, nil, err
	}
	return userOf(account.Value().GetAccount(), profile.Value()), partErrors(ctx, c, s.logger), nil
}
