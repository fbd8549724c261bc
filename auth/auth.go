// Package auth owns accounts: the login email, credentials, roles, status,
// sessions, tokens, signing keys and the audit. It alone touches the Postgres
// schema auth.
//
// Each proto service is a type with its RPC methods and their SQL, in files named
// after it. What is not an RPC is a package below: accounts, links and revocations
// write what several services change; relay delivers account changes to users and
// outbox delivers mail, both at least once; keyring, tokens, throttle, passwords,
// idempotency and audit each own one mechanism.
//
// Locks are taken in one order, an account's row before a session's or a link's,
// and no connection is held while a password is hashed or users is called.
package auth

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"gatehouse/auth/accountlog"
	"gatehouse/auth/accounts"
	"gatehouse/auth/admission"
	"gatehouse/auth/apikeys"
	"gatehouse/auth/audit"
	"gatehouse/auth/challenge"
	"gatehouse/auth/changes"
	"gatehouse/auth/deployment"
	"gatehouse/auth/emailcode"
	"gatehouse/auth/factors"
	"gatehouse/auth/federation"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/janitor"
	"gatehouse/auth/keyring"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passkeys"
	"gatehouse/auth/passwords"
	"gatehouse/auth/relay"
	"gatehouse/auth/rotation"
	"gatehouse/auth/throttle"
	"gatehouse/auth/tokens"
	"gatehouse/auth/webhooks"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/feed"
	post "gatehouse/internal/mail"
	"gatehouse/internal/password"
	"gatehouse/internal/provider"
	"gatehouse/internal/standby"
	"gatehouse/internal/webauthn"
)

// AdminRole is the built-in role that may administer users.
const AdminRole = accounts.AdministratorRole

// Config configures auth.
type Config struct {
	// DB logs in as auth's own role.
	DB *pgxpool.Pool
	// Standby answers reads that may be as old as the change feed; nil for none.
	Standby *database.Standby
	// Users receives new accounts at once; nil leaves them to the account log.
	Users usersv1.RelayServiceClient
	// UsersAudit has the audit events of users; nil leaves them there, for another
	// process to collect.
	UsersAudit usersv1.AuditServiceClient
	// Readers are the services that read the account log.
	Readers []Reader
	// Secrets are the secret keys, newest first, 32 bytes each.
	Secrets [][]byte
	// Issuer is the public URL, the "iss" of tokens.
	Issuer string
	// Registration says who may create an account, and SignUpDomains with emails of
	// which domains, in lower case; empty for all.
	Registration  Registration
	SignUpDomains []string
	// EmailSignIn says whether people may sign in with mailed codes.
	EmailSignIn bool
	// SessionIdle ends an unused session; SessionMax ends every session.
	SessionIdle, SessionMax time.Duration
	// PasswordMin is the minimum length of a new password, in characters;
	// DefaultPasswordMin if zero.
	PasswordMin int
	// PasswordList has passwords that are refused as breached; nil for none.
	PasswordList *passwords.BreachedList
	// Passkeys is the relying party of passkeys; nil turns them off.
	Passkeys *webauthn.Party
	// Throttle delays repeated failures; off only for tests and measurements.
	Throttle bool
	// Mailer sends mail; nil without a mail server.
	Mailer Mailer
	// MailFrom is the sender: an address, optionally with a name before it;
	// no-reply@localhost if empty.
	MailFrom string
	// MailTemplates render mail; nil for the built-in ones.
	MailTemplates *post.Templates
	// Providers are the other providers that people can sign in with.
	Providers []*provider.Provider
	// SecondFactorRequired says that every account must have a second factor.
	SecondFactorRequired bool
	// RememberDevice is how long a remembered device skips the second factor; 0
	// remembers none.
	RememberDevice time.Duration
	// SecondFactorRoles are the roles that access tokens of level 1 do not get.
	SecondFactorRoles []string
	// KeyLife is how long a signing key signs; 30 days if zero.
	KeyLife time.Duration
	// AuditLife is how long audit events are kept.
	AuditLife time.Duration
	// WebhookNetworks may be reached by webhooks besides public addresses, and
	// WebhookLocalhost allows http://localhost.
	WebhookNetworks  []netip.Prefix
	WebhookLocalhost bool
	// Now is the clock for the times in tokens; time.Now if nil.
	Now    func() time.Time
	Logger *slog.Logger
}

// DefaultPasswordMin is the minimum length of a password (NIST SP 800-63B).
const DefaultPasswordMin = 8

// Registration says who may create an account.
type Registration = accounts.Registration

const (
	RegistrationOpen   = accounts.RegistrationOpen
	RegistrationVerify = accounts.RegistrationVerify
	RegistrationClosed = accounts.RegistrationClosed
)

// Reader is a service that reads the account log.
type Reader = accountlog.Reader

// Mailer sends one mail.
type Mailer = outbox.Mailer

