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
	// otherPasswords are derived from the older secret keys. While the keys are
	// rotated, the role has one of them until the schema is applied, and copies that
	// know all keys work before and after.
	otherPasswords []string
}

// deriveLogins returns the login of each service that has a schema.
func (s *settings) deriveLogins() (map[string]login, error) {
	databaseURL, secrets := "", [][]byte(nil)
	if f := find[*databaseFlags](s); f != nil {
		databaseURL = f.DatabaseURL
	}
	if f := find[*secretFlags](s); f != nil {
		secrets = f.keys
	}
	return deriveLogins(databaseURL, s.logins, secrets)
}

// deriveLogins returns the login of each service: the given one, or a role named
// after the database and the service, with a password derived from the first
// secret key.
func deriveLogins(databaseURL string, given map[string]*loginFlags, secrets [][]byte) (map[string]login, error) {
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
		passwords, err := derivePasswords(service, secrets)
		if err != nil {
			return nil, err
		}
		role := schema.Role{Name: schema.RoleName(config.Database, service), Password: passwords[0]}
		url, err := schema.ServiceURL(databaseURL, role.Name, role.Password)
		if err != nil {
			return nil, fmt.Errorf("derive the URL of %s: %w", service, err)
		}
		logins[service] = login{url: url, role: role, otherPasswords: passwords[1:]}
	}
	return logins, nil
}

// derivePasswords returns the password of a service's role by each secret key.
func derivePasswords(service string, secrets [][]byte) ([]string, error) {
	if len(secrets) == 0 {
		return nil, problems{{"GATEHOUSE_SECRET_KEY", "is not set, and the password of " + service + "'s role is derived from it", "set it, or give " + service + " a URL of its own"}}
	}
	var passwords []string
	for _, secret := range secrets {
		password, err := hkdf.Key(sha256.New, secret, nil, "gatehouse database role v1: "+service, 24)
		if err != nil {
			return nil, fmt.Errorf("derive the password of %s: %w", service, err)
		}
		passwords = append(passwords, hex.EncodeToString(password))
	}
	return passwords, nil
}

// rolesOf returns the login roles that applying the schema creates.
func rolesOf(logins map[string]login) map[string]schema.Role {
	roles := map[string]schema.Role{}
	for service, login := range logins {
		roles[service] = login.role
	}
	return roles
}

// openDatabase opens a service's pool and checks that its schema is there.
func openDatabase(ctx context.Context, login login, service, schemaSQL string) (*pgxpool.Pool, error) {
	pool, err := database.Open(ctx, login.url, service, login.otherPasswords...)
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
