#!/usr/bin/env bash
# Builds the image and runs compose.yaml in containers: signs in through the published port,
# opens the pages that the README names, kills each process, rolls the gateway, and takes all
# of it down. Then compose.serve.yaml, and compose.scale.yaml, where all of that and a failover
# of Postgres happen while somebody reads all the time: a read may fail only with 503 and
# Retry-After, or because its connection was cut.
#
#   scripts/containers.sh [compose] [serve] [scale]
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

steps=" ${*:-compose serve scale} "
work=$(mktemp -d)
standins=${STANDINS:-}
gateway=http://127.0.0.1:48001
mailbox=http://127.0.0.1:48025
pgadmin=http://127.0.0.1:45050
files="compose.yaml compose.serve.yaml compose.scale.yaml"

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
	[ ! -d "$work/tree" ] || (cd "$work/tree" && for file in $files; do compose $file down --volumes >/dev/null 2>&1 || true; done)
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
	auth | users | bff | serve) podman exec "$2" /gatehouse healthcheck ;;
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
	local roles="auth users bff"
	! grep -q "^  serve:" "$1" || roles=serve
	compose "$1" up -d $roles
	for service in $roles; do eventually 120 healthy $service "$2"; done
	if grep -q "^  haproxy:" "$1"; then
		compose "$1" up -d valkey haproxy
		eventually 30 healthy valkey 1
	fi
	[ -z "$standins" ] || return 0
	for service in mailpit pgadmin; do
		! grep -q "^  $service:" "$1" || compose "$1" up -d $service
	done
}

# status CURL_ARGUMENT... prints the status of an answer.
status() { curl --silent --output /dev/null --max-time 10 --write-out '%{http_code}' "$@"; }
answers() { local want=$1; shift; [ "$(status "$@")" = "$want" ]; }

# pages FILE requests what the README and the guide name, besides the gateway: the API's pages,
# the mailbox, which asks for its password, and pgAdmin. There are no stand-ins of the last two.
pages() {
	eventually 30 answers 200 $gateway/docs
	curl --silent --fail --max-time 10 $gateway/docs | grep -qi '<html' || fail "/docs is no page"
	say "$1: /docs answers"
	[ -z "$standins" ] || return 0
	eventually 60 answers 401 $mailbox/api/v1/messages
	answers 200 --user "mailpit:$(sed -n 's/^MAILPIT_PASSWORD=//p' .env)" $mailbox/api/v1/messages || fail "the mailbox refuses its password"
	say "$1: the mailbox asks for its password"
	grep -q "^  pgadmin:" "$1" || return 0
	eventually 180 answers 200 --location $pgadmin/login
	say "$1: pgAdmin answers"
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
		COMMIT=$commit COMMIT_TIME=$commit_time docker compose --project-name gatehouse-check build
		return
	fi
	# The build finds the Go modules of this machine, if it has them, so that it fetches none.
	local modules
	modules=$(go env GOMODCACHE)/cache/download
	mkdir -p "$modules"
	podman build --isolation chroot --layers=false ${standins:+--pull=never} --network host --volume "$modules:/modules:ro" \
		--env "GOPROXY=file:///modules,$(go env GOPROXY)" --volume /etc/ssl/certs:/etc/ssl/certs:ro \
		--build-arg "COMMIT=$commit" --build-arg "COMMIT_TIME=$commit_time" --tag gatehouse . >>"$work/log" 2>&1
	podman tag gatehouse docker.io/library/gatehouse
}

# read_me reads the account and the profile of the administrator. It prints ok, unavailable (503
# with Retry-After), cut (the connection), or what else it got.
read_me() {
	local code status=0
	code=$(curl --silent --max-time 10 --output "$work/answer" --dump-header "$work/header" --write-out '%{http_code}' \
		--header 'Content-Type: application/json' --header "Authorization: Bearer $token" --data '{}' $gateway/bff.v1.AccountService/GetMe) || status=$?
	case "$status $code" in
	"0 200") echo ok ;;
	"0 503") if grep -qi '^retry-after: [0-9]' "$work/header"; then echo unavailable; else echo "503 without Retry-After"; fi ;;
	0\ *) echo "status $code: $(head -c 200 "$work/answer")" ;;
	# Ended early, no answer, not sent, reset: the numbers of curl. A refused connection is
	# not one that was cut: the load balancer runs all the time.
	18\ * | 52\ * | 55\ * | 56\ *) echo cut ;;
	*) echo "curl failed with $status" ;;
	esac
}

