// Package users owns profiles: people's names and locale, and the columns of their
// accounts that listing and searching need. Only it accesses the Postgres schema
// users.
//
// A profile has data of two owners. Names and locale change through ProfileService;
// version, which answers return as the etag, counts those changes. Email and status
// belong to auth: its relay sends each account's current state to RelayService, and
// account_version is the version of the last one.
package users

import (
	"log/slog"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	servicev1 "gatehouse/gen/service/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/feed"
)

// Config configures the service.
type Config struct {
	// DB logs in as the role of users.
	DB *pgxpool.Pool
	// Logger gets what isn't logged with a call.
	Logger *slog.Logger
}

// Service implements ProfileService, RelayService and ChangeService.
type Service struct {
	db      *database.Pool
	changes *feed.Tags
	logger  *slog.Logger
}

var (
	_ usersv1.ProfileServiceHandler = (*Service)(nil)
	_ usersv1.RelayServiceHandler   = (*Service)(nil)
	_ usersv1.ChangeServiceHandler  = (*Service)(nil)
)

// New returns the service.
func New(config Config) *Service {
	service := &Service{db: database.Retrying(config.DB), logger: config.Logger, changes: feed.NewTags(config.DB, changesTable, config.Logger)}
	return service
}

// Register registers the service's methods.
func (s *Service) Register(server *connect.Server) {
	usersv1.RegisterProfileServiceHandler(server, s)
	usersv1.RegisterRelayServiceHandler(server, s)
	usersv1.RegisterChangeServiceHandler(server, s)
	s.changes.Register(server)
	servicev1.RegisterPersonServiceHandler(server, s)
}
