package auth

import (
	"gatehouse/auth/audit"
	"gatehouse/auth/idempotency"
	"gatehouse/auth/outbox"
	"gatehouse/auth/relay"
	"gatehouse/internal/database"
)

// linkService implements authv1.LinkServiceHandler.
type linkService struct {
	db           *database.Pool
	registration Registration
	accounts     *accounts
	passwords    *passwords
	sessions     *sessions
	links        *links
	calls        *idempotency.Keys
	log          *audit.Log
	mails        *outbox.Outbox
	relay        *relay.Relay
	revocations  *revocations
}