// Service is the auth service: the RPC services that it registers, what runs in the
// background, and the operations of commands.
type Service struct {
	db      *database.Pool
	keys    *keyring.Keyring
	changes *feed.Tags
	mails   *outbox.Outbox
	events  *accountlog.Log
	readers []Reader
	relay   *relay.Relay
	janitor *janitor.Janitor
	// collector stores the audit events of users.
	collector *audit.Collector
	accounts  *accounts.Store
	reads     standby.Reads
	// passwords hashes those that operators set.
	passwords *passwords.Checker

	account    *accountService
	session    *sessionService
	key        *keyService
	revocation *revocationService
	change     *changeService
	link       *linkService
	audit      *auditService
	mail       *mailService
	feed       *accountlog.Service
	passkey    *factors.PasskeyService
	apiKeys    *apikeys.Service
	factors    *factors.Service
	federation *federation.Service
	code       *emailcode.Service
	webhooks   *webhooks.Service
}

// New opens the service: it loads the signing keys and makes the first one on
// the first run. It returns an error when a key was sealed with a secret key
// that it wasn't given.
func New(ctx context.Context, config Config) (*Service, error) {
	config = withDefaults(config)
	db := database.Retrying(config.DB)
	desk, err := openDesk(ctx, db, config)
	if err != nil {
		return nil, err
	}
	throttle, err := throttle.New(db, config.Secrets[0], config.Throttle)
	if err != nil {
		return nil, err
	}
	calls, err := idempotency.New(db, config.Secrets)
	if err != nil {
		return nil, err
	}
	codes := &emailcode.Service{DB: db, Desk: desk, Throttle: throttle, On: config.EmailSignIn}
	signUps := accounts.SignUps{Registration: config.Registration, Domains: config.SignUpDomains}
	mails, err := openMails(db, config, signUps, codes)
	if err != nil {
		return nil, err
	}
	if err := deployment.NoteIssuer(ctx, db, config.Issuer, config.Logger); err != nil {
		return nil, err
	}
	changes, events := changes.New(config.DB, config.Logger), accountlog.New(db, config.Readers, config.Logger)
	reads := standby.New(db, config.Standby, changes) // of GetAccount and ListSessions
	relay := relay.New(events, config.Users, config.Logger)
	revocation := newRevocationService(db, desk.Keys, config.Logger)
	log := audit.NewLog(db, throttle, config.AuditLife)
	passwords := &passwords.Checker{Hasher: password.NewHasher(), Min: config.PasswordMin, Breached: config.PasswordList, Throttle: throttle, Log: log}
	accounts := &accounts.Store{DB: db, Log: log, Events: events, Mails: mails, Revocations: revocation.feed, SignUps: signUps, WaysIn: waysIn(config)}
	passkeys := &passkeys.Store{Party: config.Passkeys, DB: db, Challenges: desk.Challenges, Mails: mails}
	desk.Verifiers, desk.PasskeyOptions = []admission.Verifier{passkeys.Verifier()}, passkeys.Options
	desk.Log, desk.Mails, desk.Revocations = log, mails, revocation.feed
	sessions := &sessions{Desk: desk, db: db, log: log, passwords: passwords}
	links := &links.Sender{Log: log, Throttle: throttle, Mails: mails}
	codes.Accounts, codes.Links, codes.Mails, codes.Relay, codes.Log = accounts, links, mails, relay, log
	desk.Verifiers, desk.EmailCode = append(desk.Verifiers, codes.Verifier()), codes.StepUp
	factorService := &factors.Service{
		Store: &factors.Store{DB: db, Secrets: config.Secrets, Throttle: throttle, Mails: mails, Logger: config.Logger},
		Desk:  sessions.Desk, Passkeys: passkeys, Accounts: accounts, Links: links, Log: log, Issuer: config.Issuer,
		Required: config.SecondFactorRequired, Roles: config.SecondFactorRoles,
	}
	apiKeys := &apikeys.Service{DB: db, Log: log, Mails: mails, Revocations: revocation.feed, Secrets: config.Secrets, Logger: config.Logger}
	sessions.Verifiers = append(sessions.Verifiers, factorService.Verifiers()...)
	federation := newFederation(config, accounts, sessions, codes, relay)
	return &Service{
		db: db, reads: reads, keys: desk.Keys, changes: changes, mails: mails, events: events, readers: config.Readers, relay: relay, accounts: accounts, passwords: passwords,
		janitor:   janitor.New(db, config.AuditLife, config.Logger),
		collector: audit.NewCollector(db, config.UsersAudit, config.Logger),
		account: &accountService{
			db: db, reads: reads, registration: config.Registration, accounts: accounts, passwords: passwords, sessions: sessions, links: links,
			calls: calls, log: log, mails: mails, events: events, relay: relay, revocations: revocation.feed, factors: factorService, apiKeys: apiKeys,
		},
		session:    &sessionService{db: db, reads: reads, sessions: sessions, passwords: passwords, log: log, revocations: revocation.feed},
		key:        &keyService{keys: desk.Keys},
		revocation: revocation,
		change:     &changeService{changes: changes},
		link: &linkService{
			db: db, accounts: accounts, passwords: passwords, sessions: sessions, links: links,
			calls: calls, log: log, mails: mails, relay: relay, revocations: revocation.feed, factors: factorService,
		},
		federation: federation,
		audit:      &auditService{log: log},
		mail:       &mailService{db: db, mails: mails},
		apiKeys:    apiKeys, factors: factorService, passkey: &factors.PasskeyService{Service: factorService}, code: codes,
		feed:     &accountlog.Service{Log: events, Expected: config.Readers},
		webhooks: newWebhooks(config, db, mails),
	}, nil
}

