package accountlog

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
)

// errOtherReader refuses a service that reads in the name of another one.
var errOtherReader = fault.New(connect.CodePermissionDenied, fault.ReasonPermissionDenied, "A service reads the account log in its own name only.")

// Service serves the log. It implements authv1.AccountFeedServiceHandler.
type Service struct {
	*Log
	// Expected are the services that read the log, besides those that register.
	Expected []Reader
}

// WatchAccounts implements authv1.AccountFeedServiceHandler.
func (s *Service) WatchAccounts(ctx context.Context, req *authv1.WatchAccountsRequest) (*authv1.WatchAccountsResponse, error) {
	if caller := rpc.CallFrom(ctx).Principal; caller != "service:"+req.GetService() && caller != "service:bff" {
		return nil, errOtherReader
	}
	reader := Reader{Service: req.GetService(), DeletionsOnly: req.GetDeletionsOnly()}
	from, err := s.Open(ctx, req.GetCursor())
	if err != nil {
		return nil, err
	}
	if err := s.Confirm(ctx, reader, from); err != nil {
		return nil, err
	}
	at := req.GetCursor()
	if req.GetPosition() != "" {
		at = req.GetPosition()
		if from, err = s.Open(ctx, at); err != nil {
			return nil, err
		}
	}
	if err := s.Wait(ctx, from, reader, req.GetWait().AsDuration()); err != nil {
		return nil, err
	}
	batch, err := s.Read(ctx, from, reader, MaxEvents)
	if err != nil {
		return nil, err
	}
	if len(batch.Events) == 0 && !batch.More && at != "" && from.AtRest() && batch.Next.Age(from) < cursorAge {
		return &authv1.WatchAccountsResponse{Cursor: at}, nil
	}
	if err := s.NoteRead(ctx, reader); err != nil {
		return nil, err
	}
	return &authv1.WatchAccountsResponse{Events: batch.Events, Cursor: batch.Next.Cursor(), More: batch.More}, nil
}

// cursorAge is for how long a reader without changes keeps its cursor, so that it has
// nothing to commit.
const cursorAge = time.Minute

// FindMissingAccounts implements authv1.AccountFeedServiceHandler.
func (s *Service) FindMissingAccounts(ctx context.Context, req *authv1.FindMissingAccountsRequest) (*authv1.FindMissingAccountsResponse, error) {
	missing, err := s.Missing(ctx, req.GetAccountIds())
	if err != nil {
		return nil, err
	}
	return &authv1.FindMissingAccountsResponse{AccountIds: missing}, nil
}

// RegisterReaders implements authv1.AccountFeedServiceHandler.
func (s *Service) RegisterReaders(ctx context.Context, req *authv1.RegisterReadersRequest) (*authv1.RegisterReadersResponse, error) {
	var readers []Reader
	for _, reader := range req.GetReaders() {
		readers = append(readers, Reader{Service: reader.GetService(), DeletionsOnly: reader.GetDeletionsOnly()})
	}
	if err := s.Register(ctx, readers); err != nil {
		return nil, err
	}
	return &authv1.RegisterReadersResponse{}, nil
}

// GetErasure implements authv1.AccountFeedServiceHandler.
func (s *Service) GetErasure(ctx context.Context, req *authv1.GetErasureRequest) (*authv1.GetErasureResponse, error) {
	erasure, err := s.Erasure(ctx, req.GetAccountId(), s.Expected)
	if err != nil {
		return nil, err
	}
	response := &authv1.GetErasureResponse{DeleteTime: timestamppb.New(erasure.DeleteTime)}
	for _, reader := range erasure.Readers {
		response.Services = append(response.Services, &authv1.ErasureConfirmation{Service: reader.Service, Confirmed: reader.Confirmed})
	}
	return response, nil
}
