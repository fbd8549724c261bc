// Package continuation lets a stream go on after its method has returned. A stream that
// waits in its method holds a goroutine with the stack of the whole chain of interceptors,
// and what belongs to the request: some 40 to 50 KiB. One that has continued holds a
// connection or, in HTTP/2, a stream and a small goroutine of the HTTP server.
//
// The transport offers it in the context, where it can. A method that accepts sends its
// first messages as usual, calls Continue, and returns nil. What the interceptors do at the
// end of a call they leave to OnEnd.
package continuation

import (
	"context"

	"google.golang.org/protobuf/proto"
)

// Stream is a stream that continues.
type Stream interface {
	// Start lets the stream send. It is called once its method has returned.
	Start(Transport)
	// Stop asks the stream to end, because the server stops.
	Stop()
	// Lost ends the stream, because its client has gone: perhaps before Start, and perhaps
	// when it has ended.
	Lost()
}

// Transport sends the messages of a stream that continues. Calls of Send and End must not
// overlap.
type Transport interface {
	Send(proto.Message) error
	// Interrupt ends a Send that waits for the client, and all later ones, with an error.
	Interrupt()
	// End ends the stream with the error that its method would have returned.
	End(error)
}

// Offer is the offer of a transport to continue a stream.
type Offer struct {
	// Accepted is called when the method accepts, before it sends.
	Accepted func()

	stream Stream
	ends   []func(error)
}

type offerKey struct{}

// With returns a context with an offer.
func With(ctx context.Context, offer *Offer) context.Context {
	return context.WithValue(ctx, offerKey{}, offer)
}

func from(ctx context.Context) *Offer {
	offer, _ := ctx.Value(offerKey{}).(*Offer)
	return offer
}

// Accept accepts the offer of the context, and returns it; nil if there is none. The method
// must not have sent anything.
func Accept(ctx context.Context) *Offer {
	offer := from(ctx)
	if offer != nil {
		offer.Accepted()
		offer.Accepted = nil // it holds the response
	}
	return offer
}

// Continue makes the stream continue when the method returns.
func (o *Offer) Continue(stream Stream) { o.stream = stream }

// Stream returns the stream that continues; nil if none does.
func (o *Offer) Stream() Stream { return o.stream }

// Continues reports whether the stream of the call that ctx belongs to continues.
func Continues(ctx context.Context) bool {
	offer := from(ctx)
	return offer != nil && offer.stream != nil
}

// OnEnd calls end with the public error of a call whose stream continues, when that has
// ended. What end refers to is kept while the stream lasts.
func OnEnd(ctx context.Context, end func(error)) {
	offer := from(ctx)
	offer.ends = append(offer.ends, end)
}

// End calls the functions of OnEnd, the innermost interceptor's first.
func (o *Offer) End(public error) {
	for _, end := range o.ends {
		end(public)
	}
}