# reading reads all the time, and records each result, until the file is gone.
reading() {
	while [ -e "$work/reading" ]; do
		read_me
		sleep 0.1
	done >"$work/results"
}

# under_load LABEL ALLOWED COMMAND runs it while somebody reads. ALLOWED is how many reads may
# fail, or any.
under_load() {
	local label=$1 allowed=$2 done unavailable cut failed
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
	done=$(grep -cx ok "$work/results" || true)
	unavailable=$(grep -cx unavailable "$work/results" || true)
	cut=$(grep -cx cut "$work/results" || true)
	failed=$(grep -cvx ok "$work/results" || true)
	say "$label: $done reads, $failed failed: $unavailable with 503 and Retry-After, $cut cut off"
	[ "$done" -gt 0 ] || fail "nothing was read"
	[ "$failed" = $((unavailable + cut)) ] || fail "reads failed otherwise: $(grep -vxE 'ok|unavailable|cut' "$work/results" | sort | uniq -c)"
	[ "$allowed" = any ] || [ "$failed" -le "$allowed" ] || fail "$failed reads failed"
	eventually 30 sign_in
}

say "engine: $engine${standins:+, with stand-in images}"
commit=$(git rev-parse HEAD)
commit_time=$(git show --no-patch --format=%cI HEAD)
mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -c | tar -C "$work/tree" -x
cd "$work/tree"
sed -i 's/"127\.0\.0\.1:\(8001\|8025\|5050\):/"127.0.0.1:4\1:/' $files
# podman-compose 1.0.3 takes CMD off the check again for each replica.
[ $engine = docker ] || sed -i 's|test: \[CMD, /gatehouse, healthcheck\]|test: /gatehouse healthcheck|' compose.scale.yaml
./deploy/env.sh >/dev/null
password=$(sed -n 's/^GATEHOUSE_ADMIN_PASSWORD=//p' .env)
[ -z "$standins" ] || { standin_images; say "the stand-in images exist"; }
build
version=$($engine run --rm --network none gatehouse version)
[[ $version == *"+${commit:0:12} of $commit_time,"* ]] || fail "the image says that it is $version, and it was built from $commit of $commit_time"
say "the Dockerfile is built: $version"

# kill_and_restart SERVICE... kills the process of each in turn, which the engine starts again.
kill_and_restart() {
	local service
	for service; do
		kill_process "$(containers "$service")"
		eventually 90 healthy "$service" 1
		eventually 60 sign_in
		say "$service: killed, restarted, signed in"
	done
}

# take_down FILE
take_down() {
	compose "$1" down --volumes
	[ -z "$($engine ps --all --quiet --filter label=com.docker.compose.project=gatehouse-check)" ] || fail "containers remain after down"
	say "$1 is down"
}

if [[ $steps == *" compose "* ]]; then
	up compose.yaml 1
	say "compose.yaml is up and healthy"
	eventually 30 sign_in
	say "the administrator signed in through the published port"
	pages compose.yaml
	kill_and_restart bff auth users postgres
	roll bff
	eventually 60 healthy bff 1
	eventually 30 sign_in
	say "bff: ended by itself on SIGTERM, started, signed in"
	take_down compose.yaml
fi

if [[ $steps == *" serve "* ]]; then
	up compose.serve.yaml 1
	eventually 30 sign_in
	say "compose.serve.yaml is up and healthy, and the administrator signed in"
	pages compose.serve.yaml
	kill_and_restart serve postgres
	roll serve
	eventually 60 healthy serve 1
	eventually 30 sign_in
	say "serve: ended by itself on SIGTERM, started, signed in"
	take_down compose.serve.yaml
fi

if [[ $steps == *" scale "* ]]; then
	up compose.scale.yaml 2
	eventually 60 sign_in
	say "compose.scale.yaml is up, two of each, and the administrator signed in through HAProxy"
	pages compose.scale.yaml
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
	take_down compose.scale.yaml
fi
say "all of it passed"
