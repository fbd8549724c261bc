package rpc_test

import (
	"gatehouse/internal/rpctest"
	"testing"
)

func TestMain(m *testing.M) { rpctest.Main(m) }
