package auth

import (
	"gatehouse/auth/accounts"
	"gatehouse/auth/audit"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/links"
	"gatehouse/auth/outbox"
	"gatehouse/auth/passwords"
	"gatehouse/auth/relay"
	"gatehouse/auth/revocations"
	"gatehouse/internal/database"
)

// linkService implements authv1.LinkServiceHandler.
type linkService struct {
	db           *database.Pool
	registration Registration
	accounts     *accounts.Store
	passwords    *passwords.Checker
	sessions     *sessions
	links        *links.Sender
	calls        *idempotency.Keys
	log          *audit.Log
	mails        *outbox.Outbox
	relay        *relay.Relay
	revocations  *revocations.Feed
}
