# The loop: edit, then make gen lint test. make check is the whole gate.

BUF := go tool -modfile=tools/go.mod buf

.PHONY: all gen service remove-service web lint test test-fast check check-containers check-kubernetes check-cluster bench build release

all: gen lint test

# Writes every generated file; scripts/generate.sh lists them. The TypeScript
# client's types need npm.
gen:
	scripts/generate.sh

.protodeps: tools/go.mod tools/protodeps/main.go
	rm -rf .protodeps
	cd tools && go run ./protodeps ../.protodeps

# Writes a new service: make service NAME=orders. SINGULAR=order is the singular, if it is
# not NAME without its final s. With PERSON=no, rows belong to no account; with FEED=no,
# there is no change feed, and the gateway does not cache; with DATABASE=no, there are no
# rows at all; with PART=yes, the newest rows of the caller are a part of GetMe.
SERVICE = go -C tools run ./service
service:
	@$(SERVICE) add .. $(NAME) singular=$(SINGULAR) database=$(DATABASE) person=$(PERSON) feed=$(FEED) part=$(PART)
	scripts/generate.sh
	@$(SERVICE) sums .. $(NAME) singular=$(SINGULAR)
	@$(SERVICE) next .. $(NAME) singular=$(SINGULAR)

# Removes a service that make service wrote and nobody edited. Its data stays in the
# database.
remove-service:
	@$(SERVICE) remove .. $(NAME) singular=$(SINGULAR)
	scripts/generate.sh

lint: .protodeps
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' | grep -vE '(^|/)gen/')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	go vet ./...
	go vet -tags crashpoint ./internal/crashpoint
	go vet -tags cluster ./e2e/cluster
	cd tools && go vet ./...
	cd tools/kubernetes && go vet ./...
	cd clients/go && go vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...
	cd clients/go && go tool -modfile=../../tools/go.mod staticcheck ./...
	$(BUF) lint
	$(BUF) format --diff --exit-code proto

# Structure, sizes, language, documents and compose.yaml are tests in checks/.
# Test binaries are linked without debugging data, which takes a third less time.
test:
	go test -timeout 20m -ldflags=-w ./...

# The slow packages start processes, hash thousands of passwords, or create
# database clusters.
SLOW := ^gatehouse/(auth|bff|bench|e2e(/.*)?|internal/postgres|internal/schema)$$

# Tests of the other packages that are slow: they fill tables with 50,000 rows and more,
# and explain thousands of statements, which takes 40 s of CPU time, or link the packages
# of Kubernetes. make test runs them.
SLOW_TESTS := ^(TestSearchesReadFewRowsOfSkewedData|TestEveryStatementIsServedByAnIndex|TestTheHelmChart)$$

test-fast:
	go vet ./...
	go test -ldflags=-w -skip '$(SLOW_TESTS)' $$(go list ./... | grep -vE '$(SLOW)')

# Everything that must pass before a merge: generated files, lint, tests, and the
# scripts that need Node, npm and Chromium. .ci/run installs those first.
check:
	scripts/check.sh

# Builds the image and runs the Compose files: kills and rolls containers, and fails over.
# Needs Docker, or podman and podman-compose as root.
check-containers:
	scripts/containers.sh

# Applies the chart to a real API server, which it builds first: ten minutes on two cores.
# Needs etcd, such as Debian's etcd-server. No pod runs.
check-kubernetes:
	scripts/kubernetes.sh

# Breaks each part of two of everything in turn, under load: nine minutes. Needs Postgres,
# PgBouncer, Redis, HAProxy and keepalived, and as root also fills a disk and moves addresses.
# The time limit of go test leaves room for a busy machine: each wait has its own.
check-cluster:
	GATEHOUSE_TEST_REQUIRE=all go test -v -tags cluster -count=1 -timeout 15m ./e2e/cluster

bench:
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix bench/fastify; else echo "npm not found: skipping Fastify"; fi
	go run ./bench -plot docs/explanation/overload.svg
	go test -run '^$$' -bench 'Token|Ed25519|100000' ./bff ./auth

# Without symbols, as in the Dockerfile; go build . keeps them for a debugger. Stack
# traces and profiles need none. The version comes from Git.
build:
	go build -trimpath -ldflags "-s -w" -o gatehouse .

# Writes the files of a release into dist/: see docs/how-to/release.md. RELEASE has further
# flags, such as RELEASE=-platforms=linux/amd64.
release:
	go -C tools run ./release $(RELEASE)

# Copies the npm packages that the API's pages use into web/assets, and builds the pages
# for people into web/pages/dist; make gen does the latter too.
web:
	npm --prefix web ci --no-audit --no-fund
	web/vendor.sh
	npm --prefix web/pages ci --no-audit --no-fund
	npm --prefix clients/typescript ci --no-audit --no-fund
	node web/pages/build.mjs
