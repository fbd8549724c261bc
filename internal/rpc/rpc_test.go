package rpc_test

import (
	"testing"

	"gatehouse/internal/rpctest"
)

func TestMain(m *testing.M) { rpctest.Main(m) }
