package app

import (
	"context"
	"errors"
	"fmt"
	"gatehouse/app/doctor"
	"io"
	"net/http"
	"strings"
	"time"
)

// healthcheckCommand asks a role whether it is ready.
type healthcheckCommand struct {
	Listen string `env:"GATEHOUSE_LISTEN" default:"127.0.0.1:8001" placeholder:"ADDRESS" help:"Ask the role that listens on this address."`
}

func (c *healthcheckCommand) Run(p *program) error {
	var invalid problems
	(&listenFlags{Listen: c.Listen}).parse(&invalid)
	if err := invalid.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+doctor.DialAddress(c.Listen)+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(text)))
	}
	fmt.Fprint(p.stdout, string(text))
	return nil
}
