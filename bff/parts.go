package bff

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Part is something that the first page shows the state of.
type Part struct {
	Name string
	// Check returns what keeps it from doing its part. Nobody is told what.
	Check func(context.Context) error
}

const (
	// partsKept is how long a look at the parts is good for all who ask: the
	// page asks for it without saying who it is.
	partsKept  = time.Second
	partsLimit = 2 * time.Second
)

// parts tells whether each part is well.
type parts struct {
	list   []Part
	now    func() time.Time
	flight singleflight.Group
	// What was last seen, and when: the flight's own.
	seen   []byte
	seenAt time.Time
}

// ServeHTTP tells in JSON. Who asks while somebody looks gets what is found.
func (p *parts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case found := <-p.flight.DoChan("", func() (any, error) { return p.state(), nil }):
		text, _ := found.Val.([]byte)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(text)
	}
}

func (p *parts) state() []byte {
	if p.seen != nil && p.now().Sub(p.seenAt) < partsKept {
		return p.seen
	}
	ctx, cancel := context.WithTimeout(context.Background(), partsLimit)
	defer cancel()
	type state struct {
		Name string `json:"name"`
		Well bool   `json:"well"`
	}
	found := struct {
		Parts []state `json:"parts"`
	}{make([]state, len(p.list))}
	var group sync.WaitGroup
	for i, part := range p.list {
		group.Go(func() { found.Parts[i] = state{part.Name, part.Check(ctx) == nil} })
	}
	group.Wait()
	p.seen, _ = json.Marshal(found) // names and truths can be told in JSON
	p.seenAt = p.now()
	return p.seen
}
