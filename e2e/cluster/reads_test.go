//go:build cluster

package cluster

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"gatehouse/e2e/harness"
)

// What answered a read that the standby may answer, as the metric says.
const (
	byStandby     = "standby"
	primaryBehind = "primary_behind"
	primaryFailed = "primary_failed"
)

// readers are the services that have a standby.
var readers = []string{harness.RoleAuth, harness.RoleUsers}

// reads are the reads that the standby may answer: how many each copy of a service counts
// since its start, by what answered them.
type reads map[copyOf]map[string]int

// copyOf is one copy of a service.
type copyOf struct {
	service string
	n       int
}

var readsSample = regexp.MustCompile(`(?m)^gatehouse_database_standby_reads_total\{.*answered_by="(\w+)".*\} (\S+)$`)

// readsNow returns what the copies count. All of them must run.
func (c *cluster) readsNow(t *testing.T) reads {
	t.Helper()
	now := reads{}
	for n, one := range c.roles {
		for _, service := range readers {
			counts := map[string]int{}
			harness.Eventually(t, 10*time.Second, "the metrics of "+service, func() error {
				text, err := fetch(one.Ops()[service] + "/metrics")
				samples := readsSample.FindAllStringSubmatch(text, -1)
				if err == nil && len(samples) == 0 {
					err = fmt.Errorf("no reads among them: %.300s", text)
				}
				for _, sample := range samples {
					value, err := strconv.ParseFloat(sample[2], 64)
					if err != nil {
						return err
					}
					counts[sample[1]] = int(value)
				}
				return err
			})
			now[copyOf{service, n}] = counts
		}
	}
	return now
}

func fetch(url string) (string, error) {
	client := http.Client{Timeout: 2 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// since returns what a service has counted since, by what answered: at least that much, if a
// copy was started again.
func (now reads) since(before reads, service string) map[string]int {
	counted := map[string]int{}
	for which, counts := range now {
		if which.service != service {
			continue
		}
		for by, n := range counts {
			if was := before[which][by]; was <= n {
				n -= was
			}
			counted[by] += n
		}
	}
	return counted
}

// untilStandbyReads waits until the standby answers reads of each service: of those that it
// may answer at least a third.
func (c *cluster) untilStandbyReads(t *testing.T) {
	t.Helper()
	before := c.readsNow(t)
	harness.Eventually(t, 30*time.Second, "the standby answers reads", func() error {
		time.Sleep(300 * time.Millisecond) // a pace, not a wait
		now := c.readsNow(t)
		for _, service := range readers {
			counted, all := now.since(before, service), 0
			for _, n := range counted {
				all += n
			}
			if n := counted[byStandby]; n < 20 || n*3 < all {
				return fmt.Errorf("the reads of %s are answered by %v", service, counted)
			}
		}
		return nil
	})
}
