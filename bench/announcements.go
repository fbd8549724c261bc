package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	servicev1 "gatehouse/gen/service/v1"
)

// announcements are what a change costs that auth announces to gateways of which none has
// the account in its cache.
type announcements struct {
	// turns are those without and with changes, and with the gateway alone or with
	// moreGateways as well.
	turns  [2][2][]turn
	rounds int
	// tags were announced in each turn with changes; bytes are those of a message for each.
	tags, bytes float64
}

const (
	// moreGateways are streams that bench reads and discards.
	moreGateways = 16
	// announcedAtOnce are the tags of each of announcedBatches, one for each poll.
	announcedAtOnce  = 2500
	announcedBatches = 10
	announcePause    = 250 * time.Millisecond
	insertAnnounced  = `INSERT INTO auth.changes (tag) SELECT 'sessions/' || gen_random_uuid() FROM generate_series(1, $1)`
)

// measureAnnouncements starts an auth and a gateway of their own, on the database of the
// others.
func (r *results) measureAnnouncements(ctx context.Context, h *stack, o options, progress io.Writer) error {
	m := &r.announced
	m.tags = announcedAtOnce * announcedBatches
	auth, authAt, err := h.begin(ctx, "auth-announced", h.binary, "auth", append(h.peers, unthrottled)...)
	if err != nil {
		return err
	}
	defer auth.stop()
	gateway, _, err := h.begin(ctx, "bff-announced", h.binary, "bff", append(h.peers, "AUTH_URL=http://"+authAt)...)
	if err != nil {
		return err
	}
	defer gateway.stop()
	key, err := hex.DecodeString(h.setting("GATEHOUSE_INTERNAL_KEY"))
	if err != nil {
		return err
	}
	client, token := servicev1.NewChangeServiceClient(bareClient("http://"+authAt)), &internalToken{callee: "auth", master: key}
	conn, err := pgx.Connect(ctx, h.database.URL(databaseName))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	round := func(round int) error {
		for i := range 4 {
			changing, more := (i+round)%2, (i+round)/2%2
			taken, err := h.announce(ctx, conn, system{gateway: gateway, servers: []*process{auth, gateway}}, changing == 1, func() (func() error, error) {
				return m.watch(ctx, client, token, more*moreGateways)
			})
			if err != nil {
				return err
			}
			m.turns[changing][more] = append(m.turns[changing][more], taken)
		}
		return nil
	}
	m.rounds, err = o.repeat(progress, "announcements", round, noRatios, &m.turns[0][0], &m.turns[0][1], &m.turns[1][0], &m.turns[1][1])
	return err
}

// announce measures a turn, which is as long without changes. It ends two polls after the
// last changes.
func (h *stack) announce(ctx context.Context, conn *pgx.Conn, s system, changing bool, watch func() (func() error, error)) (turn, error) {
	stop, err := watch()
	if err != nil {
		return turn{}, err
	}
	before, begin, err := h.usage(s)
	if err != nil {
		return turn{}, err
	}
	for batch := range announcedBatches {
		if changing {
			if _, err := conn.Exec(ctx, insertAnnounced, announcedAtOnce); err != nil {
				return turn{}, err
			}
		}
		time.Sleep(time.Until(begin.Add(time.Duration(batch+1) * announcePause)))
	}
	time.Sleep(2 * announcePause)
	after, end, err := h.usage(s)
	if err != nil {
		return turn{}, err
	}
	if err := stop(); err != nil {
		return turn{}, err
	}
	auth := s.servers[0].pid()
	taken := turn{
		others: othersIn(before, after, end.Sub(begin).Seconds()), seconds: end.Sub(begin).Seconds(),
		gateway: after.of(s.gateway.pid()) - before.of(s.gateway.pid()), servers: after.of(auth) - before.of(auth), postgres: after.postgres - before.postgres,
	}
	h.noise = append(h.noise, taken.others)
	return taken, nil
}

// watch opens streams, and returns when each has had a message. stop ends them.
func (m *announcements) watch(ctx context.Context, client servicev1.ChangeServiceClient, token *internalToken, streams int) (stop func() error, err error) {
	watching, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	var stopping atomic.Bool
	stop = func() error {
		stopping.Store(true)
		cancel()
		return group.Wait()
	}
	for number := range streams {
		stream, err := client.WatchChanges(token.identify(watching), &servicev1.WatchChangesRequest{})
		if err == nil {
			_, err = stream.Receive()
		}
		if err != nil {
			cancel()
			return nil, fmt.Errorf("watch the changes: %w", err)
		}
		group.Go(func() error {
			defer stream.Close()
			for {
				message, err := stream.Receive()
				if err != nil && !stopping.Load() {
					return fmt.Errorf("watch the changes: %w", err)
				}
				if err != nil {
					return nil
				}
				if tags := len(message.GetTags()); tags > 0 && number == 0 {
					m.bytes = float64(proto.Size(message)) / float64(tags)
				}
			}
		})
	}
	return stop, nil
}

func (m *announcements) print(t *table) {
	if len(m.turns[1][1]) == 0 {
		return
	}
	authCPU := func(t turn) float64 { return float64(t.servers.Nanoseconds()) / 1000 / m.tags }
	gatewayCPU := func(t turn) float64 { return float64(t.gateway.Nanoseconds()) / 1000 / m.tags }
	// Less the same turn without changes.
	net := func(more int, cpu func(turn) float64) []float64 {
		return less(mapped(m.turns[1][more], cpu), mapped(m.turns[0][more], cpu))
	}
	one, all := net(0, authCPU), net(1, authCPU)
	t.row(fmt.Sprintf("Announced changes, %d a poll, of nothing in the cache", announcedAtOnce))
	t.row("  CPU µs for each: auth, with one gateway", spread("%.2f", one))
	t.row("    auth, for each further gateway", spread("%.2f", scaled(less(all, one), 1./moreGateways)))
	t.row("    a gateway", spread("%.2f", net(0, gatewayCPU)))
	t.row("  bytes of a message for each", fmt.Sprintf("%.0f", m.bytes))
	t.rounds("announcements", m.rounds, len(one))
}

// less subtracts the rounds pairwise.
func less(a, b []float64) []float64 {
	var differences []float64
	for i := range min(len(a), len(b)) {
		differences = append(differences, a[i]-b[i])
	}
	return differences
}
