module examples.example/check

go 1.26.0

require (
	connectrpc.com/connect/v2 v2.0.2
	github.com/golang-jwt/jwt/v5 v5.3.1
	google.golang.org/protobuf v1.36.12
)
