package app

import (
	"context"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	authv1 "gatehouse/gen/auth/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/users"
)

const roleUsers = "users"

var usersService = Definition{
	Name:       roleUsers,
	Help:       "Run the users service: profiles.",
	Listen:     "127.0.0.1:8003",
	RootSchema: true,
	Serves:     []string{"users.v1.AuditService", "users.v1.ChangeService", "users.v1.ProfileService", "users.v1.RelayService"},
	Tells:      []string{"profile"},
	// Its profiles have the email and status of their accounts, to search by.
	Lifecycle: LifecycleAll,
	Person:    true,
	// A deployment that is older than this call has no AUTH_URL here: auth then
	// delivers accounts by itself.
	Calls: []Call{{Service: roleAuth, Persistent: true, later: true, optional: true}},
	settings: func() []group {
		return []group{&userSchemaFlags{}, &usersStandbyFlags{}}
	},
	build: buildUsers,
	probe: probeUsers,
}

func buildUsers(_ context.Context, h *host) (*built, error) {
	config := users.Config{DB: h.db, Standby: h.standby, Schema: find[*userSchemaFlags](h.settings).schema, Logger: h.logger}
	if auth := h.peer(roleAuth); auth != nil {
		config.Accounts = authv1.NewAccountFeedServiceClient(auth)
	} else {
		h.logger.Warn("AUTH_URL not set, auth delivers accounts instead", "fix", "set AUTH_URL")
	}
	service := users.New(config)
	return &built{service: service, register: service.Register, run: service.Run, measure: service.Measure}, nil
}

func probeUsers(ctx context.Context, client *connect.Client, caller string) (publicURL string, err error) {
	if caller == roleAuth {
		// It names no account: it is refused after the caller was admitted.
		_, err = usersv1.NewRelayServiceClient(client).ApplyAccount(ctx, &usersv1.ApplyAccountRequest{})
		return "", err
	}
	_, err = usersv1.NewProfileServiceClient(client).GetProfile(ctx, &usersv1.GetProfileRequest{ProfileId: uuid.Nil.String()})
	return "", err
}
