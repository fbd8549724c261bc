#!/bin/sh
# The standby of compose.scale.yaml: copies the primary at its first start.
set -eu
if [ ! -e "$PGDATA" ]; then
	# A copy that was interrupted has the other name.
	rm -rf "$PGDATA.copy"
	pg_basebackup --dbname="host=postgres user=gatehouse application_name=standby" --no-password \
		--pgdata="$PGDATA.copy" --wal-method=stream --slot=standby --checkpoint=fast --write-recovery-conf
	mv "$PGDATA.copy" "$PGDATA"
fi
# As a primary it has no standby, which the copied setting would wait for.
exec postgres -c synchronous_standby_names=
