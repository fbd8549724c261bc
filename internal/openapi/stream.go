package openapi

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// streamType is the content type of streams over Connect.
const streamType = "application/connect+json"

// addStream describes a stream, which Connect serves by POST. Its status is 200 even
// if it fails: the error ends the stream.
func (d *document) addStream(m *method) error {
	if !d.lenient && !servesEvents(m) {
		return errors.New("a stream has to be server-sent events, at a GET without variables")
	}
	request, err := d.schemas.ref(m.Input())
	if err != nil {
		return err
	}
	requestExample, err := d.schemas.request(m)
	if err != nil {
		return err
	}
	response, err := d.schemas.ref(m.Output())
	if err != nil {
		return err
	}
	responseExample, err := d.schemas.responseExample(m.Output(), false)
	if err != nil {
		return err
	}
	failures, err := d.failures(m, connectPost, true)
	if err != nil {
		return err
	}
	lines, reasons, before := []string{}, []string{}, object{}
	for _, one := range failures {
		switch one.status {
		case http.StatusUnsupportedMediaType, http.StatusRequestHeaderFieldsTooLarge:
			before.set(strconv.Itoa(one.status), one)
			continue
		}
		one.uses--
		for _, reason := range one.reasons {
			reasons = append(reasons, reason)
			lines = append(lines, d.errorLine(reason))
		}
	}
	slices.Sort(reasons)
	slices.Sort(lines)
	parameters := []any{d.parameter("Connect-Protocol-Version"), d.parameter("Connect-Timeout-Ms")}
	operation := object{
		{"operationId", m.operationID(connectPost)}, {"tags", []string{d.of(m.Parent()) + " over Connect"}}, {"summary", words(string(m.Name()))},
		{"description", m.description + "\n\n" + sentences(m.policy) + "\n\nA stream: each message, of the request too, is in an envelope of the Connect protocol."},
		{"security", d.securityOf(m)},
		{"parameters", parameters},
		{"requestBody", object{{"required", true}, {"content", object{{streamType, media(request, requestExample)}}}}},
	}
	responses := object{{"200", object{
		{"description", d.outputText(m) + "\n\nAn error ends the stream, for one of these reasons:\n\n" + strings.Join(lines, "\n")},
		{"headers", object{{"X-Request-Id", d.header("X-Request-Id")}}},
		{"content", object{{streamType, media(response, responseExample)}}},
		{"x-gatehouse-reasons", reasons},
	}}}
	operation.set("responses", append(responses, before...))
	operation.set("x-gatehouse-policy", policyExtension(m.policy))
	d.addOperation("/"+string(m.Parent().FullName())+"/"+string(m.Name()), "post", operation)
	if d.lenient || !servesEvents(m) {
		return nil
	}
	return d.addEvents(m, response)
}

// eventsType is the media type of server-sent events (HTML Standard, section 9.2).
const eventsType = "text/event-stream"

// servesEvents reports whether a stream has a REST path, at which it is server-sent
// events.
func servesEvents(m *method) bool {
	verb, path := verbOf(httpRule(m))
	return verb == "get" && !strings.Contains(path, "{") && !m.IsStreamingClient()
}

// addEvents describes a stream at its REST path.
func (d *document) addEvents(m *method, message any) error {
	parameters, err := d.queryParameters(m, func(protoreflect.FieldDescriptor) bool { return true })
	if err != nil {
		return err
	}
	failures, err := d.failures(m, rest, false)
	if err != nil {
		return err
	}
	responses := object{{"200", object{
		{"description", d.outputText(m) + "\n\nServer-sent events: the data of each is a message in JSON, and its ID is the cursor. The header Last-Event-ID resumes."},
		{"headers", object{{"X-Request-Id", d.header("X-Request-Id")}}},
		{"content", object{{eventsType, object{{"schema", object{{"type", "string"}}}, {"x-gatehouse-data", message}}}}},
	}}}
	for _, one := range failures {
		responses.set(strconv.Itoa(one.status), one)
	}
	_, path := verbOf(httpRule(m))
	d.addOperation(plainPath(path), "get", object{
		{"operationId", m.operationID(rest)}, {"tags", []string{d.of(m.Parent())}}, {"summary", words(string(m.Name()))},
		{"description", m.description + "\n\n" + sentences(m.policy)},
		{"security", d.securityOf(m)}, {"parameters", parameters}, {"responses", responses}, {"x-gatehouse-policy", policyExtension(m.policy)},
	})
	return nil
}
