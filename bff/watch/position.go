package watch

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"gatehouse/internal/opaque"
)

const (
	// reach is how old a cursor may be, by the clock of the database, in seconds.
	reach = 60
	// slack is how many seconds before its cursor a stream resumes. A service reads the
	// clock just after it has begun to read, so that the clock may be ahead of its rows.
	slack = 5
	// memory is how long changes are held: as long as any cursor can ask for.
	memory        = reach + slack + feedLag
	pruneInterval = 10 * time.Second
	// feedLag bounds the seconds by which a feed may be behind another gateway's.
	feedLag = 15
)

// position is a position in a feed: the database, and its clock in seconds when the feed
// had read everything before. Gateways are connected to different copies of a service,
// whose polls differ, so that a position is a time rather than a number of a row.
type position struct {
	database uint64 // a hash; 0 for an unknown one
	clock    int64
}

// positionOf parses the cursor of a feed: the database, a transaction, and the clock.
func positionOf(cursor string) position {
	first, last := strings.IndexByte(cursor, '.'), strings.LastIndexByte(cursor, '.')
	if first < 0 || first == last {
		return position{}
	}
	clock, err := strconv.ParseInt(cursor[last+1:], 10, 64)
	if err != nil {
		return position{}
	}
	sum := sha256.Sum256([]byte(cursor[:first]))
	return position{database: binary.BigEndian.Uint64(sum[:]) | 1, clock: clock}
}

// feed holds the recent changes of a change feed.
type feed struct {
	name  string
	heard time.Time
	at    position
	// since is the clock from which all changes are known.
	since int64
	// changes are the clocks of the latest change of each tag.
	changes map[string]int64
	pruned  time.Time
}

func newFeed(name string) *feed { return &feed{name: name, changes: map[string]int64{}} }

// take applies an update.
func (f *feed) take(now time.Time, complete bool, tags []string, cursor string) {
	at := positionOf(cursor)
	if complete || at.database != f.at.database {
		clear(f.changes)
		f.since = at.clock
	}
	f.heard, f.at = now, at
	for _, tag := range tags {
		f.changes[tag] = at.clock
	}
}

// reaches reports whether the changes since a position are known.
func (f *feed) reaches(from position) bool {
	// The changes of the update that began the feed are not known, so that a position must
	// be later than it by more than the slack.
	return from.database != 0 && from.database == f.at.database && f.at.clock-from.clock <= reach && from.clock-slack > f.since
}

// changed reports whether a tag may have changed since a position.
func (f *feed) changed(tag string, from position) bool {
	clock, ok := f.changes[tag]
	return ok && clock >= from.clock-slack
}

// prune drops changes before every position that can be resumed from.
func (f *feed) prune(now time.Time) {
	if now.Sub(f.pruned) < pruneInterval {
		return
	}
	f.pruned = now
	for tag, clock := range f.changes {
		if f.at.clock-clock > memory {
			delete(f.changes, tag)
		}
	}
}

const (
	cursorPrefix = "ghw_"
	macSize      = 16
	positionSize = 16
)

// sealer seals cursors, so that a client cannot make up a position.
type sealer struct{ keys [][]byte }

// newSealer derives the keys of a sealer from secrets. Without any, cursors are valid at
// this gateway only.
func newSealer(secrets [][]byte) sealer {
	if len(secrets) == 0 {
		own := make([]byte, sha256.Size)
		_, _ = rand.Read(own) // never fails
		secrets = [][]byte{own}
	}
	var s sealer
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "gatehouse watch cursor v1", sha256.Size)
		if err != nil {
			panic(err) // only if the length were wrong
		}
		s.keys = append(s.keys, key)
	}
	return s
}

func (s sealer) seal(positions []position) string {
	raw := make([]byte, macSize, macSize+positionSize*len(positions))
	for _, one := range positions {
		raw = binary.BigEndian.AppendUint64(raw, one.database)
		raw = binary.BigEndian.AppendUint64(raw, uint64(one.clock)) //nolint:gosec // its bits come back as they were
	}
	copy(raw, mac(s.keys[0], raw[macSize:]))
	return opaque.Encode(cursorPrefix, raw)
}

// open returns the positions of a cursor, and whether it is one of ours with that many.
func (s sealer) open(cursor string, feeds int) ([]position, bool) {
	raw, ok := opaque.Decode(cursorPrefix, cursor)
	if !ok || len(raw) != macSize+positionSize*feeds {
		return nil, false
	}
	genuine := false
	for _, key := range s.keys {
		genuine = genuine || hmac.Equal(raw[:macSize], mac(key, raw[macSize:]))
	}
	positions := make([]position, feeds)
	for i := range positions {
		at := macSize + i*positionSize
		positions[i] = position{
			database: binary.BigEndian.Uint64(raw[at:]), clock: int64(binary.BigEndian.Uint64(raw[at+8:])), //nolint:gosec // see seal
		}
	}
	return positions, genuine
}

func mac(key, text []byte) []byte {
	sum := hmac.New(sha256.New, key)
	sum.Write(text)
	return sum.Sum(nil)[:macSize]
}
