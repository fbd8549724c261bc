package users

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/fault"
	"gatehouse/internal/opaque"
)

var (
	errProfileNotFound = fault.New(connect.CodeNotFound, "PROFILE_NOT_FOUND", "There is no profile with this id. Check the id; the account may have been deleted.")
	errEtagMismatch    = fault.New(connect.CodeAborted, "ETAG_MISMATCH", "The profile has changed since you read it. Read it again and repeat your change.")
)

const getProfile = `
	SELECT ` + profileColumns + `
	FROM users.profiles
	WHERE id = @id`

// GetProfile returns one profile, or PROFILE_NOT_FOUND.
func (s *Service) GetProfile(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	found, err := s.load(ctx, req.GetProfileId())
	if err != nil {
		return nil, err
	}
	return &usersv1.GetProfileResponse{Profile: found.message()}, nil
}

func (s *Service) load(ctx context.Context, id string) (profile, error) {
	rows, err := s.db.Query(ctx, getProfile, pgx.NamedArgs{"id": id})
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

// The etag is compared by the statement that writes: of several changes made to
// one version, Postgres lets one through. The clock is read when the row is
// held, so that update_time never runs backwards.
const updateProfile = `
	WITH updated AS (
	UPDATE users.profiles
	SET first_name = coalesce(@first_name, first_name),
		last_name = coalesce(@last_name, last_name),
		locale = coalesce(@locale, locale),
		version = version + 1,
		update_time = clock_timestamp()
	WHERE id = @id AND version = coalesce(@version, version)
	RETURNING ` + profileColumns + `),
	noted AS (INSERT INTO users.changes (tag) SELECT '` + profileTag + `' || id::text FROM updated)
	SELECT ` + profileColumns + ` FROM updated`

// UpdateProfile changes the masked fields, even to the values that they have.
// It returns UPDATE_MASK_INVALID, PROFILE_NOT_FOUND or ETAG_MISMATCH.
func (s *Service) UpdateProfile(ctx context.Context, req *usersv1.UpdateProfileRequest) (*usersv1.UpdateProfileResponse, error) {
	next := req.GetProfile()
	args := pgx.NamedArgs{"id": next.GetId(), "first_name": nil, "last_name": nil, "locale": nil, "version": nil}
	if len(req.GetUpdateMask().GetPaths()) == 0 {
		return nil, errUpdateMask("is empty: name at least one of first_name, last_name, locale")
	}
	for _, path := range req.GetUpdateMask().GetPaths() {
		value, ok := ownersField(next, path)
		if !ok {
			return nil, errUpdateMask(fmt.Sprintf("%.64q can't be changed: name only first_name, last_name, locale", path))
		}
		if err := plain("profile."+path, value); err != nil {
			return nil, err
		}
		args[path] = value
	}
	if next.GetEtag() != "" {
		args["version"] = etagVersion(next.GetEtag())
	}

	rows, err := s.db.Query(ctx, updateProfile, args)
	if err != nil {
		return nil, fmt.Errorf("update the profile: %w", err)
	}
	updated, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[profile])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, s.whyNotUpdated(ctx, next)
	}
	if err != nil {
		return nil, fmt.Errorf("update the profile: %w", err)
	}
	return &usersv1.UpdateProfileResponse{Profile: updated.message()}, nil
}

// whyNotUpdated tells a stale etag from a profile that isn't there.
func (s *Service) whyNotUpdated(ctx context.Context, wanted *usersv1.Profile) error {
	if wanted.GetEtag() == "" {
		return errProfileNotFound
	}
	if _, err := s.load(ctx, wanted.GetId()); err != nil {
		return err
	}
	return errEtagMismatch
}

// ownersField returns the value of a field that the profile's owner may change,
// by its name in an update mask, which is also its column's.
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

func errUpdateMask(problem string) error {
	return fault.Invalid("UPDATE_MASK_INVALID", "update_mask", problem)
}

// profile is a row of users.profiles, without what auth owns.
type profile struct {
	ID         uuid.UUID
	FirstName  string
	LastName   string
	Locale     string
	Version    int64
	CreateTime time.Time
	UpdateTime time.Time
}

const profileColumns = `id, first_name, last_name, locale, version, create_time, update_time`

func (p profile) message() *usersv1.Profile {
	return &usersv1.Profile{
		Id:         p.ID.String(),
		FirstName:  p.FirstName,
		LastName:   p.LastName,
		Locale:     p.Locale,
		CreateTime: timestamppb.New(p.CreateTime),
		UpdateTime: timestamppb.New(p.UpdateTime),
		Etag:       etag(p.Version),
	}
}

func etag(version int64) string {
	return opaque.Encode("", binary.BigEndian.AppendUint64(nil, uint64(version)))
}

// etagVersion returns the version that an etag names; 0, which no profile has,
// when it isn't one of ours.
func etagVersion(given string) int64 {
	raw, ok := opaque.Decode("", given)
	if !ok || len(raw) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(raw))
}
