package limit

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// Ping asks the Redis or Valkey at the URL whether it is there and lets us in. It
// waits longer than a call would.
func Ping(ctx context.Context, url string) error {
	options, err := parseURL(url)
	if err != nil {
		return err
	}
	options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = patience, patience, patience
	quiet()
	client := redis.NewClient(options)
	defer client.Close()
	return client.Ping(ctx).Err()
}
