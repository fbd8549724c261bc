package bff

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/fault"
)

// wireFaults are services that break HTTP/2 itself, frame by frame.
var wireFaults = map[string]func(*wire){
	"refuses each stream":            func(w *wire) { w.reset(http2.ErrCodeRefusedStream) },
	"resets with an internal error":  func(w *wire) { w.reset(http2.ErrCodeInternal) },
	"resets with a cancel":           func(w *wire) { w.reset(http2.ErrCodeCancel) },
	"resets with a protocol error":   func(w *wire) { w.reset(http2.ErrCodeProtocol) },
	"resets as overloaded":           func(w *wire) { w.reset(http2.ErrCodeEnhanceYourCalm) },
	"resets as too insecure":         func(w *wire) { w.reset(http2.ErrCodeInadequateSecurity) },
	"resets without an error":        func(w *wire) { w.reset(http2.ErrCodeNo) },
	"goes away before":               func(w *wire) { w.goAway(0, http2.ErrCodeNo) },
	"goes away in error":             func(w *wire) { w.goAway(0, http2.ErrCodeInternal) },
	"goes away having begun":         func(w *wire) { w.headers("200"); w.goAway(w.stream, http2.ErrCodeNo); _ = w.conn.Close() },
	"closes after its headers":       func(w *wire) { w.headers("200"); _ = w.conn.Close() },
	"resets after its headers":       func(w *wire) { w.headers("200"); w.reset(http2.ErrCodeInternal) },
	"ends without a body":            func(w *wire) { w.end("200") },
	"drips":                          drip,
	"drips its headers":              dripHeaders,
	"sends data without headers":     func(w *wire) { _ = w.WriteData(w.stream, true, []byte("secret")) },
	"sends headers without a status": func(w *wire) { w.block(true, "content-type", "application/proto") },
	"sends a status of words":        func(w *wire) { w.block(true, ":status", "fine") },
	"sends a status of 999":          func(w *wire) { w.block(true, ":status", "999", "content-type", "application/proto") },
	"sends headers in capitals":      func(w *wire) { w.block(true, ":status", "200", "Content-Type", "application/proto") },
	"sends headers that don't decode": func(w *wire) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: bytes.Repeat([]byte{0xff}, 40), EndHeaders: true})
	},
	"never ends its headers": func(w *wire) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: w.encode(":status", "200")})
	},
	"continues its headers for ever": continueHeaders,
	"sends only 103s": func(w *wire) {
		for range 10_000 {
			if w.block(false, ":status", "103") != nil {
				return
			}
		}
	},
	"sends less than it said":  func(w *wire) { w.sized("100", "abc") },
	"sends more than it said":  func(w *wire) { w.sized("1", "abcdef") },
	"sends another's protocol": func(w *wire) { _, _ = io.WriteString(w.conn, "HTTP/1.1 400 Bad Request\r\n\r\nsecret") },
	"sends a frame too large":  func(w *wire) { _ = w.WriteRawFrame(http2.FrameData, 0, w.stream, make([]byte, 1<<20)) },
	"sends an unknown frame": func(w *wire) {
		_ = w.WriteRawFrame(0xfa, 0xff, w.stream, []byte("secret"))
		w.reset(http2.ErrCodeInternal)
	},
	"promises a push": func(w *wire) {
		_ = w.WritePushPromise(http2.PushPromiseParam{StreamID: w.stream, PromiseID: 2, BlockFragment: w.encode(":method", "GET"), EndHeaders: true})
	},
	"answers another stream": func(w *wire) {
		w.stream += 1000
		w.end("200")
	},
	"pings for ever": func(w *wire) {
		for range 10_000 {
			if w.WritePing(false, [8]byte{1}) != nil {
				return
			}
		}
	},
	"answers gRPC": func(w *wire) {
		w.block(false, ":status", "200", "content-type", "application/grpc")
		w.block(true, "grpc-status", "0")
	},
	"answers with a gRPC status that is none": func(w *wire) {
		w.block(false, ":status", "200", "content-type", "application/grpc")
		w.block(true, "grpc-status", "secret", "grpc-message", "%zz%", "grpc-status-details-bin", "!!!")
	},
	"answers proto with gRPC's trailers": func(w *wire) {
		w.block(false, ":status", "200", "content-type", "application/proto")
		_ = w.WriteData(w.stream, false, []byte("\x0a\x7fabc"))
		w.block(true, "grpc-status", "99", "grpc-message", "secret")
	},
	"answers gzip that isn't": func(w *wire) {
		w.block(false, ":status", "200", "content-type", "application/proto", "content-encoding", "gzip")
		_ = w.WriteData(w.stream, true, []byte("secret"))
	},
	"answers in an encoding that we don't know": func(w *wire) {
		w.block(false, ":status", "200", "content-type", "application/proto", "content-encoding", "secret")
		_ = w.WriteData(w.stream, true, []byte("secret"))
	},
	"answers with a megabyte of headers": func(w *wire) {
		pairs := []string{":status", "200", "content-type", "application/proto"}
		for range 1024 {
			pairs = append(pairs, "x-filler", strings.Repeat("~", 1024))
		}
		w.long(w.encode(pairs...))
	},
}

// wire is a connection on which the service treats one request.
type wire struct {
	*http2.Framer
	conn   net.Conn
	stream uint32
	buffer bytes.Buffer
	hpack  *hpack.Encoder
}

