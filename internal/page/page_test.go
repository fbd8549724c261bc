package page_test

import (
	"fmt"
	"strings"
	"testing"

	"gatehouse/internal/page"
)

func TestATokenIsOfItsQuery(t *testing.T) {
	t.Parallel()
	query := func(filter string) page.Query {
		return func(position []byte) []byte { return fmt.Appendf(nil, "%q %x", filter, position) }
	}
	token := query("a").Token([]byte("position"))
	if position, ok := query("a").Parse(token); !ok || string(position) != "position" {
		t.Errorf("got %q, %v; want the position", position, ok)
	}
	if _, ok := query("b").Parse(token); ok {
		t.Error("a token of another query is accepted")
	}
	for _, damaged := range []string{"", "x", token + "A", token[1:], strings.ToUpper(token), token + "=", token[:16]} {
		if _, ok := query("a").Parse(damaged); ok {
			t.Errorf("%q is accepted", damaged)
		}
	}
}
