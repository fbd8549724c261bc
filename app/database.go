package app

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/database"
	"gatehouse/internal/schema"
)

// login is a service's own URL and the role that signs in with it.
type login struct {
	url  string
	role schema.Role
}

// deriveLogins returns the login of each service that has a schema.
func (s *settings) deriveLogins() (map[string]login, error) {
	databaseURL, secret := "", []byte(nil)
	if f := find[*databaseFlags](s); f != nil {
		databaseURL = f.DatabaseURL
	}
	if f := find[*secretFlags](s); f != nil && len(f.keys) > 0 {
		secret = f.keys[0]
	}
	return deriveLogins(databaseURL, s.logins, secret)
}

// deriveLogins returns the login of each service: the given one, or a role named
// after the database and the service, with a password derived from the secret
// key.
func deriveLogins(databaseURL string, given map[string]*loginFlags, secret []byte) (map[string]login, error) {
	logins := map[string]login{}
	for service, flags := range given {
		if flags.URL != "" {
			config, err := database.ParseConfig(flags.URL)
			if err != nil {
				return nil, problems{{flags.name(), "can't be parsed as a Postgres URL", urlFix}}
			}
			logins[service] = login{url: flags.URL, role: schema.Role{Name: config.User, Password: config.Password}}
			continue
		}
		config, err := database.ParseConfig(databaseURL)
		if err != nil {
			return nil, problems{{"DATABASE_URL", "can't be parsed as a Postgres URL", urlFix}}
		}
		password, err := hkdf.Key(sha256.New, secret, nil, "gatehouse database role v1: "+service, 24)
		if err != nil {
			return nil, fmt.Errorf("derive the password of %s: %w", service, err)
		}
		role := schema.Role{Name: schema.RoleName(config.Database, service), Password: hex.EncodeToString(password)}
		url, err := schema.ServiceURL(databaseURL, role.Name, role.Password)
		if err != nil {
			return nil, fmt.Errorf("derive the URL of %s: %w", service, err)
		}
		logins[service] = login{url: url, role: role}
	}
	return logins, nil
}

// rolesOf returns the login roles that the schema is to make.
func rolesOf(logins map[string]login) map[string]schema.Role {
	roles := map[string]schema.Role{}
	for service, login := range logins {
		roles[service] = login.role
	}
	return roles
}

// openDatabase opens a service's pool and checks that its schema is there.
func openDatabase(ctx context.Context, url, service, schemaSQL string) (*pgxpool.Pool, error) {
	pool, err := database.Open(ctx, url, service)
	if err != nil {
		return nil, err
	}
	if err := schemaReady(ctx, pool, service, schemaSQL); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func schemaReady(ctx context.Context, pool *pgxpool.Pool, service, schemaSQL string) error {
	number, err := schema.Number(schemaSQL)
	if err != nil {
		return err
	}
	return schema.Ready(ctx, pool, service, number)
}

// databaseUsable checks that a service's tables are as it needs them and can be
// written.
func databaseUsable(ctx context.Context, pool *pgxpool.Pool, service, schemaSQL string) error {
	if err := schemaReady(ctx, pool, service, schemaSQL); err != nil {
		return err
	}
	return database.Writable(ctx, pool)
}
