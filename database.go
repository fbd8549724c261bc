package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"gatehouse/internal/schema"
)

// logins are the services' own URLs and the roles that these sign in as.
type logins struct {
	auth, users string
	roles       schema.Roles
}

// loginsOf derives what isn't given: a role named after the database and the
// service, with a password made from the secret key.
func loginsOf(databaseURL, authURL, usersURL string, secret []byte) (logins, error) {
	var l logins
	for _, one := range []struct {
		service, given string
		url            *string
		role           *schema.Role
	}{{schema.Auth, authURL, &l.auth, &l.roles.Auth}, {schema.Users, usersURL, &l.users, &l.roles.Users}} {
		if one.given != "" {
			config, err := pgx.ParseConfig(one.given)
			if err != nil {
				return l, errors.New(strings.ToUpper(one.service) + "_DATABASE_URL can't be read as a Postgres URL")
			}
			*one.url, *one.role = one.given, schema.Role{Name: config.User, Password: config.Password}
			continue
		}
		config, err := pgx.ParseConfig(databaseURL)
		if err != nil {
			return l, errors.New("DATABASE_URL can't be read as a Postgres URL")
		}
		password, err := hkdf.Key(sha256.New, secret, nil, "gatehouse database role v1: "+one.service, 24)
		if err != nil {
			return l, fmt.Errorf("derive the password of %s: %w", one.service, err)
		}
		*one.role = schema.Role{Name: schema.RoleName(config.Database, one.service), Password: hex.EncodeToString(password)}
		*one.url, err = schema.ServiceURL(databaseURL, one.role.Name, one.role.Password)
		if err != nil {
			return l, fmt.Errorf("derive the URL of %s: %w", one.service, err)
		}
	}
	return l, nil
}

const maxConnections = 16

// openDatabase opens a service's pool and checks that its schema is there.
func openDatabase(ctx context.Context, url, service string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New(strings.ToUpper(service) + "_DATABASE_URL can't be read as a Postgres URL")
	}
	if !strings.Contains(url, "pool_max_conns") {
		config.MaxConns = maxConnections
	}
	config.MaxConnIdleTime = 5 * time.Minute
	config.ConnConfig.ConnectTimeout = 2 * time.Second
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "gatehouse " + service
	}
	if !strings.Contains(url, "default_query_exec_mode") {
		pooled, err := behindPooler(ctx, config.ConnConfig)
		if err != nil {
			return nil, fmt.Errorf("reach the database of %s: %w", service, err)
		}
		if pooled {
			config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the database of %s: %w", service, err)
	}
	if err := schemaReady(ctx, pool, service); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// behindPooler reports whether something such as PgBouncer stands before
// Postgres: then the process that works isn't the one that the connection was
// told of. A pooler may give each transaction another process, in which what was
// prepared before isn't there.
func behindPooler(ctx context.Context, config *pgx.ConnConfig) (bool, error) {
	config = config.Copy()
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var process uint32
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&process); err != nil {
		return false, err
	}
	return process != conn.PgConn().PID(), nil
}

func schemaReady(ctx context.Context, pool *pgxpool.Pool, service string) error {
	number, err := schema.Number(schemaSQL)
	if err != nil {
		return err
	}
	return schema.Ready(ctx, pool, service, number)
}

// databaseReady tells whether a service can reach its tables.
func databaseReady(pool *pgxpool.Pool, service string) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := schemaReady(ctx, pool, service); err != nil {
			// The cause may name hosts and users: readiness is public.
			return errors.New("its database can't be used")
		}
		return nil
	}
}
