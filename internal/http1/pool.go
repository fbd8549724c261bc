package http1

import (
	"sync"
	"time"
)

// pool keeps idle connections. The one that became idle last is used first, so that
// those that are not needed grow old.
type pool struct {
	mu     sync.Mutex
	conns  []*conn // the one that has been idle for the longest comes first
	prune  *time.Timer
	closed bool // until the next call
}

// take returns an open connection; nil when there is none.
func (p *pool) take(timeout time.Duration) *conn {
	for {
		c := p.pop()
		if c == nil {
			return nil
		}
		if time.Since(c.idleSince) < timeout && c.isOpen() {
			return c
		}
		_ = c.Close()
	}
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = false
	last := len(p.conns) - 1
	if last < 0 {
		return nil
	}
	c := p.conns[last]
	p.conns[last] = nil
	p.conns = p.conns[:last]
	return c
}

// put keeps a connection, or closes it when there are enough.
func (p *pool) put(c *conn, most int, timeout time.Duration) {
	c.reused, c.idleSince = true, time.Now()
	if !p.push(c, most, timeout) {
		_ = c.Close()
	}
}

func (p *pool) push(c *conn, most int, timeout time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= most {
		return false
	}
	p.conns = append(p.conns, c)
	if p.prune == nil {
		p.prune = time.AfterFunc(timeout, func() { p.closeOld(timeout) })
	}
	return true
}

// closeOld closes the connections that have been idle for the timeout, and looks again
// when the next one will have been.
func (p *pool) closeOld(timeout time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := 0
	for old < len(p.conns) && time.Since(p.conns[old].idleSince) >= timeout {
		_ = p.conns[old].Close()
		old++
	}
	rest := copy(p.conns, p.conns[old:])
	clear(p.conns[rest:])
	if p.conns = p.conns[:rest]; rest == 0 {
		p.prune = nil
		return
	}
	p.prune.Reset(timeout - time.Since(p.conns[0].idleSince))
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	if p.prune != nil {
		p.prune.Stop()
		p.prune = nil
	}
}
