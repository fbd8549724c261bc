#!/bin/sh
# Makes .env beside compose.yaml, with a fresh secret in each line. One that is
# there stays, because the database holds what its secrets made; what a version
# before pgAdmin's own passwords left out is added to it.
set -eu
cd "$(dirname "$0")/.."

secret() {
	secret=$(od -An -N32 -tx1 /dev/urandom | tr -d " \n")
	[ ${#secret} = 64 ] || { echo "No randomness could be read." >&2; exit 1; }
	lines="$lines$1=$secret
"
}

lines=
made=
if [ -e .env ]; then
	# A last line without its end would run into the first of ours.
	[ -z "$(tail -c 1 .env)" ] || lines="
"
	for name in READER_DATABASE_PASSWORD PGADMIN_PASSWORD; do
		grep -q "^$name=" .env || { secret "$name"; made="$made $name"; }
	done
	for name in SMTP_URL GATEHOUSE_MAIL_FROM; do
		grep -q "^$name=" .env || { lines="$lines$name=
"; made="$made $name"; }
	done
	if [ -n "$made" ]; then
		printf '%s' "$lines" >>.env
		echo ".env is there already; added to it:$made."
	else
		echo ".env is there already and stays as it is."
	fi
else
	for name in POSTGRES_PASSWORD AUTH_DATABASE_PASSWORD USERS_DATABASE_PASSWORD READER_DATABASE_PASSWORD \
		GATEHOUSE_INTERNAL_KEY GATEHOUSE_SECRET_KEY GATEHOUSE_ADMIN_PASSWORD PGADMIN_PASSWORD; do
		secret "$name"
	done
	# Without a mail server in them, mail has none.
	lines="${lines}SMTP_URL=
GATEHOUSE_MAIL_FROM=
"
	umask 077
	printf '%s' "$lines" >.env
	echo "Made .env. The administrator's password is GATEHOUSE_ADMIN_PASSWORD in it."
fi

cat <<END

pgAdmin:  http://localhost:5050 once the containers run
email:    pgadmin4@pgadmin.org
password: $(sed -n 's/^PGADMIN_PASSWORD=//p' .env)
END
