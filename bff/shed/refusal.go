package shed

import (
	"bytes"
	"math"
	"net/http"
	"strconv"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/uuid"

	"gatehouse/internal/fault"
)

// preparedRefusal is a response of the Connect protocol that is encoded once, at start,
// because refusing a call must be cheap under overload.
type preparedRefusal struct {
	header http.Header
	status int
	body   []byte
}

func prepareRefusal(err *connect.Error) preparedRefusal {
	written := &writtenAnswer{header: http.Header{}}
	request := &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}}
	_ = connecthttp.NewErrorWriter().Write(written, request, err) // writing to a buffer does not fail
	if after, ok := fault.RetryDelay(err); ok {
		written.header.Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	}
	return preparedRefusal{header: written.header, status: written.status, body: written.body.Bytes()}
}

func (p *preparedRefusal) write(w http.ResponseWriter) {
	header := w.Header()
	for name, values := range p.header {
		header[name] = values
	}
	if header.Get("X-Request-Id") == "" {
		header["X-Request-Id"] = []string{uuid.NewString()}
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(p.body)
}

type writtenAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *writtenAnswer) Header() http.Header            { return w.header }
func (w *writtenAnswer) WriteHeader(status int)         { w.status = status }
func (w *writtenAnswer) Write(data []byte) (int, error) { return w.body.Write(data) }
