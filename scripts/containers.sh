#!/usr/bin/env bash
# Builds the image and runs compose.yaml in containers: signs in through the published port,
# kills a process, rolls the gateway, and takes all of it down. Then compose.scale.yaml, where
# both of that and a failover of Postgres happen while somebody reads all the time.
#
#   scripts/containers.sh [compose] [scale]
#
# It uses Docker if its daemon runs, and else podman with podman-compose, as root. It works on a
# copy of the tree, with project names, secrets, ports and data of its own, and removes them.
# Killing a process needs root.
#
# STANDINS=FOLDER, for machines that reach no registry of images: podman gets images of the
# original names, made of the Debian 12 that debootstrap wrote into FOLDER/rootfs, and of the Go
# of this machine. The folder keeps podman's images. pgAdmin and Mailpit are not started then.
set -euo pipefail
cd "$(dirname "$0")/.."

steps=" ${*:-compose scale} "
work=$(mktemp -d)
standins=${STANDINS:-}
gateway=http://127.0.0.1:48001

say() { echo "$(date +%T) $*"; }
fail() { echo "FAIL: $*" >&2; exit 1; }

# Runs this script again where podman finds no hybrid cgroup mount, with limits that the
# machine allows.
enter_podman() {
	local home=${standins:-$work}
	mkdir -p "$home/podman"
	cat >"$home/podman/containers.conf" <<-END
		[containers]
		default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=4000:4000"]
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		[network]
		network_backend = "netavark"
	END
	cat >"$home/podman/storage.conf" <<-END
		[storage]
		driver = "vfs"
		graphroot = "$home/podman/store"
		runroot = "$home/podman/run"
	END
	export CONTAINERS_CONF=$home/podman/containers.conf CONTAINERS_STORAGE_CONF=$home/podman/storage.conf
	rmdir "$work" 2>/dev/null || true
	ENGINE=podman exec unshare --mount --propagation private sh -c \
		'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$0" "$@"' "scripts/containers.sh" ${steps}
}

engine=${ENGINE:-}
if [ -z "$engine" ]; then
	if docker info >/dev/null 2>&1; then
		engine=docker
	elif command -v podman-compose >/dev/null; then
		enter_podman
	else
		fail "no container engine: start Docker, or install podman and podman-compose"
	fi
fi

# compose FILE ARGUMENT...
compose() {
	local file=$1
	shift
	if [ $engine = docker ]; then
		docker compose --project-name gatehouse-check --file "$file" "$@"
	else
		# Its exit status says nothing.
		podman-compose --podman-run-args=--pull=never --project-name gatehouse-check --file "$file" "$@" >>"$work/log" 2>&1 || true
	fi
}

# containers SERVICE prints their ids, of running ones.
containers() {
	local label=com.docker.compose.service
	$engine ps --quiet --filter "label=com.docker.compose.project=gatehouse-check" --filter "label=$label=$1"
}

cleanup() {
	local status=$?
	[ $status = 0 ] || { tail -40 "$work/log" 2>/dev/null; for id in $($engine ps --all --quiet --filter label=com.docker.compose.project=gatehouse-check); do
		$engine inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}}' "$id"
		$engine logs --tail 5 "$id" 2>&1
	done; } >&2
	[ ! -d "$work/tree" ] || (cd "$work/tree" && for file in compose.yaml compose.scale.yaml; do compose $file down --volumes >/dev/null 2>&1 || true; done)
	for id in $($engine ps --all --quiet --filter label=com.docker.compose.project=gatehouse-check); do $engine rm --force "$id" >/dev/null; done
	for volume in $($engine volume ls --quiet --filter name=gatehouse-check_); do $engine volume rm --force "$volume" >/dev/null; done
	rm -rf "$work"
}
trap cleanup EXIT

# eventually SECONDS COMMAND...
eventually() {
	local until=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt $until ] || fail "not within its time: $*"
		sleep 1
	done
}

# checked SERVICE CONTAINER runs the health check under podman. podman-compose 1.0.3 wraps each
# check in a shell, which the image of Gatehouse lacks, so its check is executed here.
checked() {
	case $1 in
	auth | users | bff) podman exec "$2" /gatehouse healthcheck ;;
	*) podman healthcheck run "$2" ;;
	esac
}

# healthy SERVICE COUNT reports whether so many containers of it are.
healthy() {
	local id count=0
	for id in $(containers "$1"); do
		if [ $engine = podman ]; then
			checked "$1" "$id" >/dev/null 2>&1 && count=$((count + 1))
		else
			[ "$(docker inspect --format '{{.State.Health.Status}}' "$id")" = healthy ] && count=$((count + 1))
		fi
	done
	[ $count = "$2" ]
}

