package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"google.golang.org/protobuf/proto"

	bffv1 "gatehouse/gen/bff/v1"
)

// signIns are the costs of signing in, and the effect of a flood of logins on others.
type signIns struct {
	raw       []float64 // Argon2id hashes per CPU-second, in bench itself
	logins    []float64 // per CPU-second of the server
	loginRate []float64 // per second, through as many slots as the server has
	refreshes []float64 // per CPU-second of the server

	calm, flooded []me    // GetMe in each round, without and with the flood
	offered       float64 // logins per second of the flood
	peak          float64 // MiB resident after the floods
}

// me has the durations of GetMe in a round, in milliseconds.
type me struct{ p50, p99 float64 }

const (
	password = "correct horse battery"
	// meRate is far below the machine's capacity, so that only the flood can disturb
	// it.
	meRate      = 100
	floodFactor = 10
	// floodConns bounds the flood's calls in flight.
	floodConns = 256
)

// measureSignIns measures one process, in which hashing could disturb other calls. Its
// throttling is off, so that it does as much as it can.
func (r *results) measureSignIns(ctx context.Context, h *stack, o options, progress io.Writer) error {
	process, address, err := h.begin(ctx, "unthrottled", h.binary, "serve", unthrottled, noCache)
	if err != nil {
		return err
	}
	defer process.stop()
	server := system{address: address, gateway: process}
	people := h.people
	hashing := o
	hashing.until = time.Now().Add(time.Until(o.until) / 2)
	if _, err := hashing.repeat(progress, "signing in", func(int) error {
		raw, err := rawHashes(o.length / 2)
		if err != nil {
			return err
		}
		r.signIns.raw = append(r.signIns.raw, raw)
		logins, perSecond, err := h.closedLoop(ctx, server, 2*hashSlots(), o.length, func(ctx context.Context, client *http.Client, worker int) error {
			return call(ctx, client, server.address, bffv1.AuthServiceLoginProcedure, "", login(worker%len(people)), nil)
		})
		if err != nil {
			return fmt.Errorf("login: %w: %s", err, server.gateway.logTail())
		}
		r.signIns.logins, r.signIns.loginRate = append(r.signIns.logins, logins), append(r.signIns.loginRate, perSecond)
		refreshes, _, err := h.closedLoop(ctx, server, min(8, len(people)), o.length, func(ctx context.Context, client *http.Client, worker int) error {
			var answer bffv1.RefreshResponse
			err := callFrom(ctx, people[worker].address, client, server.address, bffv1.AuthServiceRefreshProcedure, "", &bffv1.RefreshRequest{RefreshToken: people[worker].refreshToken}, &answer)
			if err == nil {
				people[worker].refreshToken, people[worker].accessToken = answer.GetTokens().GetRefreshToken(), answer.GetTokens().GetAccessToken()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("refresh: %w: %s", err, server.gateway.logTail())
		}
		r.signIns.refreshes = append(r.signIns.refreshes, refreshes)
		return nil
	}, noRatios); err != nil {
		return err
	}
	r.signIns.offered = floodFactor * slices.Max(r.signIns.loginRate)
	if _, err := o.repeat(progress, "a flood of logins", func(round int) error {
		// The two alternate.
		for turn := range 2 {
			flood := (round+turn)%2 == 1
			took, err := h.disturbed(ctx, server, people, o.length, flood, r.signIns.offered)
			if err != nil {
				return fmt.Errorf("GetMe during logins: %w: %s", err, server.gateway.logTail())
			}
			if flood {
				r.signIns.flooded = append(r.signIns.flooded, took)
			} else {
				r.signIns.calm = append(r.signIns.calm, took)
			}
		}
		return nil
	}, noRatios); err != nil {
		return err
	}
	held, err := memoryOf(server.gateway.pid())
	r.signIns.peak = held.resident
	return err
}

// hashSlots is how many password hashes the server computes at a time.
func hashSlots() int { return max(1, runtime.NumCPU()-1) }

// rawHashes returns how many of auth's hashes this machine computes in a CPU-second,
// without a call around them.
func rawHashes(length time.Duration) (float64, error) {
	salt := make([]byte, 16)
	before, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	count := 0
	for begin := time.Now(); time.Since(begin) < length; count++ {
		argon2.IDKey([]byte(password), salt, 2, 19*1024, 1, 32)
	}
	after, err := cpuTime(os.Getpid())
	return float64(count) / (after - before).Seconds(), err
}

// closedLoop runs workers that call again as soon as they have the answer. It
// returns calls per CPU-second of the server and per second.
func (h *stack) closedLoop(ctx context.Context, s system, workers int, length time.Duration,
	work func(context.Context, *http.Client, int) error,
) (perCPU, perSecond float64, err error) {
	client := newHTTPClient(workers)
	defer client.CloseIdleConnections()
	var done atomic.Int64
	errs := make([]error, workers)
	before, err := cpuTime(s.gateway.pid())
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for time.Since(begin) < length && errs[worker] == nil {
				switch err := work(ctx, client, worker); {
				case errors.Is(err, errRefused): // it cost little, and is not counted
				case err != nil:
					errs[worker] = err
				default:
					done.Add(1)
				}
			}
		})
	}
	group.Wait()
	seconds := time.Since(begin).Seconds()
	after, err := cpuTime(s.gateway.pid())
	count := float64(done.Load())
	return count / (after - before).Seconds(), count / seconds, errors.Join(append(errs, err)...)
}

