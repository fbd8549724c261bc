package users_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/pgtest"
	"gatehouse/internal/rpc"
	"gatehouse/users"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestEachServiceMayCallOnlyItsOwnMethods(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})

	_, err := usersv1.NewRelayServiceClient(s.client(t, "bff")).ApplyAccount(t.Context(), present(newID(t), 1, account{}))
	wantError(t, "the bff applies an account", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)

	profiles := usersv1.NewProfileServiceClient(s.client(t, "auth"))
	_, err = profiles.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: newID(t)})
	wantError(t, "auth gets a profile", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
	_, err = profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{})
	wantError(t, "auth lists profiles", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
	_, err = profiles.UpdateProfile(t.Context(), &usersv1.UpdateProfileRequest{})
	wantError(t, "auth updates a profile", err, connect.CodePermissionDenied, fault.ReasonPermissionDenied)
}

func TestADatabaseThatIsAwayIsUnavailable(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, "postgres://127.0.0.1:1/away")})

	_, err := s.profiles.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: newID(t)})
	wantError(t, "GetProfile", err, connect.CodeUnavailable, fault.ReasonUnavailable)
	_, err = s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{})
	wantError(t, "ListProfiles", err, connect.CodeUnavailable, fault.ReasonUnavailable)
	_, err = s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: newID(t)}, "locale"))
	wantError(t, "UpdateProfile", err, connect.CodeUnavailable, fault.ReasonUnavailable)
	_, err = s.relay.ApplyAccount(t.Context(), present(newID(t), 1, account{}))
	wantError(t, "ApplyAccount", err, connect.CodeUnavailable, fault.ReasonUnavailable)
}

// What the schema's rules let through must not fail inside Postgres either.
func TestTextThatPostgresCantHoldIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{})

	for _, text := range []string{"a\x00b", "\x00", "\xff", "a\xc3"} {
		calls := map[string]func() error{
			"query": func() error {
				_, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{Query: text})
				return err
			},
			"page_token": func() error {
				_, err := s.profiles.ListProfiles(t.Context(), &usersv1.ListProfilesRequest{PageToken: text})
				return err
			},
			"update_mask": func() error {
				_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id}, text))
				return err
			},
			"profile.first_name": func() error {
				_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, FirstName: text}, "first_name"))
				return err
			},
			"profile.last_name": func() error {
				_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, LastName: text}, "last_name"))
				return err
			},
			"profile.locale": func() error {
				_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Locale: text}, "locale"))
				return err
			},
			"present.email": func() error {
				_, err := s.relay.ApplyAccount(t.Context(), present(id, 2, account{email: text}))
				return err
			},
			"present.first_name": func() error {
				_, err := s.relay.ApplyAccount(t.Context(), present(id, 2, account{firstName: text}))
				return err
			},
			"present.last_name": func() error {
				_, err := s.relay.ApplyAccount(t.Context(), present(id, 2, account{lastName: text}))
				return err
			},
			"present.locale": func() error {
				_, err := s.relay.ApplyAccount(t.Context(), present(id, 2, account{locale: text}))
				return err
			},
		}
		for field, call := range calls {
			err := call()
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("%s %q: got %v, want invalid_argument", field, text, err)
			} else if got := invalidFields(err); len(got) != 1 || got[0] != field {
				t.Errorf("%s %q: got violations of %q, want of the field", field, text, got)
			}
		}
	}
	_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, Etag: "\x00"}, "locale"))
	wantError(t, "an etag of NUL", err, connect.CodeAborted, "ETAG_MISMATCH")
}

func TestValuesThatAreTooLongAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, users.Config{DB: pgtest.Pool(t, pgtest.New(t).Users)})
	id := s.apply(t, account{})
	long := string(bytes.Repeat([]byte("é"), 101))

	_, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, FirstName: long}, "first_name"))
	wantError(t, "a first name of 101 letters", err, connect.CodeInvalidArgument, fault.ReasonInvalid)
	_, err = s.relay.ApplyAccount(t.Context(), present(id, 2, account{lastName: long}))
	wantError(t, "a last name of 101 letters", err, connect.CodeInvalidArgument, fault.ReasonInvalid)

	longest := string(bytes.Repeat([]byte("é"), 100))
	res, err := s.profiles.UpdateProfile(t.Context(), update(&usersv1.Profile{Id: id, FirstName: longest}, "first_name"))
	if err != nil || res.GetProfile().GetFirstName() != longest {
		t.Errorf("a first name of 100 letters: got %v, %v", res, err)
	}
}

