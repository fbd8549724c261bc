package users

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/opaque"
	"gatehouse/internal/updatemask"
	"gatehouse/users/attributes"
)

var (
	errProfileNotFound = fault.New(connect.CodeNotFound, "PROFILE_NOT_FOUND", "There is no profile with this id. Check the id; the account may have been deleted.")
	errEtagMismatch    = fault.New(connect.CodeAborted, "ETAG_MISMATCH", "The profile has changed since you read it. Read it again and repeat your change.")
)

const getProfile = `
	SELECT ` + profileColumns + `
	FROM users.profiles
	WHERE id = @id`

// GetProfile returns one profile. Errors: PROFILE_NOT_FOUND.
func (s *Service) GetProfile(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	found, err := s.load(ctx, s.reads.Of(ctx), req.GetProfileId())
	if err != nil {
		return nil, err
	}
	return &usersv1.GetProfileResponse{Profile: found.message()}, nil
}

func (s *Service) load(ctx context.Context, db querier, id string) (profile, error) {
	rows, err := db.Query(ctx, getProfile, pgx.NamedArgs{"id": id})
	if err != nil {
		return profile{}, fmt.Errorf("load the profile: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[profile])
	if errors.Is(err, pgx.ErrNoRows) {
		return profile{}, errProfileNotFound
	}
	if err != nil {
		return profile{}, fmt.Errorf("load the profile: %w", err)
	}
	return found, nil
}

// The statement that writes compares the etag: of several changes to one version,
// Postgres applies one. The clock is read once the row is locked, so that
// update_time never decreases.
const updateProfile = `
	WITH updated AS (
	UPDATE users.profiles
	SET first_name = coalesce(@first_name, first_name),
		last_name = coalesce(@last_name, last_name),
		locale = coalesce(@locale, locale),
		attributes = coalesce(@attributes, attributes),
		app_attributes = coalesce(@app_attributes, app_attributes),
		version = version + 1,
		update_time = clock_timestamp()
	WHERE id = @id AND version = coalesce(@version, version)
	RETURNING ` + profileColumns + `),
	noted AS (INSERT INTO users.changes (tag) SELECT '` + profileTag + `' || id::text FROM updated)
	SELECT ` + profileColumns + ` FROM updated`

// UpdateProfile writes the masked fields, even if they don't change. Errors:
// UPDATE_MASK_INVALID, PROFILE_NOT_FOUND, ETAG_MISMATCH, ATTRIBUTES_INVALID,
// ATTRIBUTES_TOO_LARGE.
func (s *Service) UpdateProfile(ctx context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
	args, patches, err := masked(req)
	if err != nil {
		return nil, err
	}
	var updated profile
	if len(patches) == 0 {
		updated, err = s.update(ctx, s.db, req.GetProfile(), args)
	} else {
		err = s.db.Transact(ctx, func(tx pgx.Tx) error {
			if err := s.patch(ctx, tx, args, patches, req.GetActor()); err != nil {
				return err
			}
			updated, err = s.update(ctx, tx, req.GetProfile(), args)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return &usersv1.UpdateProfileResponse{Profile: updated.message()}, nil
}

// masked returns the arguments of updateProfile, and the patches of attributes.
func masked(req *usersv1.UpdateProfileRequest) (pgx.NamedArgs, []attributes.Patch, error) {
	next := req.GetProfile()
	args := pgx.NamedArgs{
		"id": next.GetId(), "first_name": nil, "last_name": nil, "locale": nil, "attributes": nil, "app_attributes": nil, "version": nil,
	}
	if len(req.GetUpdateMask().GetPaths()) == 0 {
		return nil, nil, updatemask.ErrEmpty
	}
	var patches []attributes.Patch
	for _, path := range req.GetUpdateMask().GetPaths() {
		if patch, ok := patchOf(next, path); ok {
			if !slices.Contains(patches, patch) {
				patches = append(patches, patch)
			}
			continue
		}
		value, ok := ownersField(next, path)
		if !ok {
			return nil, nil, updatemask.ErrField(path)
		}
		if err := plain("profile."+path, value); err != nil {
			return nil, nil, err
		}
		args[path] = value
	}
	if next.GetEtag() != "" {
		args["version"] = etagVersion(next.GetEtag())
	}
	return args, patches, nil
}

func patchOf(next *usersv1.Profile, path string) (attributes.Patch, bool) {
	text := next.GetAttributes()
	switch path {
	case attributes.Person:
	case attributes.App:
		text = next.GetAppAttributes()
	default:
		return attributes.Patch{}, false
	}
	return attributes.Patch{Object: path, Text: text, Clear: text == ""}, true
}

// querier is a pool, a transaction, or a read that a standby may answer.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (s *Service) update(ctx context.Context, db querier, next *usersv1.Profile, args pgx.NamedArgs) (profile, error) {
	rows, err := db.Query(ctx, updateProfile, args)
	if err != nil {
		return profile{}, fmt.Errorf("update the profile: %w", err)
	}
	updated, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[profile])
	if errors.Is(err, pgx.ErrNoRows) {
		return profile{}, s.whyNotUpdated(ctx, next)
	}
	if err != nil {
		return profile{}, fmt.Errorf("update the profile: %w", err)
	}
	return updated, nil
}

// whyNotUpdated distinguishes a stale etag from a missing profile.
func (s *Service) whyNotUpdated(ctx context.Context, wanted *usersv1.Profile) error {
	if wanted.GetEtag() == "" {
		return errProfileNotFound
	}
	if _, err := s.load(ctx, s.db, wanted.GetId()); err != nil {
		return err
	}
	return errEtagMismatch
}

// ownersField returns the value of a field that the profile's owner may change. Its
// path in an update mask is also the column's name.
func ownersField(profile *usersv1.Profile, path string) (string, bool) {
	switch path {
	case "first_name":
		return profile.GetFirstName(), true
	case "last_name":
		return profile.GetLastName(), true
	case "locale":
		return profile.GetLocale(), true
	}
	return "", false
}

// profile is a row of users.profiles, without the columns that auth owns.
type profile struct {
	ID         uuid.UUID
	FirstName  string
	LastName   string
	Locale     string
	Version    int64
	CreateTime time.Time
	UpdateTime time.Time
	// JSON, as it was checked.
	Attributes    string
	AppAttributes string
}

const profileColumns = `id, first_name, last_name, locale, version, create_time, update_time,
	attributes::text AS attributes, app_attributes::text AS app_attributes`

func (p profile) message() *usersv1.Profile {
	return &usersv1.Profile{
		Id:            p.ID.String(),
		FirstName:     p.FirstName,
		LastName:      p.LastName,
		Locale:        p.Locale,
		CreateTime:    timestamppb.New(p.CreateTime),
		UpdateTime:    timestamppb.New(p.UpdateTime),
		Etag:          etag(p.Version),
		Attributes:    unlessEmpty(p.Attributes),
		AppAttributes: unlessEmpty(p.AppAttributes),
	}
}

// unlessEmpty returns the text of an object that has keys.
func unlessEmpty(object string) string {
	if object == "{}" {
		return ""
	}
	return object
}

func etag(version int64) string {
	return opaque.Encode("", binary.BigEndian.AppendUint64(nil, uint64(version)))
}

// etagVersion returns an etag's version; 0, which no profile has, for an invalid
// etag.
func etagVersion(given string) int64 {
	raw, ok := opaque.Decode("", given)
	if !ok || len(raw) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(raw))
}
