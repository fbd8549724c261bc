// Package status summarizes a running process from its operators' listener: readiness
// with the reason of each part, and the most important values of its metrics.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Status is the status of several processes. Its JSON names, and the names of lines, do
// not change: scripts read them.
type Status struct {
	// Ready says that every process was reached and is ready.
	Ready     bool      `json:"ready"`
	Processes []Process `json:"processes"`
}

// Process is the status of one process.
type Process struct {
	Address string `json:"address"`
	Ready   bool   `json:"ready"`
	// Error says why the process could not be read; empty if it was.
	Error   string `json:"error,omitempty"`
	Role    string `json:"role,omitempty"`
	Version string `json:"version,omitempty"`
	Parts   []Part `json:"parts"`
	Lines   []Line `json:"lines"`
}

// Part is one readiness check.
type Part struct {
	Part  string `json:"part"`
	Ready bool   `json:"ready"`
	// Needed says that the process is unready without the part.
	Needed bool   `json:"needed"`
	Reason string `json:"reason,omitempty"`
}

// Line is one value. Of names what it belongs to, if there are several.
type Line struct {
	Name  string  `json:"name"`
	Of    string  `json:"of,omitempty"`
	Value float64 `json:"value"`
}

// maxBody bounds what is read from a listener.
const maxBody = 16 << 20

// Read reads the status of the processes whose operators' listeners have the addresses.
func Read(ctx context.Context, addresses []string) Status {
	all := Status{Ready: true, Processes: make([]Process, len(addresses))}
	for i, address := range addresses {
		one := &all.Processes[i]
		*one = Process{Address: address, Parts: []Part{}, Lines: []Line{}}
		if err := one.read(ctx); err != nil {
			one.Ready, one.Error = false, err.Error()
		}
		all.Ready = all.Ready && one.Ready
	}
	return all
}

func (p *Process) read(ctx context.Context) error {
	err := get(ctx, p.Address, "/readyz", func(body io.Reader) error { return json.NewDecoder(body).Decode(p) })
	if err != nil {
		return fmt.Errorf("read readiness: %w", err)
	}
	err = get(ctx, p.Address, "/metrics", func(body io.Reader) error {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(body)
		if err == nil {
			p.Lines = append(p.Lines, lines(families, time.Now())...)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	return nil
}

// get requests a path and lets read read the body. A process that is not ready answers
// 503 with the same body.
func get(ctx context.Context, address, path string, read func(io.Reader) error) error {
	target := url.URL{Scheme: "http", Host: address, Path: path}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK && (path != "/readyz" || response.StatusCode != http.StatusServiceUnavailable) {
		return fmt.Errorf("%s: %s: name the address of GATEHOUSE_OPS_LISTEN", path, response.Status)
	}
	return read(io.LimitReader(response.Body, maxBody))
}

// WriteJSON writes the status as JSON.
func (s Status) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

// WriteText writes the status for people.
func (s Status) WriteText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, process := range s.Processes {
		if i > 0 {
			fmt.Fprintln(table)
		}
		if process.Error != "" {
			fmt.Fprintf(table, "%s\terror: %s\n", process.Address, process.Error)
			continue
		}
		fmt.Fprintf(table, "%s\t%s %s\t%s\n", process.Address, process.Role, process.Version, readiness(process.Ready, ""))
		for _, part := range process.Parts {
			fmt.Fprintf(table, "part\t%s\t%s\n", part.Part, readiness(part.Ready, part.Reason))
		}
		for _, line := range process.Lines {
			fmt.Fprintf(table, "%s\t%s\t%s\n", line.Name, line.Of, strconv.FormatFloat(line.Value, 'f', -1, 64))
		}
	}
	return table.Flush()
}

func readiness(ready bool, reason string) string {
	switch {
	case ready:
		return "ready"
	case reason == "":
		return "not ready"
	}
	return "not ready: " + reason
}

// value returns the value of a counter or a gauge, or the number of observations of a
// histogram.
func value(metric *dto.Metric) float64 {
	switch {
	case metric.GetHistogram() != nil:
		return float64(metric.GetHistogram().GetSampleCount())
	case metric.GetCounter() != nil:
		return metric.GetCounter().GetValue()
	}
	return metric.GetGauge().GetValue()
}
