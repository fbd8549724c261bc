package users

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/users/attributes"
)

// CheckAttributes checks the attributes of a user who does not exist yet. Errors:
// ATTRIBUTES_INVALID, ATTRIBUTES_TOO_LARGE.
func (s *Service) CheckAttributes(_ context.Context, req *usersv1.CheckAttributesRequest) (*usersv1.CheckAttributesResponse, error) {
	_, err := attributes.Apply(s.schema, attributes.Pair{},
		attributes.Patch{Object: attributes.Person, Text: req.GetAttributes()},
		attributes.Patch{Object: attributes.App, Text: req.GetAppAttributes()})
	if err != nil {
		return nil, err
	}
	return &usersv1.CheckAttributesResponse{}, nil
}

// A change of attributes is computed from the stored ones, so it locks the row: of two
// patches of different keys, both are kept.
const lockAttributes = `
	SELECT version, attributes::text, app_attributes::text
	FROM users.profiles
	WHERE id = @id
	FOR UPDATE`

// patch applies patches to a profile's attributes and puts the results into args, the
// arguments of updateProfile. It writes the audit event. Errors: PROFILE_NOT_FOUND,
// ETAG_MISMATCH, ATTRIBUTES_INVALID, ATTRIBUTES_TOO_LARGE.
func (s *Service) patch(ctx context.Context, tx pgx.Tx, args pgx.NamedArgs, patches []attributes.Patch, actor *usersv1.Actor) error {
	var version int64
	var stored attributes.Pair
	err := tx.QueryRow(ctx, lockAttributes, args).Scan(&version, &stored.Person, &stored.App)
	if errors.Is(err, pgx.ErrNoRows) {
		return errProfileNotFound
	}
	if err != nil {
		return fmt.Errorf("lock the attributes: %w", err)
	}
	// Checked before the patch, which may be valid for the version it was made for.
	if wanted := args["version"]; wanted != nil && wanted != version {
		return errEtagMismatch
	}
	changed, err := attributes.Apply(s.schema, stored, patches...)
	if err != nil {
		return err
	}
	args["attributes"], args["app_attributes"] = changed.Person, changed.App
	return writeAuditEvent(ctx, tx, args["id"], changed.Keys, actor)
}
