package users

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	servicev1 "gatehouse/gen/service/v1"
	"gatehouse/internal/fault"
)

// ExportPerson implements servicev1.PersonServiceHandler.
func (s *Service) ExportPerson(ctx context.Context, req *servicev1.ExportPersonRequest) (*servicev1.ExportPersonResponse, error) {
	found, err := s.load(ctx, s.db, req.GetAccountId())
	if fault.Reason(err) == fault.Reason(errProfileNotFound) {
		return &servicev1.ExportPersonResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(found.message())
	if err != nil {
		return nil, fmt.Errorf("export the profile: %w", err)
	}
	data := &structpb.Struct{}
	if err := protojson.Unmarshal(text, data); err != nil {
		return nil, fmt.Errorf("export the profile: %w", err)
	}
	return &servicev1.ExportPersonResponse{Data: data}, nil
}
