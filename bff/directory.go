package bff

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"gatehouse/bff/access"
	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/compose"
	"gatehouse/internal/crashpoint"
	"gatehouse/internal/fault"
	"gatehouse/internal/readposition"
	"gatehouse/internal/rpc"
	"gatehouse/internal/updatemask"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// directory reads and changes users, whose parts belong to two services: email,
// status, roles and sessions to auth, names and attributes to users. The services of the public
// API share it.
type directory struct {
	accounts    authv1.AccountServiceClient
	sessions    authv1.SessionServiceClient
	links       authv1.LinkServiceClient
	factors     authv1.FactorServiceClient
	federation  authv1.FederationServiceClient
	passkeys    authv1.PasskeyServiceClient
	codes       authv1.EmailCodeServiceClient
	mails       authv1.MailServiceClient
	keys        authv1.KeyServiceClient
	accountFeed authv1.AccountFeedServiceClient
	audit       authv1.AuditServiceClient
	profiles    usersv1.ProfileServiceClient
	// clientInfo returns who calls, and from which IP address and user agent.
	clientInfo func(context.Context) *authv1.Origin
	logger     *slog.Logger
}

// reasonNoProfile is the reason of users' error for a profile that does not exist.
const reasonNoProfile = "PROFILE_NOT_FOUND"

const reasonProfilePending = "PROFILE_PENDING"

var errProfilePending = fault.WithRetry(fault.New(connect.CodeUnavailable, reasonProfilePending,
	"The account is new and its profile is on its way. Try again in a moment."), time.Second)

// account fetches an account for a composition.
func (d *directory) account(id string) func(context.Context) (*authv1.GetAccountResponse, error) {
	return func(ctx context.Context) (*authv1.GetAccountResponse, error) {
		return d.accounts.GetAccount(ctx, &authv1.GetAccountRequest{AccountId: id})
	}
}

// profile fetches a profile for a composition. One that isn't there is
// unavailable: while its account exists, users is about to read it from auth.
func (d *directory) profile(id string) func(context.Context) (*usersv1.Profile, error) {
	return func(ctx context.Context) (*usersv1.Profile, error) {
		response, err := d.profiles.GetProfile(ctx, &usersv1.GetProfileRequest{ProfileId: id})
		if fault.Reason(err) == reasonNoProfile {
			return nil, errProfilePending.WithCause(err)
		}
		return response.GetProfile(), err
	}
}

// withProfile composes a user of the given account and its profile, which is optional.
func (d *directory) withProfile(ctx context.Context, account *authv1.Account) (*bffv1.User, []*bffv1.PartError) {
	return d.withProfileFrom(ctx, account, d.profile(account.GetId()))
}

func (d *directory) withProfileFrom(ctx context.Context, account *authv1.Account, fetch func(context.Context) (*usersv1.Profile, error)) (*bffv1.User, []*bffv1.PartError) {
	c := compose.New(ctx, fromBackend)
	profile := compose.Optional(c, "profile", readLimit, fetch)
	_ = c.Wait() // no part is required
	return userOf(account, profile.Value()), partErrors(ctx, c, d.logger)
}

// createAccount chooses an ID and creates the account in auth.
func (d *directory) createAccount(ctx context.Context, request *authv1.CreateAccountRequest) (*authv1.CreateAccountResponse, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("choose an id: %w", err)
	}
	request.AccountId, request.Origin, request.IdempotencyKey = id.String(), d.clientInfo(ctx), idempotencyKey(ctx)
	crashpoint.Reach("bff: before auth is asked")
	created, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.CreateAccountResponse, error) {
		return d.accounts.CreateAccount(repeatable(ctx, request.GetIdempotencyKey()), request)
	})
	crashpoint.Reach("bff: after auth has answered")
	return created, err
}

// profileAfter fetches a profile, or nil if it does not exist. The caller must also fetch
// the account to distinguish a profile that is not created yet from an unknown user.
func (d *directory) profileAfter(id string) func(context.Context) (*usersv1.Profile, error) {
	fetch := d.profile(id)
	return func(ctx context.Context) (*usersv1.Profile, error) {
		profile, err := fetch(ctx)
		if err != nil && fault.Reason(err) == reasonProfilePending {
			return nil, nil
		}
		return profile, err
	}
}

// updateProfile changes the masked profile fields and composes the user.
func (d *directory) updateProfile(ctx context.Context, id string, values *bffv1.User, mask *fieldmaskpb.FieldMask) (*bffv1.User, error) {
	mask, err := maskOf(values, mask, isAdministrator(ctx))
	if err != nil {
		return nil, err
	}
	next, err := withAttributes(&usersv1.Profile{
		Id: id, FirstName: values.GetFirstName(), LastName: values.GetLastName(), Locale: values.GetLocale(), Etag: values.GetEtag(),
	}, values)
	if err != nil {
		return nil, err
	}
	c := compose.New(ctx, fromBackend)
	account := compose.Required(c, "account", readLimit, d.account(id))
	// Fetch the account first: without it there is no response, and the update must not
	// happen.
	updated := compose.RequiredFrom(c, "profile", writeLimit, account, func(ctx context.Context, _ *authv1.GetAccountResponse) (*usersv1.UpdateProfileResponse, error) {
		response, err := d.profiles.UpdateProfile(ctx, &usersv1.UpdateProfileRequest{Profile: next, UpdateMask: mask, Actor: d.actor(ctx, mask)})
		if fault.Reason(err) == reasonNoProfile {
			return nil, errProfilePending.WithCause(err)
		}
		return response, err
	})
	if err := c.Wait(); err != nil {
		return nil, err
	}
	return userOf(account.Value().GetAccount(), updated.Value().GetProfile()), nil
}