func newWebhooks(config Config, db *database.Pool, mails *outbox.Outbox) *webhooks.Service {
	return webhooks.New(webhooks.Config{
		DB: db, Mails: mails, Secrets: config.Secrets, Networks: config.WebhookNetworks, Localhost: config.WebhookLocalhost, Logger: config.Logger,
	})
}

// openDesk opens the keys, and returns the desk that admits with them. It has no log, mails
// and revocations yet.
func openDesk(ctx context.Context, db *database.Pool, config Config) (*admission.Desk, error) {
	keys, err := keyring.Open(ctx, keyring.Config{
		DB: db, Secrets: config.Secrets, Issuer: config.Issuer, Life: config.KeyLife, SecondFactorRoles: config.SecondFactorRoles,
		Now: config.Now, Logger: config.Logger,
	})
	if err != nil {
		return nil, err
	}
	refreshKeys, err := tokens.NewRefreshKeys(config.Secrets)
	if err != nil {
		return nil, err
	}
	deviceKeys, err := tokens.NewDeviceKeys(config.Secrets)
	if err != nil {
		return nil, err
	}
	return &admission.Desk{
		DB: db, Keys: keys, RefreshKeys: refreshKeys, DeviceKeys: deviceKeys,
		Rotator:    rotation.Rotator{DB: db, Keys: refreshKeys, Idle: config.SessionIdle},
		Challenges: &challenge.Store{Secrets: config.Secrets}, Idle: config.SessionIdle, Max: config.SessionMax,
		RememberDevice: config.RememberDevice,
	}, nil
}

// openMails opens the outbox, and gives the codes their keys.
func openMails(db *database.Pool, config Config, signUps accounts.SignUps, codes *emailcode.Service) (*outbox.Outbox, error) {
	if err := codes.SetSecrets(config.Secrets); err != nil {
		return nil, err
	}
	return outbox.New(outbox.Config{
		DB: db, Mailer: config.Mailer, From: config.MailFrom, Templates: config.MailTemplates, Site: config.Issuer, Secrets: config.Secrets,
		Address: func(ctx context.Context, m outbox.Mail, late bool) (outbox.Mail, bool, error) {
			if m.Kind == outbox.SignInCode {
				return codes.Address(ctx, m)
			}
			return links.Address(ctx, db, signUps, m, late)
		},
		Logger: config.Logger,
	})
}

func withDefaults(config Config) Config {
	if config.PasswordMin == 0 {
		config.PasswordMin = DefaultPasswordMin
	}
	if config.KeyLife == 0 {
		config.KeyLife = keyring.DefaultLife
	}
	if config.Registration == "" {
		config.Registration = RegistrationClosed
	}
	return config
}

// Register adds auth's RPC services to a server.
func (s *Service) Register(server *connect.Server) {
	authv1.RegisterAccountServiceHandler(server, s.account)
	authv1.RegisterSessionServiceHandler(server, s.session)
	authv1.RegisterKeyServiceHandler(server, s.key)
	authv1.RegisterDeploymentServiceHandler(server, &deployment.Service{DB: s.db})
	authv1.RegisterRevocationServiceHandler(server, s.revocation)
	authv1.RegisterChangeServiceHandler(server, s.change)
	s.change.changes.Register(server)
	authv1.RegisterLinkServiceHandler(server, s.link)
	authv1.RegisterAuditServiceHandler(server, s.audit)
	authv1.RegisterFederationServiceHandler(server, s.federation)
	authv1.RegisterMailServiceHandler(server, s.mail)
	authv1.RegisterAccountFeedServiceHandler(server, s.feed)
	authv1.RegisterAPIKeyServiceHandler(server, s.apiKeys)
	authv1.RegisterPasskeyServiceHandler(server, s.passkey)
	authv1.RegisterEmailCodeServiceHandler(server, s.code)
	authv1.RegisterFactorServiceHandler(server, s.factors)
	authv1.RegisterWebhookServiceHandler(server, s.webhooks)
}

// Run maintains the account log, delivers accounts to an older users service, feeds
// revocations, signing keys and changed tags to gateways, collects audit events of users,
// delivers mail and webhooks, rotates signing keys and prunes, until ctx ends.
// Without it, tokens can be made for a minute after New.
func (s *Service) Run(ctx context.Context) {
	var group errgroup.Group
	for _, run := range []func(context.Context){
		s.events.Run, s.relay.Run, s.revocation.feed.Run, s.changes.Run, s.keys.Run, s.janitor.Run, s.mails.Run, s.collector.Run, s.apiKeys.Run, s.factors.Run, s.webhooks.Run,
	} {
		group.Go(func() error { run(ctx); return nil })
	}
	_ = group.Wait()
}
