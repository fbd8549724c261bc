package pgtest_test
import ("testing"; "gatehouse/internal/pgtest")
func BenchmarkNew(b *testing.B) {
	pgtest.New(b)
	for b.Loop() { pgtest.New(b) }
}
func BenchmarkEmpty(b *testing.B) {
	pgtest.Empty(b)
	for b.Loop() { pgtest.Empty(b) }
}
