package auth

import (
	"context"
	"fmt"
	"regexp"

	"github.com/google/uuid"

	"gatehouse/auth/audit"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/page"
)

// auditService implements authv1.AuditServiceHandler.
type auditService struct {
	log *audit.Log
}

const defaultAuditPage = 25

var (
	eventName       = regexp.MustCompile(`^[a-z_.]*$`)
	errEventUnknown = fault.Invalid(fault.ReasonInvalid, "event", "name an event such as session.login, or the beginning of some up to a dot, such as session.")
)

// ListAuditEvents implements authv1.AuditServiceHandler. The pages contain
// every event once that existed when the first was read; later events are newer.
func (s *auditService) ListAuditEvents(ctx context.Context, req *authv1.ListAuditEventsRequest) (*authv1.ListAuditEventsResponse, error) {
	if !eventName.MatchString(req.GetEvent()) {
		return nil, errEventUnknown
	}
	query := audit.Query{
		Account: req.GetAccountId(), Actor: req.GetActorId(), Event: req.GetEvent(), Outcome: req.GetOutcome(),
		From: uuid.Nil, Before: uuid.Max,
	}
	if req.GetStartTime() != nil {
		query.From = audit.LeastID(req.GetStartTime().AsTime())
	}
	if req.GetEndTime() != nil {
		query.Before = audit.LeastID(req.GetEndTime().AsTime())
	}
	rest := query
	if req.GetPageToken() != "" {
		var ok bool
		if rest.Before, ok = query.Parse(req.GetPageToken()); !ok {
			return nil, page.ErrToken
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultAuditPage
	}
	found, err := s.log.List(ctx, rest, size+1) // one more shows that another page follows
	if err != nil {
		return nil, err
	}
	response := &authv1.ListAuditEventsResponse{Events: found}
	if len(found) > size {
		response.Events = found[:size]
		last, err := uuid.Parse(found[size-1].GetId())
		if err != nil {
			return nil, fmt.Errorf("read an event's id: %w", err)
		}
		response.NextPageToken = query.Token(last)
	}
	return response, nil
}
