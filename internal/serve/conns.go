package serve

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
)

// ConnLimits limit the connections of a listener.
type ConnLimits struct {
	// Total is the maximum number of connections; if zero, three quarters of the files
	// that the process may open.
	Total int
	// PerAddress is the maximum for one address (IPv6: one /64); a quarter of the total if
	// zero. It does not apply to addresses in Trusted.
	PerAddress int
	Trusted    []netip.Prefix
}

// LimitConns returns a listener that limits its connections, so that one client cannot
// use up all of them. It closes a new connection from an address that has too many. If
// there are too many in total, it closes an idle connection of the address with the most
// connections, or the new connection if that address has no idle one. Serve it with [Run]
// or [RunUntil], which report which connections are idle.
func LimitConns(listener net.Listener, limits ConnLimits) net.Listener {
	if limits.Total == 0 {
		limits.Total = max(openFiles()/4*3, 64)
	}
	if limits.PerAddress == 0 {
		limits.PerAddress = max(limits.Total/4, 1)
	}
	return &limitedListener{Listener: listener, limits: limits, byAddress: map[netip.Prefix]*addressConns{}}
}

// openFiles returns how many files the process may open.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}

type limitedListener struct {
	net.Listener
	limits ConnLimits

	mu        sync.Mutex
	total     int
	byAddress map[netip.Prefix]*addressConns
}

// addressConns are the connections of one address.
type addressConns struct {
	count int
	idle  map[*limitedConn]struct{} // without a call in flight
}

type limitedConn struct {
	net.Conn
	listener *limitedListener
	address  netip.Prefix
	closed   bool // guarded by the listener's lock
}

// Accept implements [net.Listener].
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if limited := l.admit(conn); limited != nil {
			return limited, nil
		}
		_ = conn.Close()
	}
}

func (l *limitedListener) admit(conn net.Conn) net.Conn {
	address, trusted := l.addressOf(conn)
	l.mu.Lock()
	own := l.byAddress[address]
	if own != nil && own.count >= l.limits.PerAddress && !trusted {
		l.mu.Unlock()
		return nil
	}
	var victim *limitedConn
	if l.total >= l.limits.Total {
		if victim = l.victim(); victim == nil {
			l.mu.Unlock()
			return nil
		}
		delete(l.byAddress[victim.address].idle, victim)
	}
	if own == nil {
		own = &addressConns{idle: map[*limitedConn]struct{}{}}
		l.byAddress[address] = own
	}
	limited := &limitedConn{Conn: conn, listener: l, address: address}
	own.count++
	own.idle[limited] = struct{}{}
	l.total++
	l.mu.Unlock()
	if victim != nil {
		_ = victim.Close()
	}
	return limited
}

// victim returns an idle connection of the address with the most connections; nil if it
// has none.
func (l *limitedListener) victim() *limitedConn {
	var most *addressConns
	for _, one := range l.byAddress {
		if len(one.idle) > 0 && (most == nil || one.count > most.count) {
			most = one
		}
	}
	if most != nil {
		for conn := range most.idle {
			return conn
		}
	}
	return nil
}

func (l *limitedListener) addressOf(conn net.Conn) (network netip.Prefix, trusted bool) {
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}, false
	}
	address := remote.Addr().Unmap().WithZone("")
	for _, prefix := range l.limits.Trusted {
		trusted = trusted || prefix.Contains(address)
	}
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(address, bits).Masked(), trusted
}

// track records the state of a connection; the HTTP server calls it.
func (l *limitedListener) track(conn net.Conn, state http.ConnState) {
	limited, ok := conn.(*limitedConn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if limited.closed { // it may be a victim that becomes idle
		return
	}
	own := l.byAddress[limited.address]
	switch state {
	case http.StateActive:
		delete(own.idle, limited)
	case http.StateIdle:
		own.idle[limited] = struct{}{}
	}
}

// Close implements [net.Conn].
func (c *limitedConn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}

func (l *limitedListener) forget(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	l.total--
	own := l.byAddress[c.address]
	own.count--
	delete(own.idle, c)
	if own.count == 0 {
		delete(l.byAddress, c.address)
	}
}

// CloseWrite is [framingConn.CloseWrite]'s.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
