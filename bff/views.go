package bff

import (
	"context"
	"strings"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	usersv1 "gatehouse/gen/users/v1"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// This file converts messages of the services to messages of the public API.

// userOf composes a user: email, status and roles are auth's, names and attributes are
// users'.
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
		Attributes: attributesOf(profile.GetAttributes()), AppAttributes: attributesOf(profile.GetAppAttributes()),
		CreateTime: account.GetCreateTime(), UpdateTime: later(account.GetUpdateTime(), profile.GetUpdateTime()),
	}
}

func later(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if b != nil && b.AsTime().After(a.AsTime()) {
		return b
	}
	return a
}

// ownSecurity returns the caller's security, with the level of the calling session.
func (s *accountService) ownSecurity(ctx context.Context, account *authv1.Account, facts *authv1.SecurityFacts) *bffv1.Security {
	level := caller(ctx).SignIn.Level
	return &bffv1.Security{
		PasswordChangeTime: facts.GetPasswordChangeTime(), LastSignInTime: facts.GetLastSignInTime(),
		ActiveSessions: facts.GetActiveSessions(), SecondFactor: facts.GetSecondFactor(), RecoveryCodesLeft: facts.GetRecoveryCodesLeft(),
		Level: int32(level), WithheldRoles: s.withheld(account.GetRoles(), level),
	}
}

func tokensOf(tokens *authv1.Tokens) *bffv1.Tokens {
	return &bffv1.Tokens{
		AccessToken: tokens.GetAccessToken(), RefreshToken: tokens.GetRefreshToken(), TokenType: "Bearer",
		ExpiresIn: tokens.GetExpiresIn(), RefreshExpiresIn: tokens.GetRefreshExpiresIn(),
	}
}

func sessionsOf(ctx context.Context, sessions []*authv1.Session) []*bffv1.Session {
	public := make([]*bffv1.Session, 0, len(sessions))
	for _, session := range sessions {
		public = append(public, &bffv1.Session{
			Id: session.GetId(), CreateTime: session.GetCreateTime(), LastUsedTime: session.GetLastUsedTime(),
			ExpireTime: session.GetExpireTime(), UserAgent: session.GetUserAgent(), IpAddress: session.GetIpAddress(),
			Current:    session.GetId() == caller(ctx).SessionID,
			RevokeTime: session.GetRevokeTime(), RevokeReason: session.GetRevokeReason(),
		})
	}
	return public
}

func auditEventsOf(events []*authv1.AuditEvent) []*bffv1.AuditEvent {
	public := make([]*bffv1.AuditEvent, 0, len(events))
	for _, event := range events {
		public = append(public, &bffv1.AuditEvent{
			Id: event.GetId(), CreateTime: event.GetCreateTime(), Event: event.GetEvent(), Outcome: event.GetOutcome(),
			Reason: event.GetReason(), UserId: event.GetAccountId(), ActorId: event.GetActorId(), SessionId: event.GetSessionId(),
			IpAddress: event.GetIpAddress(), UserAgent: event.GetUserAgent(), RequestId: event.GetRequestId(),
			Count: max(1, event.GetCount()), Changed: event.GetChanged(), TargetId: event.GetTargetId(),
		})
	}
	return public
}

// ownEventsOf returns the events that concern a person, for that person. It omits the IP
// address and the user agent of anybody else, for example of an administrator.
func ownEventsOf(person string, events []*authv1.AuditEvent) []*bffv1.AuditEvent {
	public := auditEventsOf(events)
	for _, event := range public {
		if !strings.HasPrefix(event.GetEvent(), "apikey.") {
			event.TargetId = "" // an administrator's webhook
		}
		if event.GetActorId() == "" || event.GetActorId() == person {
			continue
		}
		event.IpAddress, event.UserAgent, event.RequestId = "", "", ""
		if event.GetEvent() != eventSessionRevoke {
			event.SessionId = "" // it is a session of the actor, not of the person
		}
	}
	return public
}

// eventSessionRevoke is auth's name of the event that concerns one session.
const eventSessionRevoke = "session.revoke"

func mailsOf(mails []*authv1.Mail) []*bffv1.Mail {
	public := make([]*bffv1.Mail, 0, len(mails))
	for _, mail := range mails {
		public = append(public, mailOf(mail))
	}
	return public
}

// mailOf converts a mail. The statuses have the same numbers in both APIs.
func mailOf(mail *authv1.Mail) *bffv1.Mail {
	return &bffv1.Mail{
		Id: mail.GetId(), Kind: mail.GetKind(), Recipient: mail.GetRecipient(), UserId: mail.GetAccountId(),
		Status: bffv1.MailStatus(mail.GetStatus()), Attempts: mail.GetAttempts(), LastError: mail.GetLastError(),
		CreateTime: mail.GetCreateTime(), NextAttemptTime: mail.GetNextAttemptTime(), EndTime: mail.GetEndTime(),
	}
}
