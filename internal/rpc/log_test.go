package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/fault"
	"gatehouse/internal/rpc"
	"gatehouse/internal/rpctest"
)

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// lines returns the log's lines and empties it.
func (b *lockedBuffer) lines(t testing.TB) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []map[string]any
	for decoder := json.NewDecoder(&b.buffer); decoder.More(); {
		line := map[string]any{}
		if err := decoder.Decode(&line); err != nil {
			t.Fatalf("the log isn't JSON: %v", err)
		}
		lines = append(lines, line)
	}
	return lines
}

// statusOf is the HTTP status of a code over gRPC or Connect, as the log has it.
var statusOf = map[string]int{"ok": 200, "not_found": 404, "internal": 500, "unavailable": 503, "permission_denied": 403, "unauthenticated": 401}

func TestEveryCallIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			log := &lockedBuffer{}
			logger := slog.New(slog.NewJSONHandler(log, nil))
			var fail error
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: logger}, func(server *connect.Server) {
				usersv1.RegisterRelayServiceHandler(server, usersv1.UnimplementedRelayServiceHandler{}) // auth's
				rpctest.RegisterProfiles(func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
					if fail == errPanics {
						panic("on purpose")
					}
					if fail != nil {
						return nil, fail
					}
					return rpctest.Found(ctx, req)
				})(server)
			})
			client := topology.Reach(t, rpctest.BFFToUsers, server)
			auth := topology.Reach(t, dial.Route{Caller: "auth", Callee: "users", Keys: rpctest.Keys}, server)
			stranger := topology.Reach(t, dial.Route{Caller: "bff", Callee: "users", Keys: rpc.InternalKeys{bytes.Repeat([]byte{8}, 32)}}, server)
			for _, test := range []struct {
				name                           string
				client                         *connect.Client
				fail                           error
				level, code, reason, principal string
				cause                          string // what it contains; "" for none
			}{
				{"a success", client, nil, "INFO", "ok", "", "service:bff", ""},
				{"a caller's mistake", client, fault.New(connect.CodeNotFound, "PROFILE_NOT_FOUND", "No.").WithCause(errors.New("of theirs")), "INFO", "not_found", "PROFILE_NOT_FOUND", "service:bff", ""},
				{"a mistake of ours", client, errors.New("of ours"), "ERROR", "internal", fault.ReasonInternal, "service:bff", "of ours"},
				{"no store", client, unreachableStore(t), "WARN", "unavailable", fault.ReasonUnavailable, "service:bff", "connect"},
				{"a panic", client, errPanics, "ERROR", "internal", fault.ReasonInternal, "service:bff", "log_test.go"},
				{"a caller who may not", auth, nil, "INFO", "permission_denied", fault.ReasonPermissionDenied, "service:auth", ""},
				{"a caller whom nobody knows", stranger, nil, "WARN", "unauthenticated", fault.ReasonInternalToken, "", "signature"},
			} {
				if test.client == stranger && topology.Name == "in process" {
					continue // there are none: the wiring states the caller, without a key
				}
				fail = test.fail
				_, _ = rpctest.Get(t.Context(), test.client)
				lines := log.lines(t)
				if len(lines) != 1 {
					t.Errorf("%s: got %d lines, want one: %v", test.name, len(lines), lines)
					continue
				}
				line := lines[0]
				for key, want := range map[string]string{"msg": "call", "method": usersv1.ProfileServiceGetProfileProcedure, "level": test.level, "code": test.code, "principal": test.principal} {
					if line[key] != want {
						t.Errorf("%s: got %s %v, want %q", test.name, key, line[key], want)
					}
				}
				if reason, _ := line["reason"].(string); reason != test.reason {
					t.Errorf("%s: got the reason %q, want %q", test.name, reason, test.reason)
				}
				if cause, _ := line["cause"].(string); (cause == "") != (test.cause == "") || !strings.Contains(cause, test.cause) {
					t.Errorf("%s: got the cause %q, want one with %q", test.name, cause, test.cause)
				}
				if id, _ := line["request_id"].(string); uuid.Validate(id) != nil {
					t.Errorf("%s: got the request id %q, want a UUID", test.name, id)
				}
				status, address := any(nil), any(nil)
				if topology.Name == "http" {
					status, address = float64(statusOf[test.code]), "127.0.0.1"
				}
				if line["status"] != status || line["client_ip"] != address {
					t.Errorf("%s: got the status %v and the client %v, want %v and %v", test.name, line["status"], line["client_ip"], status, address)
				}
				if took, _ := line["duration_ms"].(float64); took <= 0 || took > 60_000 || line["duration"] != nil {
					t.Errorf("%s: got the duration %v ms (%v), want milliseconds", test.name, line["duration_ms"], line["duration"])
				}
			}
		})
	}
}

