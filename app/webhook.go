package app

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/alecthomas/kong"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/durationpb"

	"gatehouse/auth/webhooks"
	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// webhookCommands are for developers of endpoints.
type webhookCommands struct {
	Listen webhookListenCommand `cmd:"" help:"Print events as they happen, by a stream: no endpoint and no tunnel is needed."`
}

type webhookListenCommand struct {
	Email   string   `arg:"" placeholder:"EMAIL" help:"Sign in as this administrator. The password and the code of the authenticator app, or a recovery code, are read from the terminal, or as two lines of the standard input."`
	URL     string   `name:"url" default:"http://localhost:8001" placeholder:"URL" help:"Call the gateway at this URL."`
	Types   []string `placeholder:"TYPE,…" help:"Print events of these types only; all if empty."`
	Forward string   `placeholder:"URL" help:"Send each event to this URL as well, such as http://localhost:3000/hooks, signed with a secret that is printed first."`
}

func (c *webhookListenCommand) Run(p *program, app *kong.Application) error {
	var invalid problems
	checkNames(&invalid, app, os.Environ())
	if err := invalid.err(); err != nil {
		return err
	}
	l := &listener{command: c, out: p.stdout, lines: bufio.NewReader(os.Stdin), secret: webhooks.NewSecret()}
	client := connect.NewClient(connecthttp.NewTransport(http.DefaultClient, strings.TrimSuffix(c.URL, "/")), l.authorize)
	l.auth, l.webhooks = bffv1.NewAuthServiceClient(client), bffv1.NewWebhookServiceClient(client)
	defer l.signOut(p.ctx)
	if err := l.signIn(p.ctx); err != nil {
		return fmt.Errorf("sign in: %w", err)
	}
	if c.Forward != "" {
		fmt.Fprintf(p.stdout, "Events are sent to %s, signed with %s\n", c.Forward, l.secret.Text())
	}
	return l.listen(p.ctx)
}

// listener prints events.
type listener struct {
	command  *webhookListenCommand
	out      io.Writer
	lines    *bufio.Reader
	secret   webhooks.Secret
	auth     bffv1.AuthServiceClient
	webhooks bffv1.WebhookServiceClient
	tokens   *bffv1.Tokens
	// refreshKey is the Idempotency-Key of every attempt to exchange the refresh token, so
	// that a repetition after a lost response gets the same tokens. Empty before the first one.
	refreshKey string
}

func (l *listener) authorize(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if token := l.tokens.GetAccessToken(); token != "" {
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+token)
		}
		return next(ctx, spec)
	}
}

func (l *listener) signIn(ctx context.Context) error {
	password, err := l.ask("Password: ")
	if err != nil {
		return err
	}
	response, err := l.auth.Login(ctx, &bffv1.LoginRequest{Email: l.command.Email, Password: password})
	if err != nil {
		return err
	}
	challenge := response.GetChallenge()
	if challenge == nil {
		l.tokens = response.GetSignedIn().GetTokens()
		return errors.New("webhooks need a session of level 2: add an authenticator app to the account, then repeat this")
	}
	request := &bffv1.CompleteLoginRequest{ChallengeToken: challenge.GetToken()}
	if err := l.prove(request, challenge.GetMethods()); err != nil {
		return err
	}
	completed, err := l.auth.CompleteLogin(ctx, request)
	if err != nil {
		return err
	}
	if l.tokens = completed.GetSignedIn().GetTokens(); l.tokens == nil {
		return errors.New("the account owes another proof: sign in on the pages first")
	}
	return nil
}

// prove asks for a proof that a terminal can take, and adds it to a request.
func (l *listener) prove(request *bffv1.CompleteLoginRequest, methods []string) error {
	switch {
	case slices.Contains(methods, "totp"):
		code, err := l.ask("Code of the authenticator app: ")
		request.Proof = &bffv1.CompleteLoginRequest_TotpCode{TotpCode: code}
		return err
	case slices.Contains(methods, "recovery_code"):
		code, err := l.ask("Recovery code, because a terminal cannot use a passkey: ")
		request.Proof = &bffv1.CompleteLoginRequest_RecoveryCode{RecoveryCode: code}
		return err
	}
	return errors.New("the account has no second factor that a terminal can use: add an authenticator app to it, then repeat this")
}

// ask reads a line, unseen on a terminal.
func (l *listener) ask(prompt string) (string, error) {
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) { //nolint:gosec // a file descriptor is small
		fmt.Fprint(os.Stderr, prompt)
		text, err := term.ReadPassword(fd)
		fmt.Fprintln(os.Stderr)
		return strings.TrimSpace(string(text)), err
	}
	line, err := l.lines.ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" && err != nil {
		return "", fmt.Errorf("read the standard input: %w", err)
	}
	return line, nil
}

// signOut ends the session of this command.
func (l *listener) signOut(ctx context.Context) {
	if l.tokens == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = l.auth.Logout(ctx, &bffv1.LogoutRequest{RefreshToken: l.tokens.GetRefreshToken()}) // it expires by itself
}

// listen prints events until ctx ends. A stream ends with its access token, or with its
// gateway; the next one continues without a gap if it begins within a minute.
func (l *listener) listen(ctx context.Context) error {
	id := ""
	var refreshes pace
	for {
		ended, err := l.stream(ctx, &id)
		if err == nil && isStale(ended.GetReason()) {
			if !refreshes.wait(ctx) {
				return nil
			}
			if err = l.refresh(ctx); err == nil {
				continue
			}
			ended, err = l.endOf(ctx, err, id)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("listen to events: %w", err)
		}
		switch reason := ended.GetReason(); reason {
		case "SESSION_ENDED":
			return fmt.Errorf("the stream has ended: %s", reason)
		case "STREAM_TOO_SLOW":
			fmt.Fprintln(l.out, "The stream has ended because events were not read in time. It is opened again.")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(ended.GetRetryDelay().AsDuration(), time.Second)):
		}
	}
}

