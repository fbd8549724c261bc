// Package users owns profiles: people's names, locale and attributes, and the columns of
// their accounts that listing and searching need. Only it accesses the Postgres schema
// users.
//
// A profile has data of two owners. Names, locale and attributes change through
// ProfileService; version, which answers return as the etag, counts those changes.
// Email and status belong to auth: users reads them from auth's account log, and gets
// those of a new account at once through RelayService. account_version is the version
// of the account that they are from.
package users

import (
	"log/slog"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	authv1 "gatehouse/gen/auth/v1"
	servicev1 "gatehouse/gen/service/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/feed"
	"gatehouse/internal/lifecycle"
	"gatehouse/internal/standby"
	"gatehouse/users/attributes"
)

// Config configures the service.
type Config struct {
	// DB logs in as the role of users.
	DB *pgxpool.Pool
	// Standby answers reads that may be as old as the change feed; nil for none.
	Standby *database.Standby
	// Schema validates the attributes of users; nil accepts every JSON object.
	Schema *attributes.Schema
	// Accounts is auth's account log; nil if auth delivers accounts instead.
	Accounts authv1.AccountFeedServiceClient
	// Logger gets the log lines that do not belong to a call.
	Logger *slog.Logger
}

// Service implements ProfileService, RelayService, ChangeService and AuditService.
type Service struct {
	db      *database.Pool
	reads   standby.Reads
	changes *feed.Tags
	schema  *attributes.Schema
	reader  *lifecycle.Reader // nil without a client of auth
	logger  *slog.Logger
}

var (
	_ usersv1.ProfileServiceHandler = (*Service)(nil)
	_ usersv1.RelayServiceHandler   = (*Service)(nil)
	_ usersv1.ChangeServiceHandler  = (*Service)(nil)
	_ usersv1.AuditServiceHandler   = (*Service)(nil)
)

// New returns the service.
func New(config Config) *Service {
	service := &Service{db: database.Retrying(config.DB), logger: config.Logger, schema: config.Schema, changes: feed.NewTags(config.DB, changesTable, config.Logger)}
	service.reader = service.newReader(config.Accounts)
	service.reads = standby.New(service.db, config.Standby, service.changes) // of GetProfile
	return service
}

// Register registers the service's methods.
func (s *Service) Register(server *connect.Server) {
	usersv1.RegisterProfileServiceHandler(server, s)
	usersv1.RegisterRelayServiceHandler(server, s)
	usersv1.RegisterChangeServiceHandler(server, s)
	s.changes.Register(server)
	servicev1.RegisterPersonServiceHandler(server, s)
	usersv1.RegisterAuditServiceHandler(server, s)
}
