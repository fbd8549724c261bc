package passthrough

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"

	servicev1 "gatehouse/gen/service/v1"
	"gatehouse/internal/fault"
)

// exporter exports what an upstream stores about a person. It is a
// [servicev1.PersonServiceClient].
type exporter struct {
	method *passedMethod
	client servicev1.PersonServiceClient
}

// Exporters returns what exports data about people, by the upstream's name.
func (s *Upstreams) Exporters() map[string]servicev1.PersonServiceClient {
	exporters := map[string]servicev1.PersonServiceClient{}
	if s.config.Set == nil {
		return exporters
	}
	for _, u := range s.config.Set.Upstreams {
		if u.Person {
			exporters[u.Name] = &exporter{&passedMethod{upstreams: s, upstream: u}, servicev1.NewPersonServiceClient(s.clients[u.Name])}
		}
	}
	return exporters
}

// ExportPerson implements [servicev1.PersonServiceClient]. Whatever the upstream answers
// other than data is a missing part, since an export without it would look complete;
// only an export that is too large fails for good. Errors: unavailable
// SERVICE_UNAVAILABLE, resource_exhausted UPSTREAM_RESOURCE_EXHAUSTED.
func (e *exporter) ExportPerson(ctx context.Context, req *servicev1.ExportPersonRequest) (*servicev1.ExportPersonResponse, error) {
	outgoing, _ := connect.NewClientContext(ctx) // nothing of the caller's own passes
	response, err := e.client.ExportPerson(outgoing, req)
	if err == nil {
		return response, nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, context.Canceled
	}
	failure, ok := errors.AsType[*connect.Error](err)
	switch {
	case ok && failure.IsRemote() && failure.Code() == connect.CodeResourceExhausted:
		return nil, refusals[connect.CodeResourceExhausted].WithCause(err)
	case ok && !failure.IsRemote() && fault.Reason(failure) != "":
		return nil, failure
	}
	return nil, e.method.unavailable(err, "it has to export what it stores about a person: see service.v1.PersonService, and its own log")
}