const (
	longestPause = 30 * time.Second
	// calm is after how long without a repetition the next one is made at once again.
	calm = time.Minute
)

// pace delays what is repeated soon after itself, each time twice as long: a gateway that
// refuses every new token must not be asked without a pause.
type pace struct {
	next time.Duration
	last time.Time
}

// wait returns when the next repetition is due, and reports whether ctx lasts.
func (p *pace) wait(ctx context.Context) bool {
	if time.Since(p.last) > calm {
		p.next = 0
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(p.next):
	}
	p.last, p.next = time.Now(), min(max(2*p.next, time.Second), longestPause)
	return true
}

// isStale reports whether a stream has ended, or is about to, because of its access token.
func isStale(reason string) bool {
	return reason == "" || reason == "TOKEN_EXPIRED" || reason == "TOKEN_STALE"
}

// endOf returns the end of a stream that an error means, if another stream may follow: the
// gateway is unavailable or wants another token, or its connection broke or was read too
// slowly after the first stream began.
func (l *listener) endOf(ctx context.Context, err error, id string) (*bffv1.Ended, error) {
	reason := fault.Reason(err)
	delay, _ := fault.RetryDelay(err)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case reason == "" && id != "":
		fmt.Fprintln(l.out, "The connection to the gateway is lost. It is opened again.")
		return &bffv1.Ended{Reason: "SERVICE_UNAVAILABLE"}, nil
	case reason == "":
		return nil, err
	case connect.CodeOf(err) == connect.CodeUnavailable:
		return &bffv1.Ended{Reason: "SERVICE_UNAVAILABLE", RetryDelay: durationpb.New(delay)}, nil
	case connect.CodeOf(err) == connect.CodeResourceExhausted && reason != "TOO_MANY_WEBHOOKS" && id != "": // too slow, or the stream before still counts
		return &bffv1.Ended{Reason: reason, RetryDelay: durationpb.New(delay)}, nil
	case isStale(reason):
		return &bffv1.Ended{Reason: reason}, nil
	}
	return nil, err
}

const (
	// longestSilence is how long a stream may send nothing until its connection counts as
	// lost. The gateway sends a message every 15 s.
	longestSilence = 30 * time.Second
	refreshTimeout = 15 * time.Second
)

var errSilent = fmt.Errorf("the gateway has sent nothing for %s: check that nothing between here and the gateway holds its messages back", longestSilence)

// stream prints the events of one stream. It returns its end, which is empty when the access
// token is about to expire.
func (l *listener) stream(ctx context.Context, id *string) (*bffv1.Ended, error) {
	parent := ctx
	ctx, lose := context.WithCancelCause(parent)
	defer lose(nil)
	silence := time.AfterFunc(longestSilence, func() { lose(errSilent) })
	defer silence.Stop()
	failure := func(err error) (*bffv1.Ended, error) {
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		return l.endOf(parent, err, *id)
	}
	stream, err := l.webhooks.ListenEvents(ctx, &bffv1.ListenEventsRequest{Types: l.command.Types, ListenerId: *id})
	if err != nil {
		return failure(err)
	}
	defer func() { _ = stream.Close() }()
	for {
		silence.Reset(longestSilence)
		message, err := stream.Receive()
		silence.Stop() // printing and forwarding may take their time
		if err != nil {
			return failure(err)
		}
		switch *id {
		case "":
			fmt.Fprintln(l.out, "Listening.")
		case message.GetListenerId():
		default:
			fmt.Fprintln(l.out, "Events may be missing: there was no stream for more than a minute.")
		}
		*id = message.GetListenerId()
		switch {
		case message.GetEvent() != nil:
			fmt.Fprintln(l.out, message.GetEvent().GetBody())
			l.forward(ctx, message.GetEvent())
		case message.GetRefreshDue() != nil:
			return &bffv1.Ended{}, nil
		case message.GetEnded() != nil:
			return message.GetEnded(), nil
		}
	}
}

// refresh exchanges the refresh token. After an error the next attempt has the same key.
func (l *listener) refresh(ctx context.Context) error {
	if l.refreshKey == "" {
		l.refreshKey = rand.Text()
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set("Idempotency-Key", l.refreshKey)
	response, err := l.auth.Refresh(ctx, &bffv1.RefreshRequest{RefreshToken: l.tokens.GetRefreshToken()})
	if err != nil {
		return err
	}
	l.tokens, l.refreshKey = response.GetTokens(), ""
	return nil
}

// forward sends an event to the URL of the command line, and prints the answer's status.
func (l *listener) forward(ctx context.Context, event *bffv1.Event) {
	if l.command.Forward == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := webhooks.NewRequest(ctx, l.command.Forward, event.GetEventId(), []byte(event.GetBody()), []string{"v1", "v1a"}, []webhooks.Secret{l.secret})
	if err != nil {
		fmt.Fprintf(l.out, "  not sent: %v\n", err)
		return
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Fprintf(l.out, "  not sent: %v\n", err)
		return
	}
	_ = response.Body.Close()
	fmt.Fprintf(l.out, "  status %d\n", response.StatusCode)
}