// system is the service behind the real RPC layer.
type system struct {
	db       *pgxpool.Pool
	server   *rpc.Server
	profiles usersv1.ProfileServiceClient // as the bff
	relay    usersv1.RelayServiceClient   // as auth
}

var keys = rpc.InternalKeys{bytes.Repeat([]byte{7}, 32)}

func start(t testing.TB, config users.Config) *system {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := rpc.NewServer(
		rpc.ServerConfig{Logger: config.Logger, Authorizer: rpc.ServicesOnly(keys, "users"), IsUnavailable: database.IsUnavailable},
		users.New(config).Register,
	)
	if err != nil {
		t.Fatalf("build the server: %v", err)
	}
	s := &system{db: config.DB, server: server}
	s.profiles = usersv1.NewProfileServiceClient(s.client(t, "bff"))
	s.relay = usersv1.NewRelayServiceClient(s.client(t, "auth"))
	return s
}

func (s *system) client(t testing.TB, caller string) *connect.Client {
	t.Helper()
	client, err := dial.InProcess(dial.Route{Caller: caller, Callee: "users", Keys: keys}, s.server)
	if err != nil {
		t.Fatalf("make a client for %s: %v", caller, err)
	}
	return client
}

// account is what auth might say of an account. Zero fields get a value of
// their own, but for names and locale.
type account struct {
	email                       string
	status                      usersv1.ProfileStatus
	createTime                  time.Time
	firstName, lastName, locale string
}

// apply has the relay bring a new account, and returns its id.
func (s *system) apply(t testing.TB, a account) string {
	t.Helper()
	id := newID(t)
	s.applied(t, present(id, 1, a))
	return id
}

func (s *system) applied(t testing.TB, req *usersv1.ApplyAccountRequest) {
	t.Helper()
	if _, err := s.relay.ApplyAccount(t.Context(), req); err != nil {
		t.Fatalf("apply %v: %v", req, err)
	}
}

func (s *system) get(t testing.TB, id string) *usersv1.Profile {
	t.Helper()
	res, err := s.profiles.GetProfile(t.Context(), &usersv1.GetProfileRequest{ProfileId: id})
	if err != nil {
		t.Fatalf("get profile %s: %v", id, err)
	}
	return res.GetProfile()
}

func present(id string, version int64, a account) *usersv1.ApplyAccountRequest {
	if a.email == "" {
		a.email = id + "@example.com"
	}
	if a.status == 0 {
		a.status = usersv1.ProfileStatus_PROFILE_STATUS_ACTIVE
	}
	if a.createTime.IsZero() {
		a.createTime = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	}
	return &usersv1.ApplyAccountRequest{AccountId: id, Version: version, State: &usersv1.ApplyAccountRequest_Present{
		Present: &usersv1.AccountState{
			Email: a.email, Status: a.status, CreateTime: timestamppb.New(a.createTime),
			FirstName: a.firstName, LastName: a.lastName, Locale: a.locale,
		},
	}}
}

func deleted(id string, version int64) *usersv1.ApplyAccountRequest {
	return &usersv1.ApplyAccountRequest{AccountId: id, Version: version, State: &usersv1.ApplyAccountRequest_Deleted{
		Deleted: &usersv1.AccountDeleted{},
	}}
}

func update(profile *usersv1.Profile, paths ...string) *usersv1.UpdateProfileRequest {
	return &usersv1.UpdateProfileRequest{Profile: profile, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}
}

func newID(t testing.TB) string {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

func wantError(t testing.TB, what string, err error, code connect.Code, reason string) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != code || fault.Reason(err) != reason {
		t.Errorf("%s: got error %v (reason %q), want %v %s", what, err, fault.Reason(err), code, reason)
	}
}

// invalidFields returns the fields that an error's BadRequest names.
func invalidFields(err error) []string {
	var fields []string
	for _, violation := range badRequest(err).GetFieldViolations() {
		fields = append(fields, violation.GetField())
	}
	return fields
}

func badRequest(err error) *errdetails.BadRequest {
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	for _, detail := range failure.Details() {
		message, err := connectproto.UnmarshalErrorDetail(detail)
		if bad, ok := message.(*errdetails.BadRequest); ok && err == nil {
			return bad
		}
	}
	return nil
}

// terminate ends every connection to the test's database but its own, as a
// crash of the process would.
func terminate(ctx context.Context, databaseURL string) error {
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	const statement = `
		SELECT count(pg_terminate_backend(pid))
		FROM pg_stat_activity
		WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()`
	var ended int
	if err := pool.QueryRow(ctx, statement).Scan(&ended); err != nil {
		return fmt.Errorf("end the connections: %w", err)
	}
	return nil
}
