package app

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"gatehouse/app/doctor"
	"gatehouse/auth"
	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
)

const roleAuth = "auth"

var authService = Definition{
	Name:       roleAuth,
	Help:       "Run the auth service: accounts, passwords, sessions and signing keys.",
	Listen:     "127.0.0.1:8002",
	RootSchema: true,
	Serves: []string{
		"auth.v1.APIKeyService", "auth.v1.AccountFeedService", "auth.v1.AccountService", "auth.v1.AuditService", "auth.v1.ChangeService", "auth.v1.DeploymentService", "auth.v1.EmailCodeService", "auth.v1.FactorService", "auth.v1.FederationService", "auth.v1.KeyService", "auth.v1.LinkService",
		"auth.v1.MailService", "auth.v1.PasskeyService", "auth.v1.RevocationService", "auth.v1.SessionService", "auth.v1.WebhookService",
	},
	Tells: []string{"account", "sessions"},
	// If the delivery of a new account fails, users reads it from the account log.
	Calls: []Call{{Service: roleUsers, Persistent: true}},
	settings: func() []group {
		return []group{&publicFlags{}, &authStandbyFlags{}, &originFlags{}, &passkeyFlags{}, &secretFlags{}, &productFlags{}, &mailFlags{}, &passwordFlags{}, &passwordListFlags{}, &accountFlags{}, &providerFlags{}, &emailSignInFlags{}, &signUpFlags{}, &factorFlags{}, &deviceFlags{}, &webhookFlags{}, &throttleFlags{}}
	},
	build:           buildAuth,
	probe:           probeAuth,
	examine:         examineAuth,
	examineDatabase: examineAuthDatabase,
}

func buildAuth(ctx context.Context, h *host) (*built, error) {
	s := h.settings
	accounts, mail, product := find[*accountFlags](s), find[*mailFlags](s), find[*productFlags](s)
	if !mail.enabled() {
		h.logger.Warn("mail disabled, password resets and email verification are unavailable", "fix", "set SMTP_URL")
	}
	service, err := auth.New(ctx, auth.Config{
		DB: h.db, Standby: h.standby, Users: usersv1.NewRelayServiceClient(h.peer(roleUsers)), UsersAudit: usersv1.NewAuditServiceClient(h.peer(roleUsers)), Readers: h.accountReaders,
		Secrets: find[*secretFlags](s).keys, Issuer: find[*publicFlags](s).url,
		Registration: auth.Registration(accounts.Registration), SessionIdle: accounts.sessionIdle, SessionMax: accounts.sessionMax,
		PasswordMin: find[*passwordFlags](s).PasswordMin, PasswordList: find[*passwordListFlags](s).list, Passkeys: find[*passkeyFlags](s).party, Throttle: find[*throttleFlags](s).on(),
		Providers:            find[*providerFlags](s).open(h.logger),
		SecondFactorRequired: find[*factorFlags](s).required(), SecondFactorRoles: find[*factorFlags](s).roles,
		SignUpDomains: find[*signUpFlags](s).domains, EmailSignIn: find[*emailSignInFlags](s).on(),
		RememberDevice:  find[*deviceFlags](s).rememberDevice,
		WebhookNetworks: find[*webhookFlags](s).networks, WebhookLocalhost: s.command == commandUp,
		KeyLife: accounts.keyLife, AuditLife: accounts.auditLife,
		Mailer: mail.mailer(h.logger), MailFrom: product.sender(s, mail.from), MailTemplates: product.signMails(s, mail.templates),
		Logger: h.logger,
	})
	if err != nil {
		return nil, err
	}
	return &built{
		service: service, register: service.Register, run: service.Run, measure: service.Measure,
		prepare: func(ctx context.Context) error { return ensureAdministrator(ctx, service, h) },
	}, nil
}

// ensureAdministrator creates the administrator of the settings where there is
// none. Up, which generates a password, does so itself.
func ensureAdministrator(ctx context.Context, service *auth.Service, h *host) error {
	accounts := find[*accountFlags](h.settings)
	if accounts.AdminPassword == "" || h.settings.command == commandUp {
		return nil
	}
	created, err := service.EnsureAdministrator(ctx, accounts.AdminEmail, accounts.AdminPassword)
	if err != nil {
		return fmt.Errorf("create the administrator: %w", err)
	}
	if !created {
		h.logger.Info("administrator exists, GATEHOUSE_ADMIN_PASSWORD not applied", "fix", "to set a password, run gatehouse admin reset-password EMAIL")
	}
	return nil
}

func probeAuth(ctx context.Context, client *connect.Client, caller string) (publicURL string, err error) {
	if caller != roleBff {
		// It names no account: it is refused after the caller was admitted.
		_, err := authv1.NewAccountFeedServiceClient(client).FindMissingAccounts(ctx, &authv1.FindMissingAccountsRequest{})
		return "", err
	}
	answer, err := authv1.NewKeyServiceClient(client).ListSigningKeys(ctx, &authv1.ListSigningKeysRequest{})
	if err != nil {
		return "", err
	}
	// A process older than schema number 8 knows no second factors, and gives the roles
	// that need one to everybody. This names no account.
	_, err = authv1.NewFactorServiceClient(client).ListFactors(ctx, &authv1.ListFactorsRequest{AccountId: uuid.Nil.String()})
	return answer.GetIssuer(), err
}

func examineAuth(report *doctor.Report, s *settings, testMail string) {
	report.PublicURL(find[*publicFlags](s).url)
	keys := find[*passkeyFlags](s)
	if keys.party != nil {
		report.Passkeys(keys.rpID, keys.party.Origins(), "")
	} else {
		report.Passkeys("", nil, keys.offBecause)
	}
	report.Providers(find[*providerFlags](s).providers)
	mail := find[*mailFlags](s)
	report.Mail(mail.smtp, mail.mailbox, mail.from, testMail)
}

func examineAuthDatabase(ctx context.Context, report *doctor.Report, conn *pgx.Conn, s *settings) {
	report.Issuer(ctx, conn, find[*publicFlags](s).url)
	report.Secrets(ctx, conn, find[*secretFlags](s).keys)
	second := find[*factorFlags](s)
	report.SecondFactors(ctx, conn, find[*secretFlags](s).keys, second.roles, second.required(), find[*mailFlags](s).enabled())
	report.AuditLog(ctx, conn)
	report.SigningKeyAge(ctx, conn, find[*accountFlags](s).keyLife)
	if keys := find[*passkeyFlags](s); keys.party != nil {
		report.StrandedPasskeys(ctx, conn, keys.rpID)
	}
}
