package rpc

import (
	"net/http"

	"connectrpc.com/connect/v2/connecthttp"
)

// ByConnect serves the methods with connect's own handlers.
func (s *Server) ByConnect() http.Handler {
	mux := byConnect{s, http.NewServeMux()}
	connecthttp.Mount(mux, s.rpc, s.options...)
	return mux
}

type byConnect struct {
	server *Server
	*http.ServeMux
}

func (m byConnect) Handle(pattern string, handler http.Handler) {
	if p := m.server.methods[pattern]; p != nil {
		handler = m.server.checkRequests(p, handler)
	}
	m.ServeMux.Handle(pattern, handler)
}
