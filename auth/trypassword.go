package auth

import (
	"context"

	"gatehouse/auth/audit"
	"gatehouse/auth/throttle"
	"gatehouse/internal/fault"
	"gatehouse/internal/password"
)

// passwords checks passwords, old and new.
type passwords struct {
	hasher   *password.Hasher
	min      int // characters of a new password
	throttle *throttle.Throttle
	log      *audit.Log
}

// passwordTry is a password to check against an account's.
type passwordTry struct {
	client   throttle.Client
	caller   password.Caller
	password string
	hash     string // "" when there is no account, or none has been set
	wrong    error  // the refusal of a wrong password
	row      audit.Row
}

// try returns nil when the password is right, and whether its hash is outdated. A
// refusal is audited. No connection is held while the password is hashed. Errors:
// the try's wrong, resource_exhausted TOO_MANY_ATTEMPTS or
// TOO_MANY_PASSWORD_CHECKS.
func (p *passwords) try(ctx context.Context, try passwordTry) (outdated bool, err error) {
	attempt, block, err := p.throttle.Begin(ctx, try.client)
	if fault.Reason(err) != "" {
		return false, p.log.Refuse(ctx, blockedRow(try, block), err)
	}
	if err != nil {
		return false, err
	}
	right, outdated, err := p.hasher.Check(ctx, try.caller, try.password, try.hash)
	if err != nil { // it was not checked
		if failure := p.throttle.Cancel(ctx, attempt); failure != nil {
			return false, failure
		}
		return false, err
	}
	if !right {
		if err := p.throttle.Fail(ctx, attempt); err != nil {
			return false, err
		}
		return false, p.log.Refuse(ctx, try.row, try.wrong)
	}
	return outdated, p.throttle.Succeed(ctx, attempt)
}

// blockedRow returns the audit row of a blocked attempt. Blocks of a network share
// one row, which names no account. It is the same whether or not the email has an
// account, so that timing doesn't reveal it.
func blockedRow(try passwordTry, block throttle.Block) audit.Row {
	row := try.row
	if block.Address && row.Origin.GetAccountId() == "" {
		row.Account, row.Subject = "", "network:"+throttle.Network(try.client.Address)
	}
	return row
}
