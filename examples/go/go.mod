module stock.example

go 1.26.0

require (
	connectrpc.com/connect/v2 v2.0.2
	gatehouse.example/client v0.0.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e
	google.golang.org/protobuf v1.36.12
)

require github.com/golang-jwt/jwt/v5 v5.3.1 // indirect

replace gatehouse.example/client => ../../clients/go
