#!/bin/sh
# Writes .env next to compose.yaml, with random secrets. An existing .env keeps its
# lines, because the database depends on its secrets; lines that an older version
# lacks are added.
set -eu
cd "$(dirname "$0")/.."

# The variables that compose.yaml requires.
required() {
	sed -n 's/.*\${\([A-Z_]*\):?.*/\1/p' compose.yaml | sort -u
}

# The variables that may stay empty. Each gets a line, or Docker Compose warns about it.
optional() {
	sed -n 's/.*\${\([A-Z_]*\)}.*/\1/p' compose.yaml | sort -u
}

secret() {
	secret=$(od -An -N32 -tx1 /dev/urandom | tr -d " \n")
	[ ${#secret} = 64 ] || { echo "/dev/urandom: read failed" >&2; exit 1; }
	lines="$lines$1=$secret
"
}

lines=
made=
if [ -e .env ]; then
	# End the last line first if it has no newline.
	[ -z "$(tail -c 1 .env)" ] || lines="
"
	for name in $(required | grep -e '_DATABASE_PASSWORD$' -e '^PGADMIN_PASSWORD$' -e '^MAILPIT_PASSWORD$' -e '^GATEHOUSE_IDENTITY_KEY$'); do
		grep -q "^$name=" .env || { secret "$name"; made="$made $name"; }
	done
	for name in $(optional); do
		grep -q "^$name=" .env || { lines="$lines$name=
"; made="$made $name"; }
	done
	if [ -n "$made" ]; then
		printf '%s' "$lines" >>.env
		echo ".env exists; added:$made."
	else
		echo ".env exists and is unchanged."
	fi
else
	for name in $(required); do
		secret "$name"
	done
	lines="$lines
# Settings of docs/reference/settings.md. With SMTP_URL=smtps://..., mail leaves this machine.
"
	for name in $(optional); do
		lines="$lines$name=
"
	done
	umask 077
	printf '%s' "$lines" >.env
	echo "Wrote .env. The administrator's password is its GATEHOUSE_ADMIN_PASSWORD."
fi

files=$(sed -n 's/^\([A-Z_]*_FILE\)=.*/ \1/p' .env | tr -d "\n")
[ -z "$files" ] || echo "Of .env, not passed to a container:$files. Set the names without _FILE." >&2

cat <<END

pgAdmin:  http://localhost:5050 once the containers run
email:    pgadmin4@pgadmin.org
password: $(sed -n 's/^PGADMIN_PASSWORD=//p' .env)

Mailbox:  http://localhost:8025
user:     mailpit
password: $(sed -n 's/^MAILPIT_PASSWORD=//p' .env)
END
