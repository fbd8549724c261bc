package doctor

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"gatehouse/auth/audit"
)

// AuditLog examines whether the open table of the audit log is closed every month.
func (r *Report) AuditLog(ctx context.Context, conn *pgx.Conn) {
	storage, err := audit.ReadStorage(ctx, conn)
	switch {
	case err != nil:
		return // Secrets reports it
	case storage.OpenAge > audit.MaxOpenAge:
		r.Problem("audit log", fmt.Sprintf("the open table has held events for %s, and is closed every month", coarse(storage.OpenAge)),
			"start auth, which closes it; if auth runs, look in its log for \"janitor: closing the audit log failed\", and end transactions that keep auth.audit_events locked for hours")
	default:
		r.OK("audit log", "the open table has held events for %s; %d earlier months are closed", coarse(storage.OpenAge), storage.Closed)
	}
}