// framed is a service that reads HTTP/2 as it should and treats each request so.
func framed(t testing.TB, treat func(*wire)) string {
	return raw(t, func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		w := &wire{Framer: http2.NewFramer(conn, conn), conn: conn}
		w.AllowIllegalWrites = true
		w.hpack = hpack.NewEncoder(&w.buffer)
		if w.WriteSettings() != nil {
			return
		}
		for {
			frame, err := w.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = w.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !frame.IsAck() {
					_ = w.WritePing(true, frame.Data)
				}
			case *http2.DataFrame:
				if frame.StreamEnded() {
					w.stream = frame.StreamID
					treat(w)
				}
			}
		}
	})
}

func (w *wire) encode(pairs ...string) []byte {
	w.buffer.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = w.hpack.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(w.buffer.Bytes())
}

func (w *wire) block(end bool, pairs ...string) error {
	return w.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: w.encode(pairs...), EndHeaders: true, EndStream: end})
}

func (w *wire) headers(status string) {
	_ = w.block(false, ":status", status, "content-type", "application/proto")
}

func (w *wire) end(status string) {
	_ = w.block(true, ":status", status, "content-type", "application/octet-stream")
}

func (w *wire) reset(code http2.ErrCode) { _ = w.WriteRSTStream(w.stream, code) }

func (w *wire) goAway(last uint32, code http2.ErrCode) {
	_ = w.WriteGoAway(last, code, []byte("secret"))
}

func (w *wire) sized(length, body string) {
	_ = w.block(false, ":status", "200", "content-type", "application/proto", "content-length", length)
	_ = w.WriteData(w.stream, true, []byte(body))
}

// long sends a header block that takes many frames.
func (w *wire) long(block []byte) {
	first := true
	for len(block) > 0 {
		n := min(len(block), 16<<10)
		if first {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: block[:n]})
		} else if w.WriteContinuation(w.stream, n == len(block), block[:n]) != nil {
			return
		}
		first, block = false, block[n:]
	}
}

func continueHeaders(w *wire) {
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: w.encode(":status", "200")})
	for range 10_000 {
		if w.WriteContinuation(w.stream, false, w.encode("x-filler", strings.Repeat("~", 8<<10))) != nil {
			return
		}
	}
}

// drip sends a message so slowly that it never ends.
func drip(w *wire) {
	w.headers("200")
	for w.WriteData(w.stream, false, []byte{0}) == nil {
		time.Sleep(20 * time.Millisecond)
	}
}

func dripHeaders(w *wire) {
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: w.encode(":status", "200")})
	for w.WriteContinuation(w.stream, false, w.encode("x", "y")) == nil {
		time.Sleep(20 * time.Millisecond)
	}
}

// wantUnavailableOverGRPC asks with gRPC's own client.
func wantUnavailableOverGRPC(t testing.TB, h *harness) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(h.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	wantNoError(t, "NewClient", err)
	defer func() { _ = conn.Close() }()
	var header, trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+h.token(alice))
	err = conn.Invoke(ctx, bffv1.AccountServiceGetMeProcedure, &bffv1.GetMeRequest{}, &bffv1.GetMeResponse{}, grpc.Header(&header), grpc.Trailer(&trailer))
	failure, _ := status.FromError(err)
	var reason string
	var after time.Duration
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		case *errdetails.RetryInfo:
			after = detail.GetRetryDelay().AsDuration()
		}
	}
	if failure.Code() != codes.Unavailable || reason != fault.ReasonUnavailable || after != time.Second {
		t.Errorf("GetMe: got %v, reason %q, RetryInfo %s; want unavailable %s, 1s", err, reason, after, fault.ReasonUnavailable)
	}
	if retryAfter := append(header.Get("retry-after"), trailer.Get("retry-after")...); len(retryAfter) == 0 || retryAfter[0] != "1" {
		t.Errorf("GetMe: got retry-after %q, want 1", retryAfter)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("GetMe: got %v, want no text from the service", err)
	}
}

// The REST-less curl, too, sees a status, a time to come again, and nothing else.
func TestNoAnswerIsUnavailableToCurl(t *testing.T) {
	t.Parallel()
	h := newHarness(t, options{served: true, users: deadEnd(t, "users", refusing(t))})
	response, body := h.send(t, bffv1.AccountServiceGetMeProcedure, "{}", "Authorization", "Bearer "+h.token(alice))
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "1" || !strings.Contains(body, fault.ReasonUnavailable) {
		t.Errorf("got %d, Retry-After %q, %s; want 503, 1 and the reason", response.StatusCode, response.Header.Get("Retry-After"), body)
	}
	for _, inner := range []string{"refused", "127.0.0.1", "dial"} {
		if strings.Contains(body, inner) {
			t.Errorf("got %s, which tells of %q", body, inner)
		}
	}
}

// A service that stops in the middle of things keeps no call waiting beyond its
// limit, and leaves no goroutine behind, which TestMain checks.
func TestNoFaultDelaysACallBeyondItsTimeLimit(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"drips", "drips its headers", "never ends its headers", "refuses each stream", "pings for ever"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, options{served: true, users: deadEnd(t, "users", framed(t, wireFaults[name]))})
			began := time.Now()
			_, got := h.getMe(t, h.token(alice))
			wantUnavailable(t, "GetMe", got, fault.ReasonUnavailable)
			// Far from it, so that a busy machine is no failure.
			if took := time.Since(began); took > 5*readLimit {
				t.Errorf("GetMe took %s, want its part's limit %s", took, readLimit)
			}
		})
	}
}
