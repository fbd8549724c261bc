// Package users owns profiles: people's names and locale, and what listing and
// searching need to know of their accounts. It alone touches the Postgres
// schema users.
//
// A profile has two owners' facts in it. Its names and locale change through
// ProfileService, and version, which answers show as the etag, counts those
// changes. Email and status belong to auth: the relay tells RelayService how
// each account now is, and account_version remembers how far that went.
package users

import (
	"log/slog"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/feed"
)

// Config says what the service works with.
type Config struct {
	// DB logs in as the role of users.
	DB *pgxpool.Pool
	// Logger gets what isn't the outcome of one call.
	Logger *slog.Logger
}

// Service answers ProfileService and RelayService.
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
}
