package auth

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/accountlog"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// errOtherReader refuses a service that reads in the name of another one.
var errOtherReader = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "A service reads the account log in its own name only.")

// accountFeedService implements authv1.AccountFeedServiceHandler.
type accountFeedService struct {
	log     *accountlog.Log
	readers []Reader
}

// WatchAccounts implements authv1.AccountFeedServiceHandler.
func (s *accountFeedService) WatchAccounts(ctx context.Context, req *authv1.WatchAccountsRequest) (*authv1.WatchAccountsResponse, error) {
	if caller := rpc.CallFrom(ctx).Principal; caller != "service:"+req.GetService() && caller != "service:bff" {
		return nil, errOtherReader
	}
	reader := accountlog.Reader{Service: req.GetService(), DeletionsOnly: req.GetDeletionsOnly()}
	from, err := s.log.Open(ctx, req.GetCursor())
	if err != nil {
		return nil, err
	}
	if err := s.log.Confirm(ctx, reader, from); err != nil {
		return nil, err
	}
	if err := s.log.Wait(ctx, from, reader, req.GetWait().AsDuration()); err != nil {
		return nil, err
	}
	batch, err := s.log.Read(ctx, from, reader, accountlog.MaxEvents)
	if err != nil {
		return nil, err
	}
	if len(batch.Events) == 0 && !batch.More && req.GetCursor() != "" && from.AtRest() && batch.Next.Age(from) < cursorAge {
		return &authv1.WatchAccountsResponse{Cursor: req.GetCursor()}, nil
	}
	if err := s.log.NoteRead(ctx, reader); err != nil {
		return nil, err
	}
	return &authv1.WatchAccountsResponse{Events: batch.Events, Cursor: batch.Next.Cursor(), More: batch.More}, nil
}

// cursorAge is for how long a reader without changes keeps its cursor, so that it has
// nothing to commit.
const cursorAge = time.Minute

// FindMissingAccounts implements authv1.AccountFeedServiceHandler.
func (s *accountFeedService) FindMissingAccounts(ctx context.Context, req *authv1.FindMissingAccountsRequest) (*authv1.FindMissingAccountsResponse, error) {
	missing, err := s.log.Missing(ctx, req.GetAccountIds())
	if err != nil {
		return nil, err
	}
	return &authv1.FindMissingAccountsResponse{AccountIds: missing}, nil
}

// GetErasure implements authv1.AccountFeedServiceHandler.
func (s *accountFeedService) GetErasure(ctx context.Context, req *authv1.GetErasureRequest) (*authv1.GetErasureResponse, error) {
	erasure, err := s.log.Erasure(ctx, req.GetAccountId(), s.readers)
	if err != nil {
		return nil, err
	}
	response := &authv1.GetErasureResponse{DeleteTime: timestamppb.New(erasure.DeleteTime)}
	for _, reader := range erasure.Readers {
		response.Services = append(response.Services, &authv1.ErasureConfirmation{Service: reader.Service, Confirmed: reader.Confirmed})
	}
	return response, nil
}
