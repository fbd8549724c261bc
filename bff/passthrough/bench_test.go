package passthrough

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse/bff/access"
	policyv1 "gatehouse/gen/policy/v1"
	usersv1 "gatehouse/gen/users/v1"
	"gatehouse/internal/dial"
	"gatehouse/internal/identitytoken"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpc"
	"gatehouse/internal/upstream"
)

// The benchmark compares what a gateway spends on a call that it passes on: with a
// generated handler, and by descriptors. The upstream is a process of its own, so that
// its CPU time does not count.

const benchUpstream = "GATEHOUSE_TEST_BENCH_UPSTREAM"

func TestMain(m *testing.M) {
	if at := os.Getenv(benchUpstream); at != "" {
		serveBench(at)
		return
	}
	os.Exit(m.Run())
}

// serveBench serves GetProfile under its own name and under that of the copy.
func serveBench(at string) {
	server := connect.NewServer()
	usersv1.RegisterProfileServiceHandler(server, benchProfiles{})
	for spec := range server.Specs() {
		if spec.Procedure != usersv1.ProfileServiceGetProfileProcedure {
			continue
		}
		copied := spec
		copied.Procedure = "/bench.v1.ProfileService/GetProfile"
		server.Register(connect.Method{Spec: copied, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
			request := &usersv1.GetProfileRequest{}
			if err := stream.Receive(request); err != nil {
				return err
			}
			return stream.Send(benchProfile(request.GetProfileId()))
		}})
		break
	}
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	listener, err := net.Listen("tcp", at)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	_ = (&http.Server{Handler: mux, ReadHeaderTimeout: time.Second}).Serve(listener)
}

type benchProfiles struct {
	usersv1.UnimplementedProfileServiceHandler
}

func (benchProfiles) GetProfile(_ context.Context, request *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	return benchProfile(request.GetProfileId()), nil
}

func benchProfile(id string) *usersv1.GetProfileResponse {
	return &usersv1.GetProfileResponse{Profile: &usersv1.Profile{
		Id: id, FirstName: "Alice", LastName: "Anderson", Locale: "en-GB", Etag: "0a1b2c3d4e5f",
		CreateTime: timestamppb.Now(), UpdateTime: timestamppb.Now(),
	}}
}

// benchSet describes a copy of users.v1 under another name, that anyone may call.
func benchSet(b *testing.B, url string) *upstream.Set {
	b.Helper()
	var files []*descriptorpb.FileDescriptorProto
	for _, described := range []protoreflect.FileDescriptor{usersv1.File_users_v1_audit_service_proto, usersv1.File_users_v1_profile_service_proto} {
		encoded, err := protojson.Marshal(protodesc.ToFileDescriptorProto(described))
		if err != nil {
			b.Fatal(err)
		}
		file := &descriptorpb.FileDescriptorProto{}
		if err := protojson.Unmarshal([]byte(strings.NewReplacer("users.v1", "bench.v1", "users/v1/", "bench/v1/").Replace(string(encoded))), file); err != nil {
			b.Fatal(err)
		}
		for _, service := range file.GetService() {
			for _, method := range service.GetMethod() {
				proto.ClearExtension(method.GetOptions(), policyv1.E_Method)
			}
		}
		files = append(files, file)
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: files})
	if err != nil {
		b.Fatal(err)
	}
	folder := b.TempDir()
	text := "upstreams:\n  bench:\n    url: " + url + "\n    http: \"1.1\"\n    descriptors: bench.binpb\n    policy:\n      bench.v1.ProfileService/GetProfile:\n        access: {anyone: {}}\n"
	for name, data := range map[string][]byte{"bench.binpb": set, "upstreams.yaml": []byte(text)} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	loaded, err := upstream.Load(upstream.Config{Path: filepath.Join(folder, "upstreams.yaml")})
	if err != nil {
		b.Fatal(err)
	}
	return loaded
}