// disturbed measures GetMe at a steady rate, from when each was due, with or
// without a flood of logins.
func (h *stack) disturbed(ctx context.Context, s system, people []*person, length time.Duration, flood bool, offered float64) (me, error) {
	if err := h.refresh(ctx); err != nil {
		return me{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var floods sync.WaitGroup
	if flood {
		floods.Go(func() { flooding(ctx, s.address, offered, len(people)) })
	}
	client := newHTTPClient(64)
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var took []float64
	var failure error
	var calls sync.WaitGroup
	begin, settle := time.Now(), length/4
	for i := 0; ; i++ {
		due := begin.Add(time.Duration(i) * time.Second / meRate)
		if due.Sub(begin) > length+settle {
			break
		}
		time.Sleep(time.Until(due))
		p := people[i%len(people)]
		calls.Go(func() {
			err := call(ctx, client, s.address, bffv1.AccountServiceGetMeProcedure, p.accessToken, &bffv1.GetMeRequest{}, nil)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failure = err
			} else if due.Sub(begin) >= settle {
				took = append(took, milliseconds(time.Since(due)))
			}
		})
	}
	calls.Wait()
	cancel()
	floods.Wait()
	if failure != nil || len(took) == 0 {
		return me{}, errors.Join(failure, errors.New("GetMe failed during logins"))
	}
	slices.Sort(took)
	return me{p50: took[(len(took)-1)*50/100], p99: took[(len(took)-1)*99/100]}, nil
}

// flooding offers logins at a rate until ctx ends, whatever their results.
func flooding(ctx context.Context, address string, perSecond float64, people int) {
	client := newHTTPClient(floodConns)
	defer client.CloseIdleConnections()
	room := make(chan struct{}, floodConns)
	var calls sync.WaitGroup
	ticker := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			select {
			case room <- struct{}{}:
				calls.Go(func() {
					defer func() { <-room }()
					_ = call(ctx, client, address, bffv1.AuthServiceLoginProcedure, "", login(rand.IntN(people)), nil)
				})
			default: // that many are already waiting
			}
		}
	}
	calls.Wait()
}

func login(person int) *bffv1.LoginRequest {
	return &bffv1.LoginRequest{Email: email(person), Password: password}
}

func email(person int) string { return fmt.Sprintf("person%d@example.com", person) }

// someAddress returns one of the many client addresses of the load.
func someAddress() string { return fmt.Sprintf("198.18.%d.%d", rand.IntN(256), rand.IntN(256)) }

func newHTTPClient(conns int) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, MaxIdleConnsPerHost: conns, DisableCompression: true,
	}}
}

// errRefused is the error of a call that was shed.
var errRefused = errors.New("refused")

// userAgent is the same in every request: a refresh announces a changed one.
const userAgent = "gatehouse-bench"

// call makes one call over Connect with the proto codec. Each call has a client address
// of its own, because one address for all would exceed its rate limit.
func call(ctx context.Context, client *http.Client, address, procedure, token string, message proto.Message, answer proto.Message) error {
	return callFrom(ctx, someAddress(), client, address, procedure, token, message, answer)
}

// callFrom makes one call over Connect with the proto codec, as if from an IP address.
func callFrom(ctx context.Context, from string, client *http.Client, address, procedure, token string, message proto.Message, answer proto.Message) error {
	body, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+procedure, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/proto")
	request.Header.Set("Connect-Protocol-Version", "1")
	request.Header.Set("X-Forwarded-For", from)
	request.Header.Set("User-Agent", userAgent)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode == http.StatusTooManyRequests {
		return errRefused
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %s", procedure, response.Status, text)
	}
	if answer == nil {
		return nil
	}
	return proto.Unmarshal(text, answer)
}
