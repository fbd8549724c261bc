# The loop: edit, then make gen lint test.

BUF := go tool -modfile=tools/go.mod buf

.PHONY: all gen client lint test bench build

all: gen lint test

# Generates gen/ from proto/, offline: what our protos import from others is
# printed from the Go modules that carry it.
gen: .protodeps
	$(BUF) format --write proto
	rm -rf gen
	$(BUF) generate

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
	go tool -modfile=tools/go.mod staticcheck ./...
	$(BUF) lint
	$(BUF) format --diff --exit-code proto

test:
	go test ./...

bench:
	go run ./bench
	go test -run '^$$' -bench 'Token|Ed25519|100000' ./bff ./auth

build:
	go build -trimpath -o gatehouse .
