package access

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	authv1 "gatehouse/gen/auth/v1"
)

const (
	alice   = "01920000-0000-7000-8000-00000000000a"
	bob     = "01920000-0000-7000-8000-00000000000b"
	session = "01920000-0000-7000-8000-0000000000f1"
)

func sessionRevoked(id string, seconds int32) *authv1.Revocation {
	return &authv1.Revocation{Of: &authv1.Revocation_SessionId{SessionId: id}, ExpiresIn: seconds}
}

func versionsRevoked(account string, version int64, seconds int32) *authv1.Revocation {
	return &authv1.Revocation{Of: &authv1.Revocation_LeastVersion{LeastVersion: &authv1.LeastVersion{AccountId: account, Version: version}}, ExpiresIn: seconds}
}

func news(revocations ...*authv1.Revocation) *authv1.WatchRevocationsResponse {
	return &authv1.WatchRevocationsResponse{Revocations: revocations}
}

func TestRevocationsOfExpiredTokensArePruned(t *testing.T) {
	t.Parallel()
	r := NewRevocations(nil, nil, nil, nil, slog.New(slog.DiscardHandler))
	now := time.Now()
	r.Now = func() time.Time { return now }
	r.Take(news(sessionRevoked(session, 60), versionsRevoked(alice, 2, 60), versionsRevoked(bob, 2, 120)))
	r.prune(now.Add(90 * time.Second))
	if len(r.sessions) != 0 || len(r.versions) != 1 {
		t.Errorf("left are the sessions %v and the versions %v, want Bob's alone", r.sessions, r.versions)
	}
}

func BenchmarkCheckAmong100000Revocations(b *testing.B) {
	r := NewRevocations(nil, nil, nil, nil, slog.New(slog.DiscardHandler))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	message := news()
	for i := range 100_000 {
		message.Revocations = append(message.Revocations, sessionRevoked(fmt.Sprintf("%s%06d", session[:30], i), 600))
	}
	r.Take(message)
	message = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	r.Now = func() time.Time { return r.heard }
	who := &Principal{UserID: alice, SessionID: session, Version: 1}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Check(b.Context(), who); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB/held")
}

func TestTheTokenCacheIsBounded(t *testing.T) {
	t.Parallel()
	v, err := NewVerifier("https://gatehouse.example", nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Stop()
	for i := range 3 * rememberedTokens {
		v.seen.Set(fmt.Sprint("token", i), &Principal{UserID: alice})
	}
	v.seen.CleanUp()
	if got := v.seen.EstimatedSize(); got > rememberedTokens || got == 0 {
		t.Errorf("after %d tokens: %d are remembered, want at most %d and some", 3*rememberedTokens, got, rememberedTokens)
	}
}