# up FILE COUNT starts its services. podman-compose 1.0.3 does not wait for health checks, so
# they are started in their order here.
up() {
	if [ $engine = docker ]; then
		compose "$1" up --detach --wait
		return
	fi
	local service
	for service in postgres standby; do
		grep -q "^  $service:" "$1" || continue
		compose "$1" up -d $service
		eventually 90 healthy $service 1
	done
	compose "$1" up -d schema
	schema_ended() { [ "$(podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' gatehouse-check_schema_1)" = "exited 0" ]; }
	eventually 90 schema_ended
	compose "$1" up -d auth users bff
	for service in auth users bff; do eventually 120 healthy $service "$2"; done
	grep -q "^  haproxy:" "$1" || return 0
	compose "$1" up -d valkey haproxy
	eventually 30 healthy valkey 1
}

sign_in() {
	curl --silent --fail --max-time 10 --header 'Content-Type: application/json' \
		--data "{\"email\":\"admin@localhost\",\"password\":\"$password\"}" $gateway/bff.v1.AuthService/Login | grep -q accessToken
}

kill_process() {
	kill -9 "$($engine inspect --format '{{.State.Pid}}' "$1")"
}

# roll SERVICE [N] stops one container, which has to end by itself, and starts it again.
roll() {
	local id
	id=$(containers "$1" | sed -n "${2:-1}p")
	$engine stop --time 40 "$id" >/dev/null 2>>"$work/log"
	[ "$($engine inspect --format '{{.State.ExitCode}}' "$id")" = 0 ] || fail "$1 did not end by itself"
	$engine start "$id" >/dev/null 2>>"$work/log"
}

