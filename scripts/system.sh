# Sourced by the scripts that need a running system. Builds gatehouse into $work,
# which is removed on exit; start_system runs it on an empty data folder.

work=$(mktemp -d)
chmod 711 "$work" # Postgres may run as another user
pid=

cleanup() {
	if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
		kill -INT "$pid"
		wait "$pid" || true
	fi
	rm -rf "$work"
}
trap cleanup EXIT

# start_system starts gatehouse up, waits until it serves, and sets password to
# the administrator's.
start_system() {
	go build -o "$work/gatehouse" .
	GATEHOUSE_DATA_DIR=$work/data "$work/gatehouse" up >"$work/banner" 2>"$work/log" &
	pid=$!
	for _ in $(seq 600); do
		grep -q 'Ctrl-C stops it' "$work/banner" && break
		kill -0 "$pid" 2>/dev/null || { cat "$work/log"; exit 1; }
		sleep 0.1
	done
	password=$(sed -n 's/^  password *//p' "$work/banner")
}

# stop_system fails unless gatehouse exits with status 0.
stop_system() {
	kill -INT "$pid"
	wait "$pid"
	pid=
}
