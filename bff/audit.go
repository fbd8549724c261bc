package bff

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/compose"
)

// ListMyAuditEvents implements bffv1.AccountServiceHandler. Failed sign-ins are
// among them.
func (s accountService) ListMyAuditEvents(ctx context.Context, req *bffv1.ListMyAuditEventsRequest) (*bffv1.ListMyAuditEventsResponse, error) {
	page, err := s.auditEvents(ctx, &authv1.ListAuditEventsRequest{
		PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), AccountId: caller(ctx).userID,
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ListMyAuditEventsResponse{Events: ownEventsOf(caller(ctx).userID, page.GetEvents()), NextPageToken: page.GetNextPageToken()}, nil
}

// ListAuditEvents implements bffv1.UserServiceHandler.
func (s *Service) ListAuditEvents(ctx context.Context, req *bffv1.ListAuditEventsRequest) (*bffv1.ListAuditEventsResponse, error) {
	page, err := s.auditEvents(ctx, &authv1.ListAuditEventsRequest{
		PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), AccountId: req.GetUserId(), ActorId: req.GetActorId(),
		Event: req.GetEvent(), Outcome: req.GetOutcome(), StartTime: req.GetStartTime(), EndTime: req.GetEndTime(),
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ListAuditEventsResponse{Events: auditEventsOf(page.GetEvents()), NextPageToken: page.GetNextPageToken()}, nil
}

func (s *Service) auditEvents(ctx context.Context, request *authv1.ListAuditEventsRequest) (*authv1.ListAuditEventsResponse, error) {
	return callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListAuditEventsResponse, error) {
		return s.audit.ListAuditEvents(ctx, request)
	})
}

func auditEventsOf(events []*authv1.AuditEvent) []*bffv1.AuditEvent {
	public := make([]*bffv1.AuditEvent, 0, len(events))
	for _, event := range events {
		public = append(public, &bffv1.AuditEvent{
			Id: event.GetId(), CreateTime: event.GetCreateTime(), Event: event.GetEvent(), Outcome: event.GetOutcome(),
			Reason: event.GetReason(), UserId: event.GetAccountId(), ActorId: event.GetActorId(), SessionId: event.GetSessionId(),
			IpAddress: event.GetIpAddress(), UserAgent: event.GetUserAgent(), RequestId: event.GetRequestId(),
			Count: max(1, event.GetCount()),
		})
	}
	return public
}

// ownEventsOf are events as the person whom they concern may see them. Of what
// another did, such as an administrator, they learn who, what and when, and not
// from where: that is the other's.
func ownEventsOf(person string, events []*authv1.AuditEvent) []*bffv1.AuditEvent {
	public := auditEventsOf(events)
	for _, event := range public {
		if event.GetActorId() == "" || event.GetActorId() == person {
			continue
		}
		event.IpAddress, event.UserAgent, event.RequestId = "", "", ""
		if event.GetEvent() != eventSessionRevoke {
			event.SessionId = "" // the one that asked, not one of the person's
		}
	}
	return public
}

// eventSessionRevoke is auth's name of the event that concerns one session.
const eventSessionRevoke = "session.revoke"

// ExportMe implements bffv1.AccountServiceHandler.
func (s accountService) ExportMe(ctx context.Context, _ *bffv1.ExportMeRequest) (*bffv1.ExportMeResponse, error) {
	id := caller(ctx).userID
	c := compose.New(ctx, fromBackend)
	account := compose.Required(c, "account", readLimit, func(ctx context.Context) (*authv1.ExportAccountResponse, error) {
		return s.accounts.ExportAccount(ctx, &authv1.ExportAccountRequest{AccountId: id, Origin: s.origin(ctx)})
	})
	profile := compose.Required(c, "profile", readLimit, s.profileAfter(id))
	if err := c.Wait(); err != nil {
		return nil, err
	}
	if profile.Value() == nil {
		return nil, errProfilePending
	}
	noStore(ctx)
	export := account.Value()
	return &bffv1.ExportMeResponse{
		User: userOf(export.GetAccount(), profile.Value()), Security: securityOf(export.GetSecurity()),
		Sessions: sessionsOf(ctx, export.GetSessions()), AuditEvents: ownEventsOf(id, export.GetAuditEvents()),
		Mails: mailsOf(export.GetMails()), ExportTime: timestamppb.Now(),
	}, nil
}
