package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/auth/audit"
	"gatehouse/auth/deployment"
	"gatehouse/auth/federation"
	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/database"
	"gatehouse/internal/rpc"
)

// An export holds the newest rows of each kind, as many as an answer may hold; older
// audit events can be listed. Failed sign-ins by others are among them, and must not
// make the answer too large.
const (
	exportedRows  = 10_000
	exportedBytes = rpc.MaxMessageBytes // of each kind: a service may answer with four times that
)

const (
	selectAllSessions = `
		SELECT id, create_time, last_used_time, expire_time, user_agent, ip_address,
			CASE WHEN revoke_time IS NULL AND epoch < ` + deployment.CurrentEpoch + ` THEN create_time ELSE revoke_time END,
			coalesce(revoke_reason, CASE WHEN epoch < ` + deployment.CurrentEpoch + ` THEN 'keys replaced' ELSE '' END)
		FROM auth.sessions
		WHERE account_id = @account_id
		ORDER BY create_time DESC LIMIT @most`
	selectAllMails = `
		SELECT ` + mailColumns + `
		FROM auth.mails
		WHERE account_id = @account_id OR account_id IS NULL AND @verified AND lower(recipient COLLATE "C") = lower(@email COLLATE "C")
		ORDER BY id DESC LIMIT @most`
)

// ExportAccount implements authv1.AccountServiceHandler. It is audited: the
// caller may hold a stolen token.
func (s *accountService) ExportAccount(ctx context.Context, req *authv1.ExportAccountRequest) (*authv1.ExportAccountResponse, error) {
	id := req.GetAccountId()
	found, err := s.GetAccount(ctx, &authv1.GetAccountRequest{AccountId: id})
	if err != nil {
		return nil, err
	}
	response := &authv1.ExportAccountResponse{Account: found.GetAccount(), Security: found.GetSecurity()}
	every := pgx.NamedArgs{
		"account_id": id, "most": exportedRows,
		// Mail to an address belongs to the person who has proven it.
		"email": found.GetAccount().GetEmail(), "verified": found.GetAccount().GetEmailVerified(),
	}
	if response.Sessions, err = exported(ctx, s.db, selectAllSessions, every, scanWholeSession); err != nil {
		return nil, fmt.Errorf("export the sessions: %w", err)
	}
	if response.Mails, err = exported(ctx, s.db, selectAllMails, every, func(row pgx.CollectableRow) (*authv1.Mail, error) { return scanMail(row) }); err != nil {
		return nil, fmt.Errorf("export the mails: %w", err)
	}
	if response.Factors, err = s.factors.ListFactors(ctx, &authv1.ListFactorsRequest{AccountId: id}); err != nil {
		return nil, fmt.Errorf("export the second factors: %w", err)
	}
	if response.Identities, err = federation.List(ctx, s.db, id); err != nil {
		return nil, fmt.Errorf("export the identities: %w", err)
	}
	keys, err := s.apiKeys.ListKeys(ctx, &authv1.ListKeysRequest{AccountId: id, Revoked: true})
	if err != nil {
		return nil, fmt.Errorf("export the API keys: %w", err)
	}
	response.Keys = keys.GetKeys()
	err = audit.Write(ctx, s.db, audit.Row{Event: audit.AccountExport, Outcome: audit.Succeeded, Account: id, Origin: req.GetOrigin()})
	if err != nil {
		return nil, err
	}
	events, err := s.log.List(ctx, audit.Query{Account: id, Before: uuid.Max}, exportedRows)
	if err != nil {
		return nil, err
	}
	response.AuditEvents = fitting(events)
	return response, nil
}

// exported collects the rows of a statement, as many as fit.
func exported[M proto.Message](ctx context.Context, db *database.Pool, statement string, args pgx.NamedArgs, scan func(pgx.CollectableRow) (M, error)) ([]M, error) {
	rows, err := db.Query(ctx, statement, args)
	if err != nil {
		return nil, err
	}
	messages, err := pgx.CollectRows(rows, scan)
	return fitting(messages), err
}

// fitting returns the first messages, as many as an export may hold.
func fitting[M proto.Message](messages []M) []M {
	size := 0
	for i, message := range messages {
		if size += proto.Size(message) + 8; size > exportedBytes {
			return messages[:i]
		}
	}
	return messages
}

func scanWholeSession(row pgx.CollectableRow) (*authv1.Session, error) {
	var found authv1.Session
	var created, used, expires time.Time
	var revoked *time.Time
	err := row.Scan(&found.Id, &created, &used, &expires, &found.UserAgent, &found.IpAddress, &revoked, &found.RevokeReason)
	found.CreateTime, found.LastUsedTime, found.ExpireTime = timestamppb.New(created), timestamppb.New(used), timestamppb.New(expires)
	found.RevokeTime = timestampOf(revoked)
	return &found, err
}

// timestampOf returns nil without a time.
func timestampOf(at *time.Time) *timestamppb.Timestamp {
	if at == nil {
		return nil
	}
	return timestamppb.New(*at)
}
