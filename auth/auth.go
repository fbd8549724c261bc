// Package auth owns accounts: the login email, credentials, roles, status,
// sessions, tokens, signing keys and the audit. It alone touches the Postgres
// schema auth.
//
// Whatever changes an account writes an outbox row in the same transaction, and
// the relay tells users how the account now is: see relay.go. Refresh tokens
// rotate, and a lost answer is told from a stolen token: see refresh.go. Mail is
// written with what it is about, and sent at least once: see mail_outbox.go.
//
// Locks are taken in one order, an account's row before a session's or a link's,
// and no connection is held while a password is hashed or users is called.
package auth

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/feed"
	post "gatehouse/internal/mail"
	"gatehouse/internal/password"
)

// AdminRole is the built-in role that may administer users.
const AdminRole = "admin"

// AccessTokenLife is how long an access token is good.
const AccessTokenLife = 5 * time.Minute

// Config is what auth needs.
type Config struct {
	// DB logs in as auth's own role.
	DB *pgxpool.Pool
	// Users is told of account changes; nil leaves them in the outbox, for
	// another process to tell.
	Users usersv1.RelayServiceClient
	// Secrets are the secret keys, newest first, 32 bytes each.
	Secrets [][]byte
	// Issuer is the public URL, the "iss" of tokens.
	Issuer string
	// Registration says who may make an account.
	Registration Registration
	// SessionIdle ends a session that isn't used; SessionMax ends any.
	SessionIdle, SessionMax time.Duration
	// PasswordMin is how many characters a new password has at least;
	// DefaultPasswordMin if zero.
	PasswordMin int
	// Throttle makes failures wait: off only for tests and measurements.
	Throttle bool
	// Mailer sends mail; nil when there is no way to.
	Mailer Mailer
	// MailFrom is who mail is from: an address, perhaps with a name before it;
	// no-reply@localhost if empty.
	MailFrom string
	// MailTemplates are what mail says; nil for the built-in ones.
	MailTemplates *post.Templates
	// KeyLife is for how long a signing key signs; DefaultKeyLife if zero.
	KeyLife time.Duration
	// AuditLife is for how long audit events are kept.
	AuditLife time.Duration
	Logger    *slog.Logger
}

// DefaultPasswordMin is how many characters a password has at least (NIST SP
// 800-63B).
const DefaultPasswordMin = 8

// Registration says who may make an account.
type Registration string

const (
	// RegistrationOpen lets anybody make an account and be signed in at once.
	RegistrationOpen Registration = "open"
	// RegistrationVerify sends a link first, and tells nobody who has an account.
	RegistrationVerify Registration = "verify"
	// RegistrationClosed leaves it to administrators.
	RegistrationClosed Registration = "closed"
)

// Mailer sends one mail. A [post.Refusal] is the mail server's no; after any
// other error the mail may have been sent or not.
type Mailer interface {
	Send(ctx context.Context, message post.Message) error
}

// Service is the auth service.
type Service struct {
	db              *database.Pool
	users           usersv1.RelayServiceClient
	passwords       *password.Hasher
	refreshKeys     refreshKeys
	deviceKeys      deviceKeys
	throttleMAC     []byte
	idempotencyKeys [][]byte
	keys            *keyring
	revocations     *revocations
	keyChanges      atomic.Int64 // how often the signing keys changed
	changes         *feed.Tags
	mails           *outbox
	registration    Registration
	sessionIdle     time.Duration
	sessionMax      time.Duration
	passwordMin     int
	throttle        bool
	lines           lines
	keyLife         time.Duration
	auditLife       time.Duration
	logger          *slog.Logger
}

// New opens the service: it loads the signing keys and makes the first one on
// the first run. It returns an error when a key was sealed with a secret key
// that it wasn't given.
func New(ctx context.Context, config Config) (*Service, error) {
	refresh, err := newRefreshKeys(config.Secrets)
	if err != nil {
		return nil, err
	}
	devices, err := deriveEach(config.Secrets, "device token v1")
	if err != nil {
		return nil, err
	}
	throttleMAC, err := derive(config.Secrets[0], "throttle v1")
	if err != nil {
		return nil, err
	}
	idempotency, err := deriveEach(config.Secrets, "idempotency key v1")
	if err != nil {
		return nil, err
	}
	keys, err := openKeyring(ctx, config.DB, config.Secrets, config.Issuer, config.Logger)
	if err != nil {
		return nil, err
	}
	mails, err := newOutbox(config)
	if err != nil {
		return nil, err
	}
	service := &Service{
		db: database.Retrying(config.DB), users: config.Users, passwords: password.NewHasher(), refreshKeys: refresh, keys: keys,
		deviceKeys: devices, throttleMAC: throttleMAC, idempotencyKeys: idempotency,
		mails: mails, registration: config.Registration,
		sessionIdle: config.SessionIdle, sessionMax: config.SessionMax,
		passwordMin: config.PasswordMin, throttle: config.Throttle,
		keyLife: config.KeyLife, auditLife: config.AuditLife,
		logger: config.Logger,
	}
	service.revocations, service.changes = service.newRevocations(), newChanges(config.DB, config.Logger)
	if service.passwordMin == 0 {
		service.passwordMin = DefaultPasswordMin
	}
	if service.keyLife == 0 {
		service.keyLife = DefaultKeyLife
	}
	if service.registration == "" {
		service.registration = RegistrationClosed
	}
	if err := service.noteIssuer(ctx); err != nil {
		return nil, err
	}
	return service, nil
}

// Register adds auth's RPC services to a server.
func (s *Service) Register(server *connect.Server) {
	authv1.RegisterAccountServiceHandler(server, s)
	authv1.RegisterSessionServiceHandler(server, s)
	authv1.RegisterKeyServiceHandler(server, s)
	authv1.RegisterRevocationServiceHandler(server, s)
	authv1.RegisterChangeServiceHandler(server, s)
	authv1.RegisterLinkServiceHandler(server, s)
	authv1.RegisterAuditServiceHandler(server, s)
	authv1.RegisterMailServiceHandler(server, s)
}

// Run tells users of account changes, and gateways of revocations, signing keys
// and what else has changed, sends mail, and lets go of what is old, until ctx
// ends. Without it, tokens can be made for a minute after New.
func (s *Service) Run(ctx context.Context) {
	var group errgroup.Group
	group.Go(func() error { s.relay(ctx); return nil })
	group.Go(func() error { s.revocations.Run(ctx); return nil })
	group.Go(func() error { s.changes.Run(ctx); return nil })
	group.Go(func() error { s.keepKeys(ctx); return nil })
	group.Go(func() error { s.letGo(ctx); return nil })
	group.Go(func() error { s.sendMails(ctx); return nil })
	_ = group.Wait()
}

// transact runs work in one transaction. The error that work returns rolls it
// back. Work may run more than once: see database.Pool.
func (s *Service) transact(ctx context.Context, work func(tx pgx.Tx) error) error {
	return s.db.Transact(ctx, work)
}
