package app

import (
	"context"
	"slices"
	"strings"

	"gatehouse/internal/database"
	"gatehouse/internal/schema"
)

// authStandbyFlags and usersStandbyFlags name the standbys that answer reads.
type authStandbyFlags struct {
	AuthReadDatabaseURL string `env:"AUTH_READ_DATABASE_URL" placeholder:"URL" help:"Read what the gateway may cache from this standby of auth's database, without a user as the login role of auth. The primary answers every read if empty, and whenever the standby is behind or fails."`
}

type usersStandbyFlags struct {
	UsersReadDatabaseURL string `env:"USERS_READ_DATABASE_URL" placeholder:"URL" help:"Read what the gateway may cache from this standby of users' database, without a user as the login role of users. The primary answers every read if empty, and whenever the standby is behind or fails."`
}

func (f *authStandbyFlags) check(c *checks)  { f.standby().check(c) }
func (f *usersStandbyFlags) check(c *checks) { f.standby().check(c) }

// standby is the setting of one service.
type standby struct{ service, url string }

func (f *authStandbyFlags) standby() standby  { return standby{roleAuth, f.AuthReadDatabaseURL} }
func (f *usersStandbyFlags) standby() standby { return standby{roleUsers, f.UsersReadDatabaseURL} }

// readsStandby reports whether the service has a setting for a standby.
func (d Definition) readsStandby() bool {
	if d.settings == nil {
		return false
	}
	return slices.ContainsFunc(d.settings(), func(g group) bool {
		_, ok := g.(interface{ standby() standby })
		return ok
	})
}

// standbyOf returns the standby of a service; its URL is empty for none.
func (s *settings) standbyOf(service string) standby {
	for _, g := range s.groups {
		if flags, ok := g.(interface{ standby() standby }); ok && flags.standby().service == service {
			return flags.standby()
		}
	}
	return standby{service: service}
}

func (s standby) setting() string { return strings.ToUpper(s.service) + "_READ_DATABASE_URL" }

func (s standby) check(c *checks) {
	if s.url == "" { // which pgx would read as the variables PG*
		return
	}
	checkDatabaseURL(c.problems, s.setting(), s.url, false)
	if _, err := database.ParseConfig(s.url); err != nil {
		c.add(s.setting(), "can't be parsed as a Postgres URL", urlFix)
	}
}

// login returns the URL as the service signs in with it. A URL without a user has that of
// the service's login.
func (s standby) login(given login) (url string, otherPasswords []string, err error) {
	if schema.HasUser(s.url) {
		return s.url, nil, nil
	}
	url, err = schema.ServiceURL(s.url, given.role.Name, given.role.Password)
	return url, given.otherPasswords, err
}

// openStandby opens the standby of a service; nil if it has none.
func (s *Stack) openStandby(ctx context.Context, service string) (*database.Standby, error) {
	given := s.settings.standbyOf(service)
	if given.url == "" {
		return nil, nil
	}
	url, otherPasswords, err := given.login(s.logins[service])
	if err != nil {
		return nil, problems{{given.setting(), err.Error(), urlFix}}
	}
	return database.OpenStandby(ctx, url, service, otherPasswords...)
}
