package bff

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Part is a part of the system whose status the first page shows.
type Part struct {
	Name string
	// Check returns an error if the part is not healthy. The error is not published.
	Check func(context.Context) error
}

const (
	// statusTTL is how long a result is reused. The endpoint is unauthenticated, so a
	// request must not always cause checks.
	statusTTL   = time.Second
	statusLimit = 2 * time.Second
)

// statusHandler serves whether each part is healthy.
type statusHandler struct {
	parts  []Part
	now    func() time.Time
	flight singleflight.Group
	// The last result and its time. Only the in-flight check accesses them.
	last   []byte
	lastAt time.Time
}

// ServeHTTP answers in JSON. Concurrent requests share one check.
func (s *statusHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case found := <-s.flight.DoChan("", func() (any, error) { return s.check(), nil }):
		text, _ := found.Val.([]byte)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(text)
	}
}

func (s *statusHandler) check() []byte {
	if s.last != nil && s.now().Sub(s.lastAt) < statusTTL {
		return s.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusLimit)
	defer cancel()
	type state struct {
		Name string `json:"name"`
		Well bool   `json:"well"`
	}
	found := struct {
		Parts []state `json:"parts"`
	}{make([]state, len(s.parts))}
	var group sync.WaitGroup
	for i, part := range s.parts {
		group.Go(func() { found.Parts[i] = state{part.Name, part.Check(ctx) == nil} })
	}
	group.Wait()
	s.last, _ = json.Marshal(found) // names and booleans can be encoded
	s.lastAt = s.now()
	return s.last
}
