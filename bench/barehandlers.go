package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// bareHandlersCommand is the argument that runs bench as a server of bare handlers.
const bareHandlersCommand = "bare-handlers"

// bareDatabaseVariable is the environment variable with the URL of their database.
const bareDatabaseVariable = "BENCH_DATABASE_URL"

// row is what a bare handler selects.
type row interface{ columns() []any }

// A bare handler is the least that serves one part of an answer: it reads an id from
// JSON, selects by it and writes JSON. No token, policy, log, limit or timeout.
type bareUser struct {
	ID            string    `json:"id"`
	Email         string    `json:"email"`
	EmailVerified bool      `json:"emailVerified"`
	Status        string    `json:"status"`
	Roles         []string  `json:"roles"`
	FirstName     string    `json:"firstName"`
	LastName      string    `json:"lastName"`
	Locale        string    `json:"locale"`
	Version       int64     `json:"etag"`
	CreateTime    time.Time `json:"createTime"`
	UpdateTime    time.Time `json:"updateTime"`
}

func (r *bareUser) columns() []any {
	return []any{
		&r.ID, &r.Email, &r.EmailVerified, &r.Status, &r.Roles, &r.FirstName,
		&r.LastName, &r.Locale, &r.Version, &r.CreateTime, &r.UpdateTime,
	}
}

type bareAccount struct {
	ID             string     `json:"id"`
	Email          string     `json:"email"`
	EmailVerified  bool       `json:"emailVerified"`
	Status         string     `json:"status"`
	Roles          []string   `json:"roles"`
	CreateTime     time.Time  `json:"createTime"`
	UpdateTime     time.Time  `json:"updateTime"`
	PasswordChange time.Time  `json:"passwordChangeTime"`
	LastSignIn     *time.Time `json:"lastSignInTime"`
	ActiveSessions int64      `json:"activeSessions"`
}

func (r *bareAccount) columns() []any {
	return []any{
		&r.ID, &r.Email, &r.EmailVerified, &r.Status, &r.Roles, &r.CreateTime,
		&r.UpdateTime, &r.PasswordChange, &r.LastSignIn, &r.ActiveSessions,
	}
}

type bareSession struct {
	ID           string    `json:"id"`
	CreateTime   time.Time `json:"createTime"`
	LastUsedTime time.Time `json:"lastUsedTime"`
	ExpireTime   time.Time `json:"expireTime"`
	UserAgent    string    `json:"userAgent"`
	IPAddress    string    `json:"ipAddress"`
}

func (r *bareSession) columns() []any {
	return []any{
		&r.ID, &r.CreateTime, &r.LastUsedTime, &r.ExpireTime, &r.UserAgent, &r.IPAddress,
	}
}

type bareProfile struct {
	ID         string    `json:"id"`
	FirstName  string    `json:"firstName"`
	LastName   string    `json:"lastName"`
	Locale     string    `json:"locale"`
	Version    int64     `json:"etag"`
	UpdateTime time.Time `json:"updateTime"`
}

func (r *bareProfile) columns() []any {
	return []any{
		&r.ID, &r.FirstName, &r.LastName, &r.Locale, &r.Version, &r.UpdateTime,
	}
}

const (
	selectBareUser = `
		SELECT a.id::text, a.email, a.email_verified, a.status, a.roles, p.first_name, p.last_name, p.locale, p.version,
			a.create_time, greatest(a.update_time, p.update_time)
		FROM auth.accounts a JOIN users.profiles p ON p.id = a.id WHERE a.id = $1`
	selectBareAccount = `
		SELECT a.id::text, a.email, a.email_verified, a.status, a.roles, a.create_time, a.update_time, a.password_change_time, a.last_sign_in_time,
			(SELECT count(*) FROM auth.sessions s WHERE s.account_id = a.id AND s.revoke_time IS NULL AND s.expire_time > now())
		FROM auth.accounts a WHERE a.id = $1`
	selectBareSessions = `
		SELECT id::text, create_time, last_used_time, expire_time, user_agent, coalesce(ip_address::text, '')
		FROM auth.sessions WHERE account_id = $1 AND revoke_time IS NULL AND expire_time > now()
		ORDER BY last_used_time DESC LIMIT 100`
	selectBareProfile = `SELECT id::text, first_name, last_name, locale, version, update_time FROM users.profiles WHERE id = $1`
)

func runBareHandlers(ctx context.Context) error {
	db, err := pgxpool.New(ctx, os.Getenv(bareDatabaseVariable))
	if err != nil {
		return err
	}
	defer db.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /user", bareHandler(db, selectBareUser, func() row { return new(bareUser) }))
	mux.HandleFunc("POST /account", bareHandler(db, selectBareAccount, func() row { return new(bareAccount) }))
	mux.HandleFunc("POST /sessions", bareHandler(db, selectBareSessions, func() row { return new(bareSession) }))
	mux.HandleFunc("POST /profile", bareHandler(db, selectBareProfile, func() row { return new(bareProfile) }))

	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", os.Getenv("GATEHOUSE_LISTEN"))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

func bareHandler(db *pgxpool.Pool, statement string, empty func() row) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		var asked struct {
			UserID string `json:"userId"`
		}
		if err := json.NewDecoder(request.Body).Decode(&asked); err != nil {
			http.Error(w, "invalid JSON", http.StatusBadRequest)
			return
		}
		found, err := selectRows(request.Context(), db, statement, asked.UserID, empty)
		if err != nil || len(found) == 0 {
			http.Error(w, fmt.Sprintf("%d rows: %v", len(found), err), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(found)
	}
}

func selectRows(ctx context.Context, db *pgxpool.Pool, statement, id string, empty func() row) ([]row, error) {
	rows, err := db.Query(ctx, statement, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []row
	for rows.Next() {
		one := empty()
		if err := rows.Scan(one.columns()...); err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, rows.Err()
}
