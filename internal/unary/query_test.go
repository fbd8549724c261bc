package unary

import (
	"net/url"
	"testing"
)

// The query is read without a map, and must mean the same.
func TestAQueryIsReadAsURLDoes(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"", "&", "=", "message", "message=", "message=%7B%7D", "message=%zz", "message=%zz&message=ok", "message=%", "mess%61ge=1", "mess%zzge=1",
		"connect=v1&encoding=json&message=%7B%7D&base64=1&compression=gzip", "encoding=proto&encoding=json", "encoding=%zz&encoding=json",
		"encoding=&encoding=json", "encoding=json;message=1", "message=a;b", "message=a+b&encoding=js+on", "base64=%31", "x=1&message=1&&encoding=proto",
		"Message=1", "message=1=2", "compression=%67zip", "connect", "connect&connect=v1",
	} {
		query := (&url.URL{RawQuery: raw}).Query()
		want := Query{
			Connect: query.Get("connect"), Encoding: query.Get("encoding"), Base64: query.Get("base64"), Compression: query.Get("compression"),
			HasMessage: query.Has("message"),
		}
		got := QueryOf(raw)
		message, err := url.QueryUnescape(got.Message)
		if err != nil || message != query.Get("message") {
			t.Errorf("%q: got the message %q, %v, want %q", raw, message, err, query.Get("message"))
		}
		if got.Message = ""; got != want {
			t.Errorf("%q: got %+v, want %+v", raw, got, want)
		}
	}
}
