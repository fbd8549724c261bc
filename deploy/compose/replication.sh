#!/bin/sh
# Runs once in compose.scale.yaml's new Postgres: lets the standby copy it, and makes every
# commit wait for the standby. Not until the next start, because the standby isn't there yet.
set -eu
echo "host replication $POSTGRES_USER all scram-sha-256" >>"$PGDATA/pg_hba.conf"
psql --set=ON_ERROR_STOP=1 --no-password --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<END
SELECT pg_create_physical_replication_slot('standby');
ALTER SYSTEM SET synchronous_standby_names = 'standby';
-- A standby that stops for longer has to be copied again.
ALTER SYSTEM SET max_slot_wal_keep_size = '4GB';
END
