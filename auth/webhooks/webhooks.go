// Package webhooks sends events about accounts to the endpoints of an installation, by
// signed HTTP calls as Standard Webhooks describes them (standardwebhooks.com).
//
// Triggers (internal/schema/events.go) write an event and its deliveries in the transaction
// of its fact. A replica leases deliveries that are due and holds no transaction while it
// sends. If it dies, or can't record the answer, the delivery is attempted again with the
// same webhook-id: each event arrives at least once. The events of one account reach an
// endpoint in their order: a delivery waits for the earlier ones, until they are accepted or
// have become dead letters.
package webhooks

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/auth/outbox"
	"gatehouse/internal/database"
	"gatehouse/internal/egress"
	"gatehouse/internal/fault"
)

// TestType is the type of the event that an administrator sends to an endpoint.
const TestType = "webhook.test"

// Types are the types of events.
var Types = []string{
	"user.created", "user.verified", "user.email_changed", "user.disabled", "user.enabled", "user.roles_changed", "user.deleted",
	"session.created", "session.ended", "factor.added", "factor.removed", "identity.linked", "identity.unlinked", "apikey.created", "apikey.revoked", TestType,
}

const (
	// maxWebhooks is how many endpoints and listeners there may be.
	maxWebhooks = 2000
	// secretOverlap is how long an older secret signs as well.
	secretOverlap = 24 * time.Hour
	// maxSecrets is how many secrets of an endpoint may sign.
	maxSecrets = 5
	// Retention is how long events and their deliveries are kept.
	Retention = 30 * 24 * time.Hour
)

var (
	errNotFound         = fault.New(connect.CodeNotFound, "WEBHOOK_NOT_FOUND", "There is no such webhook. List the webhooks for their ids.")
	errTooMany          = fault.New(connect.CodeResourceExhausted, "TOO_MANY_WEBHOOKS", "There are 2,000 webhooks and listeners. Delete a webhook that is no longer used, then repeat this.")
	errTooManySecrets   = fault.New(connect.CodeResourceExhausted, "TOO_MANY_WEBHOOK_SECRETS", "The webhook has 5 secrets. Rotate again when the oldest is 24 hours old.")
	errDisabled         = fault.New(connect.CodeFailedPrecondition, "WEBHOOK_DISABLED", "The webhook is disabled. Enable it, then repeat this.")
	errDeliveryNotFound = fault.New(connect.CodeNotFound, "DELIVERY_NOT_FOUND", "The webhook has no such delivery. Deliveries are kept for 30 days: list them for their ids.")
	errDeliverySent     = fault.New(connect.CodeFailedPrecondition, "DELIVERY_SENT", "The endpoint has accepted this delivery. Replay its event to send it again.")
	errType             = fault.Invalid("EVENT_TYPE_UNKNOWN", "types", "name types of events that docs/how-to/webhooks.md lists")
)

// errURL is the error for a URL that nothing can be sent to.
func errURL(err error) *connect.Error {
	return fault.Invalid("WEBHOOK_URL_INVALID", "url", err.Error())
}

// Config configures a service.
type Config struct {
	DB    *database.Pool
	Mails *outbox.Outbox
	// Secrets are the system's secret keys, newest first.
	Secrets [][]byte
	// Networks may be reached besides public addresses.
	Networks []netip.Prefix
	// Localhost allows http://localhost.
	Localhost bool
	Logger    *slog.Logger
}

// Service implements authv1.WebhookServiceHandler, and delivers.
type Service struct {
	db      *database.Pool
	mails   *outbox.Outbox
	secrets [][]byte
	dialer  egress.Dialer
	client  *http.Client
	logger  *slog.Logger
	wake    chan struct{}
	flights flights
}

// New returns a service; Run delivers.
func New(config Config) *Service {
	dialer := egress.Dialer{Networks: config.Networks, Localhost: config.Localhost}
	return &Service{
		db: config.DB, mails: config.Mails, secrets: config.Secrets, dialer: dialer, client: dialer.Client(attemptLimit),
		logger: config.Logger, wake: make(chan struct{}, 1), flights: flights{mu: new(sync.Mutex), endpoints: map[string]*flight{}},
	}
}

// Wake makes Run look for deliveries at once.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wanted returns the types that a request names; all if it names none.
func wanted(types []string) ([]string, error) {
	if len(types) == 0 {
		return Types, nil
	}
	for _, name := range types {
		if !slices.Contains(Types, name) {
			return nil, errType
		}
	}
	types = slices.Clone(types)
	slices.Sort(types)
	return slices.Compact(types), nil
}