// benchServer is a gateway's server with the chain that each call passes.
func benchServer(b *testing.B, register func(*connect.Server)) http.Handler {
	b.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{
		Logger: slog.New(slog.DiscardHandler), CompressMinBytes: 1024,
		Authorizer: func(*policy.Method) (rpc.Admission, error) {
			return rpc.Admission{Authenticate: func(next connect.ServerFunc) connect.ServerFunc { return next }}, nil
		},
	}, register)
	if err != nil {
		b.Fatal(err)
	}
	return server.Mux(func() error { return nil })
}

// generated passes a call on with generated messages.
type generated struct {
	usersv1.UnimplementedProfileServiceHandler
	next usersv1.ProfileServiceClient
}

func (g generated) GetProfile(ctx context.Context, request *usersv1.GetProfileRequest) (*usersv1.GetProfileResponse, error) {
	return g.next.GetProfile(ctx, request)
}

func startBenchUpstream(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	at := listener.Addr().String()
	_ = listener.Close()
	upstream := exec.Command(os.Args[0])
	upstream.Env = append(os.Environ(), benchUpstream+"="+at)
	out, err := upstream.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := upstream.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = upstream.Process.Kill(); _ = upstream.Wait() })
	if _, err := out.Read(make([]byte, 6)); err != nil {
		b.Fatal(err)
	}
	return "http://" + at
}

func BenchmarkPassThrough(b *testing.B) {
	url := startBenchUpstream(b)
	issuer, err := identitytoken.NewIssuer("https://gatehouse.example", [][]byte{make([]byte, 32)})
	if err != nil {
		b.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	nobody := func(context.Context) *access.Principal { return nil }
	client, err := dial.DialUpstream(dial.UpstreamRoute{Name: "bench", URLs: url, HTTP: "1.1", Logger: logger, Token: func(ctx context.Context) (string, error) { return issuer.Token("bench", identityOf(nobody(ctx))) }})
	if err != nil {
		b.Fatal(err)
	}
	passed, err := New(Config{Set: benchSet(b, url), Issuer: issuer, Caller: nobody, IdempotencyKey: func(context.Context) string { return "" }, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	byHand := benchServer(b, func(server *connect.Server) {
		usersv1.RegisterProfileServiceHandler(server, generated{next: usersv1.NewProfileServiceClient(client)})
	})
	byDescriptor := benchServer(b, passed.Register)
	const id = "0198c0de-aaaa-7000-8000-00000000a11c"
	binary, err := proto.Marshal(&usersv1.GetProfileRequest{ProfileId: id})
	if err != nil {
		b.Fatal(err)
	}
	for _, codec := range []struct {
		name, kind string
		body       []byte
	}{{"proto", "application/proto", binary}, {"json", "application/json", []byte(`{"profileId":"` + id + `"}`)}} {
		b.Run(codec.name, func(b *testing.B) {
			call := func(handler http.Handler, path string) {
				r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(codec.body))
				r.Header.Set("Content-Type", codec.kind)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Anderson") {
					b.Fatalf("got %d %s", w.Code, w.Body)
				}
			}
			compare(b, func() { call(byHand, usersv1.ProfileServiceGetProfileProcedure) }, func() { call(byDescriptor, "/bench.v1.ProfileService/GetProfile") })
		})
	}
}

// compare measures the CPU time of this process in alternating rounds of calls, and
// reports the medians and the median of the ratios.
func compare(b *testing.B, one, other func()) {
	b.Helper()
	const rounds, calls = 21, 400
	measure := func(call func()) float64 {
		before := cpuTime()
		for range calls {
			call()
		}
		return float64(cpuTime()-before) / calls / 1000
	}
	measure(one)
	measure(other)
	var ones, others, ratios []float64
	for range rounds {
		a, c := measure(one), measure(other)
		ones, others, ratios = append(ones, a), append(others, c), append(ratios, c/a)
	}
	for _, all := range [][]float64{ones, others, ratios} {
		slices.Sort(all)
	}
	b.ReportMetric(ones[rounds/2], "generated-µs/call")
	b.ReportMetric(others[rounds/2], "descriptor-µs/call")
	b.ReportMetric(ratios[rounds/2], "ratio")
	b.ReportMetric(testing.AllocsPerRun(200, one), "generated-allocs/call")
	b.ReportMetric(testing.AllocsPerRun(200, other), "descriptor-allocs/call")
}

// cpuTime is the user and system time that this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
