package browser

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
)

// The flow cookie binds the answer of another provider to the browser that was sent
// there: an answer that somebody else began is refused. It is Lax, unlike the cookies of
// a session: the browser arrives from the provider's site. It is one cookie, so the last
// visit that a browser begins is the one that counts.
const flowLife = 10 * time.Minute

// maxFlowCookie is what fits into a cookie with its name and attributes (RFC 6265bis,
// section 5.6: 4,096 bytes).
const maxFlowCookie = 3900

func (c *Cookies) flowName() string { return c.prefix + "gatehouse-flow" }

// Flow is a visit to another provider, and its answer once it came back.
type Flow struct {
	Provider string `json:"p"`
	Token    string `json:"t"`
	Link     bool   `json:"l,omitempty"`
	Code     string `json:"c,omitempty"`
	State    string `json:"s,omitempty"`
	Issuer   string `json:"i,omitempty"`
	User     string `json:"u,omitempty"`
	Error    string `json:"e,omitempty"`
}

// encode returns the cookie's value, and whether a browser stores one of its length.
func (f Flow) encode() (string, bool) {
	text, err := json.Marshal(f)
	value := base64.RawURLEncoding.EncodeToString(text)
	return value, err == nil && len(value) <= maxFlowCookie
}

// decodeFlow returns the zero value for a value that is none of ours.
func decodeFlow(value string) Flow {
	var found Flow
	text, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || json.Unmarshal(text, &found) != nil {
		return Flow{}
	}
	return found
}

// FlowOf returns the visit of a page's request; the zero value for none.
func (c *Cookies) FlowOf(r *http.Request) Flow { return decodeFlow(values(r, c.flowName())[0]) }

// CarriedFlow returns the visit of a call; the zero value for none.
func CarriedFlow(ctx context.Context) Flow { return decodeFlow(CarriedBy(ctx).Flow) }

// SetFlow adds the cookie of a visit to a response, and reports whether it fits.
func (c *Cookies) SetFlow(header http.Header, f Flow) bool { return c.addFlow(header.Add, f) }

// HandOverFlow sets the cookie of a visit in the response of a call, if the client keeps
// its session in cookies, and reports whether it does.
func (c *Cookies) HandOverFlow(ctx context.Context, f Flow) bool {
	info, ok := connect.CallInfoForServerContext(ctx)
	return ok && c.inUse(ctx) && c.addFlow(info.ResponseHeader().Add, f)
}

func (c *Cookies) addFlow(add func(name, value string), f Flow) bool {
	value, ok := f.encode()
	if ok {
		add("Set-Cookie", c.sameSite(c.flowName(), value, flowLife, http.SameSiteLaxMode))
	}
	return ok
}

// ClearFlow deletes the cookie of a visit whose answer was given.
func (c *Cookies) ClearFlow(ctx context.Context) {
	if info, ok := connect.CallInfoForServerContext(ctx); ok && CarriedBy(ctx).Flow != "" {
		info.ResponseHeader().Add("Set-Cookie", c.sameSite(c.flowName(), "", 0, http.SameSiteLaxMode))
	}
}
