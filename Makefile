# The loop: edit, then make gen lint test.

BUF := go tool -modfile=tools/go.mod buf

.PHONY: all gen client web lint check test test-fast bench build

all: gen lint test

# Runs all that needs nothing but Go.
check: lint test

# Generates gen/, web/openapi.json, web/postman.json and the pages on methods and
# errors from proto/, offline: what our protos import from others is printed from
# the Go modules that carry it.
gen: .protodeps
	$(BUF) format --write proto
	rm -rf gen
	$(BUF) generate
	cd tools && go run ./postman ../web/openapi.json ../web/postman.json
	cd tools && go run ./reference ../web/openapi.json ../docs/reference

# Generates what the TypeScript client has of the schema, and of the Go code's
# error reasons.
client: .protodeps
	cd web/client && npm ci --no-fund --no-audit
	$(BUF) generate --template web/client/buf.gen.yaml
	cd web/client && npm run generate

.protodeps: tools/go.mod tools/protodeps/main.go
	rm -rf .protodeps
	cd tools && go run ./protodeps ../.protodeps

lint: .protodeps
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' | grep -v '^gen/')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	go vet ./...
	go vet -tags crashpoint ./internal/crashpoint
	go tool -modfile=tools/go.mod staticcheck ./...
	$(BUF) lint
	$(BUF) format --diff --exit-code proto

# Structure, sizes, language, documents and compose.yaml are tests in checks/.
test:
	go test ./...

# Without the packages that take longest: those that start processes, hash
# passwords by the thousand, or make database clusters.
SLOW := ^gatehouse/(auth|bff|bench|e2e(/.*)?|internal/postgres|internal/schema)$$

test-fast:
	go vet ./...
	go test $$(go list ./... | grep -vE '$(SLOW)')

bench:
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix bench/fastify; else echo "there is no npm here: Fastify will be left out"; fi
	go run ./bench
	go test -run '^$$' -bench 'Token|Ed25519|100000' ./bff ./auth

build:
	go build -trimpath -o gatehouse .

# Brings what the pages show from npm into the tree.
web:
	npm --prefix web ci --no-audit --no-fund
	web/vendor.sh
