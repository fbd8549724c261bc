package limit

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// Ping checks that the Redis or Valkey at the URL is reachable and accepts the credentials.
// Its timeout is longer than that of a call.
func Ping(ctx context.Context, url string) error {
	options, err := parseURL(url)
	if err != nil {
		return err
	}
	options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = reconnectTimeout, reconnectTimeout, reconnectTimeout
	disableClientLog()
	client := redis.NewClient(options)
	defer client.Close()
	return client.Ping(ctx).Err()
}
