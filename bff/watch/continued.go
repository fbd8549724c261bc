package watch

import (
	"context"

	"gatehouse/internal/continuation"
	"gatehouse/internal/rpc"
)

// continued is a stream whose method has returned. No goroutine waits for its events: one
// that is due starts one, which ends when it has sent what there is.
type continued struct {
	hub    *Hub
	stream *stream
}

// Start implements [continuation.Stream].
func (c continued) Start(transport continuation.Transport) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.stream.interrupt = transport.Interrupt
	c.stream.send = func() { go c.sendDue(transport) }
	c.stream.signal() // what has happened since the method returned
}

// Stop implements [continuation.Stream].
func (c continued) Stop() { c.hub.stop(c.stream) }

// Lost implements [continuation.Stream].
func (c continued) Lost() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.stream.lost = true
	c.stream.signal()
}

// sendDue sends the events that are due, and ends the stream if it must. It is the only one
// to run until there are none.
func (c continued) sendDue(transport continuation.Transport) {
	if err := rpc.Recovering(func() error { return c.sendUntilEnd(transport) }); err != nil {
		c.hub.leave(c.stream)
		transport.End(err)
	}
}

// sendUntilEnd returns why the stream ends; nil if it does not.
func (c continued) sendUntilEnd(transport continuation.Transport) error {
	for {
		event, due, lost := c.next()
		switch {
		case lost:
			return c.hub.reason(c.stream, context.Canceled)
		case !due:
			return nil
		}
		err := transport.Send(c.stream.message(event))
		c.hub.sent(c.stream)
		if event.Ended != nil {
			return event.Ended
		}
		if err != nil {
			return c.hub.reason(c.stream, err)
		}
	}
}

// next returns the next event, if one is due, or that the client has gone. With neither,
// the next signal starts sendDue again.
func (c continued) next() (event Event, due, lost bool) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if c.stream.lost {
		return Event{}, false, true
	}
	event, due = c.hub.takeLocked(c.stream)
	c.stream.busy = due
	return event, due, false
}
