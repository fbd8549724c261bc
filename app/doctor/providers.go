package doctor

import (
	"context"
	"fmt"
	"time"

	"gatehouse/internal/provider"
)

// providerLimit bounds the look at one provider.
const providerLimit = 6 * time.Second

// Providers asks the other providers for their metadata.
func (r *Report) Providers(configs []provider.Config) {
	for _, config := range configs {
		ctx, cancel := context.WithTimeout(context.Background(), providerLimit)
		err := provider.New(config).Check(ctx)
		cancel()
		subject := "provider " + config.ID
		if err != nil {
			r.Problem(subject, fmt.Sprintf("it cannot be used: %v", err), "compare its entry in GATEHOUSE_PROVIDERS with the provider's console, and let auth call it by https")
			continue
		}
		r.OK(subject, "%s, reached", config.Name)
	}
}
