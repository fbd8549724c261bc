// Package passwords checks an account's password, throttled and audited, and
// whether a new password is acceptable.
package passwords

import (
	"context"

	"connectrpc.com/connect/v2"

	"gatehouse/auth/audit"
	"gatehouse/auth/throttle"
	"gatehouse/internal/fault"
	"gatehouse/internal/password"
)

// ErrWrong is the refusal of a signed-in person's wrong password, or of one that a
// challenge asked for.
var ErrWrong = fault.New(connect.CodeInvalidArgument, "PASSWORD_WRONG", "The password is wrong.")

// Checker checks passwords.
type Checker struct {
	Hasher   *password.Hasher
	Min      int           // characters of a new password
	Breached *BreachedList // nil for none
	Throttle *throttle.Throttle
	Log      *audit.Log
}

// Attempt is a password to check against an account's.
type Attempt struct {
	Client   throttle.Client
	Caller   password.Caller
	Password string
	Hash     string // "" when there is no account, or none has been set
	Wrong    error  // the refusal of a wrong password
	Row      audit.Row
}

// Try returns nil when the password is right, and whether its hash is outdated. A
// refusal is audited. No connection is held while the password is hashed. Errors:
// the attempt's Wrong, resource_exhausted TOO_MANY_ATTEMPTS or
// TOO_MANY_PASSWORD_CHECKS.
func (p *Checker) Try(ctx context.Context, try Attempt) (outdated bool, err error) {
	attempt, block, err := p.Throttle.Begin(ctx, try.Client)
	if fault.Reason(err) != "" {
		return false, p.Log.Refuse(ctx, blockedRow(try, block), err)
	}
	if err != nil {
		return false, err
	}
	right, outdated, err := p.Hasher.Check(ctx, try.Caller, try.Password, try.Hash)
	if err != nil { // it was not checked
		if failure := p.Throttle.Cancel(ctx, attempt); failure != nil {
			return false, failure
		}
		return false, err
	}
	if !right {
		if err := p.Throttle.Fail(ctx, attempt); err != nil {
			return false, err
		}
		return false, p.Log.Refuse(ctx, try.Row, try.Wrong)
	}
	return outdated, p.Throttle.Succeed(ctx, attempt)
}

// blockedRow returns the audit row of a blocked attempt. Blocks of a network share
// one row, which names no account. It is the same whether or not the email has an
// account, so that timing doesn't reveal it.
func blockedRow(try Attempt, block throttle.Block) audit.Row {
	row := try.Row
	if block.Address && row.Origin.GetAccountId() == "" {
		row.Account, row.Subject = "", "network:"+throttle.Network(try.Client.Address)
	}
	return row
}
