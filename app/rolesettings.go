package app

import (
	"context"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"

	"gatehouse/auth"
	"gatehouse/internal/rpc"
	"gatehouse/internal/serve"
)

// roleSettings are one role's flags, checked. The doctor reads them as the role
// does.
type roleSettings struct {
	keys    rpc.InternalKeys
	secrets [][]byte
	issuer  string
	rules   accountRules
	edge    edge
	stop    serve.Stop
	ops     *operations
}

func (c *authCommand) parse(m *mistakes, app *kong.Application) roleSettings {
	checkNames(m, app, os.Environ())
	parseListen(m, c.Listen)
	checkDatabaseURL(m, "AUTH_DATABASE_URL", c.AuthDatabaseURL, true)
	parsePeer(m, "USERS_URL", c.UsersURL)
	s := roleSettings{
		keys: c.internalFlags.parse(m), secrets: c.secretFlags.parse(m), issuer: c.publicFlags.parse(m, ""),
		stop: c.stopFlags.parse(m), ops: c.opsFlags.parse(m, roleAuth, c.Listen),
	}
	s.rules = c.accountFlags.parse(m, c.Registration, s.issuer)
	s.rules.throttle = c.throttleFlags.parse(m)
	return s
}

func (c *usersCommand) parse(m *mistakes, app *kong.Application) roleSettings {
	checkNames(m, app, os.Environ())
	parseListen(m, c.Listen)
	checkDatabaseURL(m, "USERS_DATABASE_URL", c.UsersDatabaseURL, true)
	return roleSettings{keys: c.internalFlags.parse(m), stop: c.stopFlags.parse(m), ops: c.opsFlags.parse(m, roleUsers, c.Listen)}
}

func (c *bffCommand) parse(m *mistakes, app *kong.Application) roleSettings {
	checkNames(m, app, os.Environ())
	parseListen(m, c.Listen)
	parsePeer(m, "AUTH_URL", c.AuthURL)
	parsePeer(m, "USERS_URL", c.UsersURL)
	s := roleSettings{
		keys: c.internalFlags.parse(m), edge: c.edgeFlags.parse(m, ""), stop: c.stopFlags.parse(m),
		ops: c.opsFlags.parse(m, roleBff, c.Listen),
	}
	s.edge.throttle = c.throttleFlags.parse(m)
	return s
}

// ensureAdministrator creates the administrator that the settings ask for where
// there is none.
func ensureAdministrator(ctx context.Context, service *auth.Service, rules accountRules, logger *slog.Logger) error {
	if rules.adminPassword == "" {
		return nil
	}
	made, err := service.EnsureAdministrator(ctx, rules.adminEmail, rules.adminPassword)
	if err != nil {
		return err
	}
	if !made {
		logger.Info("administrator exists, GATEHOUSE_ADMIN_PASSWORD not applied", "fix", "gatehouse admin reset-password EMAIL sets a password")
	}
	return nil
}
