#!/bin/sh
# The start of pgAdmin in compose.yaml: writes PGPASS, the password of its database role, into
# the file PGPASS_FILE, which the image's own entry point copies to pgAdmin's storage, and runs
# that entry point, its arguments.
set -eu
umask 077
printf '%s\n' "$PGPASS" >"$PGPASS_FILE"
unset PGPASS
exec "$@"