standin_images() {
	local images=$standins/images
	podman image exists docker.io/library/debian:12 || tar -C "$standins/rootfs" -c . | podman import - docker.io/library/debian:12 >>"$work/log" 2>&1
	rm -rf "$images"
	mkdir -p "$images"
	standin() { podman image exists "$1" || podman build --isolation chroot --pull=never --layers=false --tag "$1" --file - "$2" >>"$work/log" 2>&1; }
	standin "docker.io/library/$(sed -n 's/^FROM .*\(golang:[^ ]*\) AS build$/\1/p' Dockerfile)" "$(go env GOROOT)" <<-'END'
		FROM docker.io/library/debian:12
		COPY . /usr/local/go
		ENV PATH=/usr/local/go/bin:/usr/bin:/bin GOTOOLCHAIN=local
	END
	printf 'nonroot:x:65532:65532::/:/sbin/nologin\n' >"$images/passwd"
	standin gcr.io/distroless/static-debian12:nonroot "$images" <<-'END'
		FROM scratch
		COPY passwd /etc/passwd
		USER 65532
	END
	# As the original: initializes over a socket, and runs what stands in the folder.
	cat >"$images/entry.sh" <<-'END'
		#!/bin/bash
		set -euo pipefail
		export PGDATA=${PGDATA:-/var/lib/postgresql/data}
		if [ ! -s "$PGDATA/PG_VERSION" ]; then
			initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth-local=trust --auth-host=scram-sha-256 >/dev/null
			echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
			echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
			pg_ctl -w -o "-c listen_addresses=" start
			[ "$POSTGRES_DB" = postgres ] || createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
			for file in /docker-entrypoint-initdb.d/*.sh; do [ ! -e "$file" ] || "$file"; done
			pg_ctl -w -m fast stop
		fi
		exec postgres
	END
	standin docker.io/library/postgres:17 "$images" <<-'END'
		FROM docker.io/library/debian:12
		COPY entry.sh /entry.sh
		RUN chmod 755 /entry.sh && mkdir -p /var/lib/postgresql/data /docker-entrypoint-initdb.d && chown postgres:postgres /var/lib/postgresql/data /var/run/postgresql && chmod 700 /var/lib/postgresql/data
		ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin LANG=C.UTF-8 PGDATA=/var/lib/postgresql/data
		STOPSIGNAL SIGINT
		ENTRYPOINT ["/entry.sh"]
	END
	[[ $steps == *" scale "* ]] || return 0
	standin docker.io/library/haproxy:3.0-alpine "$images" <<-'END'
		FROM docker.io/library/debian:12
		USER haproxy
		STOPSIGNAL SIGUSR1
		ENTRYPOINT ["/usr/sbin/haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
	END
	standin docker.io/valkey/valkey:8.0 "$images" <<-'END'
		FROM docker.io/library/debian:12
		RUN ln -s redis-server /usr/bin/valkey-server && ln -s redis-cli /usr/bin/valkey-cli && mkdir /data
		WORKDIR /data
	END
}

build() {
	if [ $engine = docker ]; then
		docker compose --project-name gatehouse-check build
		return
	fi
	# The build finds the Go modules of this machine, if it has them, so that it fetches none.
	local modules
	modules=$(go env GOMODCACHE)/cache/download
	mkdir -p "$modules"
	podman build --isolation chroot --layers=false ${standins:+--pull=never} --network host --volume "$modules:/modules:ro" \
		--env "GOPROXY=file:///modules,$(go env GOPROXY)" --volume /etc/ssl/certs:/etc/ssl/certs:ro --tag gatehouse . >>"$work/log" 2>&1
	podman tag gatehouse docker.io/library/gatehouse
}

# read_me reads the account and the profile of the administrator.
read_me() {
	curl --silent --fail --max-time 10 --header 'Content-Type: application/json' --header "Authorization: Bearer $token" \
		--data '{}' $gateway/bff.v1.AccountService/GetMe >/dev/null
}

# reading reads all the time, and counts what failed, until the file is gone.
reading() {
	local done=0 failed=0
	while [ -e "$work/reading" ]; do
		if read_me; then done=$((done + 1)); else failed=$((failed + 1)); fi
		sleep 0.1
	done
	echo "$done $failed" >"$work/read"
}

under_load() {
	local label=$1 allowed=$2 done failed
	shift 2
	token=$(curl --silent --fail --max-time 10 --header 'Content-Type: application/json' \
		--data "{\"email\":\"admin@localhost\",\"password\":\"$password\"}" $gateway/bff.v1.AuthService/Login | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')
	touch "$work/reading"
	reading &
	local loop=$!
	sleep 2
	"$@"
	sleep 2
	rm "$work/reading"
	wait $loop
	read -r done failed <"$work/read"
	say "$label: $done reads, $failed failed"
	[ "$done" -gt 0 ] || fail "nothing was read"
	[ "$allowed" = any ] || [ "$failed" -le "$allowed" ] || fail "$failed reads failed"
	eventually 30 sign_in
}

say "engine: $engine${standins:+, with stand-in images}"
mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -c | tar -C "$work/tree" -x
cd "$work/tree"
sed -i 's/"127\.0\.0\.1:\(8001\|8025\|5050\):/"127.0.0.1:4\1:/' compose.yaml compose.scale.yaml
# podman-compose 1.0.3 takes CMD off the check again for each replica.
[ $engine = docker ] || sed -i 's|test: \[CMD, /gatehouse, healthcheck\]|test: /gatehouse healthcheck|' compose.scale.yaml
./deploy/env.sh >/dev/null
password=$(sed -n 's/^GATEHOUSE_ADMIN_PASSWORD=//p' .env)
[ -z "$standins" ] || { standin_images; say "the stand-in images exist"; }
build
say "the Dockerfile is built"

if [[ $steps == *" compose "* ]]; then
	up compose.yaml 1
	say "compose.yaml is up and healthy"
	eventually 30 sign_in
	say "the administrator signed in through the published port"
	for service in bff auth users postgres; do
		id=$(containers $service)
		kill_process "$id"
		eventually 90 healthy $service 1
		eventually 60 sign_in
		say "$service: killed, restarted, signed in"
	done
	roll bff
	eventually 60 healthy bff 1
	eventually 30 sign_in
	say "bff: ended by itself on SIGTERM, started, signed in"
	compose compose.yaml down --volumes
	[ -z "$($engine ps --all --quiet --filter label=com.docker.compose.project=gatehouse-check)" ] || fail "containers remain after down"
	say "compose.yaml is down"
fi

if [[ $steps == *" scale "* ]]; then
	up compose.scale.yaml 2
	eventually 60 sign_in
	say "compose.scale.yaml is up, two of each, and the administrator signed in through HAProxy"
	roll_all() { local s n; for s in bff auth users; do for n in 1 2; do roll $s $n; eventually 90 healthy $s 2; sleep 3; done; done; }
	under_load "each of the six containers rolled" 0 roll_all
	kill_each() { local s; for s in bff auth users; do kill_process "$(containers $s | head -1)"; eventually 90 healthy $s 2; sleep 3; done; }
	under_load "one container of each service killed" any kill_each
	fail_over() {
		$engine stop "$(containers postgres)" >/dev/null 2>>"$work/log"
		$engine exec "$(containers standby)" pg_ctl promote >/dev/null
		eventually 60 sign_in
	}
	under_load "failover to the standby" any fail_over
	compose compose.scale.yaml down --volumes
	say "compose.scale.yaml is down"
fi
say "all of it passed"
