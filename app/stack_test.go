package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/auth"
	"gatehouse/internal/pgtest"
)

func TestAStackRunsInThisProcess(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	settings := map[string]string{
		"GATEHOUSE_REGISTRATION": "open",
		"GATEHOUSE_INTERNAL_KEY": strings.Repeat("01", keyLength), "GATEHOUSE_SECRET_KEY": strings.Repeat("02", keyLength),
	}
	for _, service := range database.Services() {
		settings[loginSetting(service)] = database.URL(service)
	}
	stack, err := NewStack(t.Context(), StackConfig{Schema: pgtest.SchemaSQL(t), Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { stop(); running.Wait(); stack.Close() })
	running.Go(func() { stack.Run(ctx) })
	if _, ok := stack.Service(roleAuth).(*auth.Service); !ok {
		t.Errorf("its auth is a %T", stack.Service(roleAuth))
	}
	for deadline := time.Now().Add(30 * time.Second); stack.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it is not ready: %v", stack.Ready())
		}
	}
	answer := httptest.NewRecorder()
	stack.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if answer.Code != http.StatusOK {
		t.Errorf("/readyz answered %d: %s", answer.Code, answer.Body)
	}
}

func TestAStackReportsEveryProblemInItsSettings(t *testing.T) {
	t.Parallel()
	_, err := NewStack(t.Context(), StackConfig{Services: []string{roleUsers}, Settings: map[string]string{"REDIS_URL": "redis://localhost", "GATEHOUSE_DRAIN": "soon"}})
	if err == nil || !strings.Contains(err.Error(), "REDIS_URL") || !strings.Contains(err.Error(), "drain") {
		t.Errorf("got %v, want problems of REDIS_URL and GATEHOUSE_DRAIN", err)
	}
}