var errPanics = errors.New("panics")

func TestTheLogHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	const password, header, answer = "pa55word-of-ada", "header-of-ada", "answer-to-ada"
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			log := &lockedBuffer{}
			logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
			var fail error
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: logger, Level: slog.LevelDebug}, rpctest.RegisterProfiles(func(ctx context.Context, req *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
				return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{FirstName: answer}}, fail
			}))
			client := usersv1.NewProfileServiceClient(topology.Reach(t, rpctest.BFFToUsers, server))
			update := &usersv1.UpdateProfileRequest{Profile: &usersv1.Profile{Id: password, FirstName: strings.Repeat(password, 20)}}
			for _, fail = range []error{nil, fault.New(connect.CodeInvalidArgument, "PASSWORD_WRONG", "Wrong.").WithCause(errors.New(password)), errors.New("load the profile")} {
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("X-Secret", header)
				info.RequestHeader().Set("Cookie", header)
				_, _ = client.GetProfile(ctx, rpctest.GetRequest())
				_, _ = client.GetProfile(ctx, &usersv1.GetProfileRequest{ProfileId: password})
				if _, err := client.UpdateProfile(ctx, update); err == nil {
					t.Fatalf("update %v: got no error, want the validator to refuse it", update)
				}
			}
			text := log.String()
			if !strings.Contains(text, "PASSWORD_WRONG") || !strings.Contains(text, "load the profile") {
				t.Errorf("the log isn't there: %s", text)
			}
			for _, secret := range []string{password, header, answer, "Bearer", "eyJ"} {
				if strings.Contains(text, secret) {
					t.Errorf("the log holds %q: %s", secret, text)
				}
			}
		})
	}
}

func TestACallersRequestIDIsKeptIfItIsHarmless(t *testing.T) {
	t.Parallel()
	for _, topology := range rpctest.Topologies {
		t.Run(topology.Name, func(t *testing.T) {
			t.Parallel()
			log := &lockedBuffer{}
			server := rpctest.NewServer(t, "users", rpc.ServerConfig{Logger: slog.New(slog.NewJSONHandler(log, nil))}, rpctest.RegisterProfiles(rpctest.Found))
			client := topology.Reach(t, rpctest.BFFToUsers, server)
			for _, test := range []struct {
				id   string
				kept bool
			}{
				{"01890a5d-ac96-774b-bcce-b302099a8057", true},
				{"a.B_9-z", true},
				{strings.Repeat("x", 64), true},
				{strings.Repeat("x", 65), false},
				{strings.Repeat("x", 10_000), false},
				{"", false},
				{"two words", false},
				{"tab\tbed", false},
				{`quoted"`, false},
				{"<script>", false},
				{"größe", false},
				{"line\nbroken", false},
			} {
				if topology.Name == "http" && strings.Contains(test.id, "\n") {
					continue // HTTP can't carry it
				}
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("X-Request-Id", test.id)
				if _, err := rpctest.Get(ctx, client); err != nil {
					t.Fatalf("GetProfile with X-Request-Id %.80q: %v", test.id, err)
				}
				lines := log.lines(t)
				if len(lines) != 1 {
					t.Fatalf("X-Request-Id %.80q: got %d lines, want one", test.id, len(lines))
				}
				logged, _ := lines[0]["request_id"].(string)
				echoed := info.ResponseHeader().Get("X-Request-Id")
				if logged != echoed {
					t.Errorf("X-Request-Id %.80q: logged %.80q, echoed %.80q, want the same", test.id, logged, echoed)
				}
				if test.kept && echoed != test.id {
					t.Errorf("X-Request-Id %.80q: got %.80q, want it kept", test.id, echoed)
				}
				if !test.kept && uuid.Validate(echoed) != nil {
					t.Errorf("X-Request-Id %.80q: got %.80q, want a new one", test.id, echoed)
				}
			}
		})
	}
}

// Not every caller of HTTP is a client of ours.
func TestAHeaderThatBreaksTheLineIsRefused(t *testing.T) {
	t.Parallel()
	url, log := gateway(t)
	request := rpctest.PostRequest(t, url, jsonType, `{"profileId":"`+rpctest.ProfileID+`"}`)
	request.Header["X-Request-Id"] = []string{"first", "second\tforged"}
	got := rpctest.Send(t, request)
	if got.Status != http.StatusOK || got.Header.Get("X-Request-Id") != "first" {
		t.Errorf("two request ids: got %d with %q, want 200 with the first", got.Status, got.Header.Get("X-Request-Id"))
	}
	if strings.Contains(log.String(), "forged") {
		t.Errorf("two request ids: the second is in the log: %s", log)
	}
}
