package browser

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"gatehouse/internal/fault"

	"connectrpc.com/connect/v2"
	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// sessionModeHeader asks for a session in cookies.
const sessionModeHeader = "X-Gatehouse-Session"

var errCrossOrigin = fault.New(connect.CodePermissionDenied, "CROSS_ORIGIN",
	"This page may not use the session's cookies: its origin is not listed in GATEHOUSE_ORIGINS, or the browser does not send the origin.")

// errCookiesCrossSite is for a page that may call but cannot use cookies: they are
// SameSite=Strict, so the browser silently drops them.
var errCookiesCrossSite = fault.New(connect.CodeFailedPrecondition, "COOKIES_CROSS_SITE",
	"Browsers drop the session cookies because the page and the gateway are on different sites. Open both under one host name (localhost and 127.0.0.1 are two sites), or omit X-Gatehouse-Session and store the tokens yourself.")

// isCrossSite reports whether the browser marks the request as cross-site (Fetch
// Metadata, section 2.4).
func isCrossSite(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Site") == "cross-site" }

// Origins says which web origins may call, for CORS and for cookies alike.
type Origins struct {
	listed     []string
	protection *http.CrossOriginProtection
	logger     *slog.Logger

	mu sync.Mutex
	// logged are the origins that were logged since the time in since.
	logged map[string]struct{}
	since  time.Time
}

// At most refusalsLogged origins are logged in each refusalInterval.
const (
	refusalsLogged  = 100
	refusalInterval = time.Minute
)

// NewOrigins returns the listed web origins.
func NewOrigins(origins []string, logger *slog.Logger) *Origins {
	s := &Origins{listed: origins, protection: http.NewCrossOriginProtection(), logger: logger, logged: map[string]struct{}{}}
	for _, origin := range origins {
		if strings.HasSuffix(origin, anyPort) {
			continue
		}
		// A pattern such as "*" is not an origin and matches none.
		if err := s.protection.AddTrustedOrigin(origin); err != nil {
			logger.Warn("web origins: entry ignored, not an origin", "origin", origin, "setting", "GATEHOUSE_ORIGINS")
		}
	}
	return s
}

// anyPort is the suffix of an entry that matches all ports of its host.
const anyPort = ":*"

// Lists reports whether the list has an origin.
func (s *Origins) Lists(origin string) bool {
	return slices.ContainsFunc(s.listed, func(listed string) bool {
		host, many := strings.CutSuffix(listed, anyPort)
		if !many {
			return strings.EqualFold(listed, origin)
		}
		if len(origin) < len(host) || !strings.EqualFold(origin[:len(host)], host) {
			return false
		}
		port, ok := strings.CutPrefix(origin[len(host):], ":")
		return origin[len(host):] == "" || ok && port != "" && strings.Trim(port, "0123456789") == ""
	})
}

// mayBegin reports whether a request may begin a session in cookies. A client that is not
// a browser sends no origin, and may.
func (s *Origins) mayBegin(r *http.Request) bool {
	return s.protection.Check(r) == nil || s.Lists(r.Header.Get("Origin"))
}

// mayUse reports whether a request may use its cookies. A browser adds them to the
// requests of any page, so the request must come from a page of the gateway
// (Sec-Fetch-Site, Fetch Metadata) or of a listed origin (Origin). A form must not be
// able to send a write.
func (s *Origins) mayUse(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
	default:
		if !s.Lists(r.Header.Get("Origin")) {
			return false
		}
	}
	return r.Method == http.MethodGet || r.Method == http.MethodHead || s.mayBegin(r) && !isForm(r)
}

// isForm reports whether a form could have sent the request (Fetch, section 4.10:
// requests without a preflight).
func isForm(r *http.Request) bool {
	if r.Method != http.MethodPost || r.Header.Get("Connect-Protocol-Version") != "" {
		return false
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded":
		return true
	default:
		return false
	}
}

// Handler answers preflight requests, and allows the listed origins to read responses,
// with or without cookies.
func (s *Origins) Handler(next http.Handler) http.Handler {
	policy := cors.New(cors.Options{
		// Not AllowedOrigins: an empty list would admit every origin.
		AllowOriginFunc:  s.Lists,
		AllowedMethods:   append(connectcors.AllowedMethods(), http.MethodHead, http.MethodPatch, http.MethodDelete),
		AllowedHeaders:   append(connectcors.AllowedHeaders(), "Authorization", "Idempotency-Key", "If-None-Match", "X-Request-Id", sessionModeHeader),
		ExposedHeaders:   append(connectcors.ExposedHeaders(), "ETag", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"),
		AllowCredentials: true,
		MaxAge:           7200,
	}).Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); origin != "" && !s.Lists(origin) && !isOwn(r, origin) {
			s.logRefusal(origin)
		}
		policy.ServeHTTP(w, r)
	})
}

// isOwn reports whether the request comes from a page of the gateway.
func isOwn(r *http.Request, origin string) bool {
	parsed, err := url.Parse(origin)
	return r.Header.Get("Sec-Fetch-Site") == "same-origin" || err == nil && parsed.Host != "" && parsed.Host == r.Host
}

// logRefusal logs a refused origin, so that an operator can find the reason. It limits
// how often it logs, so that callers cannot fill the log.
func (s *Origins) logRefusal(origin string) {
	if len(origin) > 255 {
		origin = origin[:255]
	}
	s.mu.Lock()
	if time.Since(s.since) > refusalInterval {
		clear(s.logged)
		s.since = time.Now()
	}
	_, known := s.logged[origin]
	known = known || len(s.logged) >= refusalsLogged
	if !known {
		s.logged[origin] = struct{}{}
	}
	s.mu.Unlock()
	if known {
		return
	}
	s.logger.Warn("web origins: call refused; if its pages may call, add it to GATEHOUSE_ORIGINS", "origin", origin)
}
