package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// Every gateway follows the changes of a service at the same copy, so that one copy reads
// them from the database. When that copy freezes, the gateways follow another one.
func TestOneCopyOfAServiceReadsTheChangesForAllGateways(t *testing.T) {
	pair := harness.StartPair(t, harness.WithOps(), harness.WithSettings("GATEHOUSE_DRAIN=1s"))
	for _, service := range []string{harness.RoleAuth, harness.RoleUsers} {
		var reader int
		harness.Eventually(t, 30*time.Second, "one copy of "+service+" has both streams", func() error {
			streams := [2]string{watchers(t, pair[0], service), watchers(t, pair[1], service)}
			switch streams {
			case [2]string{"2", "0"}:
				reader = 0
			case [2]string{"0", "2"}:
				reader = 1
			default:
				return fmt.Errorf("the copies have %v streams", streams)
			}
			return nil
		})
		thaw := freeze(t, pair[reader].Processes[service])
		other := 1 - reader
		harness.Eventually(t, 30*time.Second, "the other copy of "+service+" has both streams", func() error {
			if streams := watchers(t, pair[other], service); streams != "2" {
				return fmt.Errorf("it has %s", streams)
			}
			return nil
		})
		thaw()
	}
}

// watchers returns the open change streams of a copy, as its metrics say.
func watchers(t *testing.T, s *harness.System, service string) string {
	t.Helper()
	_, text := harness.Get(t, s.Ops()[service]+"/metrics")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "gatehouse_change_watchers{") && strings.Contains(line, `service="`+service+`"`) {
			return strings.TrimSpace(line[strings.LastIndex(line, " "):])
		}
	}
	return "no"
}
