package app

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/database"
	"gatehouse/internal/schema"
)

// logins are the services' own URLs and the roles that these sign in as.
type logins struct {
	auth, users string
	roles       schema.Roles
	// Passwords of the same roles by the other secret keys. While these are rotated,
	// the roles have an old one until the schema is applied, and copies that know
	// both work before and after.
	otherAuth, otherUsers []string
}

// loginsOf derives what isn't given: a role named after the database and the
// service, with a password made from the first secret key.
func loginsOf(databaseURL, authURL, usersURL string, secrets [][]byte) (logins, error) {
	var l logins
	for _, one := range []struct {
		service, given string
		url            *string
		role           *schema.Role
		others         *[]string
	}{{schema.Auth, authURL, &l.auth, &l.roles.Auth, &l.otherAuth}, {schema.Users, usersURL, &l.users, &l.roles.Users, &l.otherUsers}} {
		if one.given != "" {
			config, err := database.ParseConfig(one.given)
			if err != nil {
				return l, errors.New(strings.ToUpper(one.service) + "_DATABASE_URL can't be read as a Postgres URL")
			}
			*one.url, *one.role = one.given, schema.Role{Name: config.User, Password: config.Password}
			continue
		}
		config, err := database.ParseConfig(databaseURL)
		if err != nil {
			return l, errors.New("DATABASE_URL can't be read as a Postgres URL")
		}
		var passwords []string
		for _, secret := range secrets {
			password, err := hkdf.Key(sha256.New, secret, nil, "gatehouse database role v1: "+one.service, 24)
			if err != nil {
				return l, fmt.Errorf("derive the password of %s: %w", one.service, err)
			}
			passwords = append(passwords, hex.EncodeToString(password))
		}
		if len(passwords) == 0 {
			return l, errors.New("the password of " + one.service + "'s role is derived from GATEHOUSE_SECRET_KEY, which isn't set")
		}
		*one.role = schema.Role{Name: schema.RoleName(config.Database, one.service), Password: passwords[0]}
		*one.others = passwords[1:]
		*one.url, err = schema.ServiceURL(databaseURL, one.role.Name, one.role.Password)
		if err != nil {
			return l, fmt.Errorf("derive the URL of %s: %w", one.service, err)
		}
	}
	return l, nil
}

// openDatabase opens a service's pool and checks that its schema is there. Its role
// may have one of the other passwords.
func openDatabase(ctx context.Context, url, service string, otherPasswords ...string) (*pgxpool.Pool, error) {
	pool, err := database.Open(ctx, url, service, otherPasswords...)
	if err != nil {
		return nil, err
	}
	if err := schemaReady(ctx, pool, service); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func schemaReady(ctx context.Context, pool *pgxpool.Pool, service string) error {
	number, err := schema.Number(schemaSQL)
	if err != nil {
		return err
	}
	return schema.Ready(ctx, pool, service, number)
}

// databaseUsable tells whether a service's tables are as it needs them and can
// be written.
func databaseUsable(ctx context.Context, pool *pgxpool.Pool, service string) error {
	if err := schemaReady(ctx, pool, service); err != nil {
		return err
	}
	return database.Writable(ctx, pool)
}

// databaseReady tells whether a service can reach its tables.
func databaseReady(pool *pgxpool.Pool, service string) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err := databaseUsable(ctx, pool, service)
		switch {
		case errors.Is(err, database.ErrReadOnly):
			return errors.New("its database takes no writes")
		case err != nil:
			// The cause may name hosts and users: readiness is public.
			return errors.New("its database can't be used")
		}
		return nil
	}
}