// profileFields are the fields of a user that users owns. Only these can be updated.
var profileFields = []struct {
	path     string
	hasValue func(*bffv1.User) bool
}{
	{"first_name", func(u *bffv1.User) bool { return u.GetFirstName() != "" }},
	{"last_name", func(u *bffv1.User) bool { return u.GetLastName() != "" }},
	{"locale", func(u *bffv1.User) bool { return u.GetLocale() != "" }},
	{attributesField, func(u *bffv1.User) bool { return len(u.GetAttributes().GetFields()) > 0 }},
	{appAttributesField, func(u *bffv1.User) bool { return len(u.GetAppAttributes().GetFields()) > 0 }},
}

func isProfileField(path string) bool {
	for _, field := range profileFields {
		if field.path == path {
			return true
		}
	}
	return false
}

// maskOf returns the mask, or without one the profile fields that have a value. It
// refuses a mask that names anything else, or what the caller may not change, before a
// service is asked.
func maskOf(values *bffv1.User, mask *fieldmaskpb.FieldMask, administrator bool) (*fieldmaskpb.FieldMask, error) {
	for _, path := range mask.GetPaths() {
		switch {
		case !isProfileField(path):
			return nil, updatemask.ErrField(path)
		case path == appAttributesField && !administrator:
			return nil, errAppAttributes
		}
	}
	if len(mask.GetPaths()) > 0 {
		return mask, nil
	}
	mask = &fieldmaskpb.FieldMask{}
	for _, field := range profileFields {
		// Like roles and the email, app_attributes may come along with what was read.
		if field.hasValue(values) && (field.path != appAttributesField || administrator) {
			mask.Paths = append(mask.Paths, field.path)
		}
	}
	if len(mask.GetPaths()) == 0 {
		return nil, updatemask.ErrEmpty
	}
	return mask, nil
}

func (d *directory) revokeSessions(ctx context.Context, id, except string) (int32, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RevokeSessionsResponse, error) {
		return d.sessions.RevokeSessions(ctx, &authv1.RevokeSessionsRequest{AccountId: id, ExceptSessionId: except, Origin: d.clientInfo(ctx)})
	})
	return response.GetRevoked(), err
}

func (d *directory) deleteAccount(ctx context.Context, id string) error {
	// Set the session only for the caller's own account. Otherwise auth finds it in the
	// client info; the previous version of auth would look for the session among those
	// of the deleted account.
	recent := rpc.CallFrom(ctx).WantsRecentSignIn() && caller(ctx).Is(id)
	crashpoint.Reach("bff: before auth is asked to delete")
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.DeleteAccountResponse, error) {
		return d.accounts.DeleteAccount(ctx, &authv1.DeleteAccountRequest{AccountId: id, RequireRecentSignIn: recent, Origin: d.clientInfo(ctx)})
	})
	crashpoint.Reach("bff: after auth has deleted")
	return err
}

func (d *directory) revokeSession(ctx context.Context, user, session string) error {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RevokeSessionResponse, error) {
		return d.sessions.RevokeSession(ctx, &authv1.RevokeSessionRequest{AccountId: user, SessionId: session, Origin: d.clientInfo(ctx)})
	})
	return err
}

func (d *directory) liveSessions(id string) func(context.Context) (*authv1.ListSessionsResponse, error) {
	return func(ctx context.Context) (*authv1.ListSessionsResponse, error) {
		return d.sessions.ListSessions(ctx, &authv1.ListSessionsRequest{AccountId: id})
	}
}

// ownSessions fetches the live sessions of a caller. Their list must have the session of the
// call, which another gateway may have begun since the position of a standby that answered:
// then the primary is asked.
func (d *directory) ownSessions(who *access.Principal) func(context.Context) (*authv1.ListSessionsResponse, error) {
	fetch := d.liveSessions(who.UserID)
	return func(ctx context.Context) (*authv1.ListSessionsResponse, error) {
		response, err := fetch(ctx)
		if err != nil || readposition.For(ctx, authName) == "" ||
			slices.ContainsFunc(response.GetSessions(), func(session *authv1.Session) bool { return session.GetId() == who.SessionID }) {
			return response, err
		}
		return fetch(readposition.With(ctx, nil))
	}
}

func (d *directory) auditEvents(ctx context.Context, request *authv1.ListAuditEventsRequest) (*authv1.ListAuditEventsResponse, error) {
	return callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListAuditEventsResponse, error) {
		return d.audit.ListAuditEvents(ctx, request)
	})
}
