#!/bin/sh
# Makes .env beside compose.yaml, with a fresh secret in each line. One that is
# there stays: the database holds what its secrets made.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
	echo ".env is there already and stays as it is."
	exit
fi
lines=
for name in POSTGRES_PASSWORD AUTH_DATABASE_PASSWORD USERS_DATABASE_PASSWORD \
	GATEHOUSE_INTERNAL_KEY GATEHOUSE_SECRET_KEY GATEHOUSE_ADMIN_PASSWORD; do
	secret=$(od -An -N32 -tx1 /dev/urandom | tr -d " \n")
	[ ${#secret} = 64 ] || { echo "No randomness could be read." >&2; exit 1; }
	lines="$lines$name=$secret
"
done
umask 077
printf '%s' "$lines" >.env
echo "Made .env. The administrator's password is GATEHOUSE_ADMIN_PASSWORD in it."
