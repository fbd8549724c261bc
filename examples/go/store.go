package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
)

// entry is how many of a thing are left, and the user who last set that; "" if their
// account was deleted.
type entry struct {
	Quantity int32  `json:"quantity"`
	SetBy    string `json:"set_by,omitempty"`
}

// store keeps the stock in one file. A database would do the same in transactions: what
// an event erases and the cursor after it are stored together or not at all.
type store struct {
	path  string
	mu    sync.Mutex
	state state
}

// state is what the file has. It is replaced as a whole, so that readers need no lock
// for what they were given.
type state struct {
	Stock map[string]entry `json:"stock"`
	// Erased are deleted accounts, so that a late call stores nothing about one.
	Erased []string `json:"erased"`
	// Cursor is how far the account events are applied.
	Cursor string `json:"cursor"`
	// Incomplete says that events may have been missed, because the cursor had expired.
	Incomplete bool `json:"incomplete"`
}

func openStore(path string) (*store, error) {
	s := &store{path: path, state: state{Stock: map[string]entry{"paper tape": {Quantity: 3}}}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.state = state{}
	if err := json.Unmarshal(text, &s.state); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

func (s *store) read() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// people are the users about whom the store has data.
func (s state) people() []string {
	var people []string
	for _, one := range s.Stock {
		if one.SetBy != "" {
			people = append(people, one.SetBy)
		}
	}
	slices.Sort(people)
	return slices.Compact(people)
}

var errAccountDeleted = errors.New("the account was deleted")

// set stores how many of a thing are left.
func (s *store) set(thing string, one entry) error {
	return s.change(func(changed *state) error {
		if slices.Contains(changed.Erased, one.SetBy) {
			return errAccountDeleted
		}
		changed.Stock[thing] = one
		return nil
	})
}

// erase forgets what people have set, and stores the position in the account events.
func (s *store) erase(people []string, cursor string, incomplete bool) error {
	return s.change(func(changed *state) error {
		for thing, one := range changed.Stock {
			if slices.Contains(people, one.SetBy) {
				changed.Stock[thing] = entry{Quantity: one.Quantity}
			}
		}
		changed.Erased = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(changed.Erased), people...))))
		changed.Cursor, changed.Incomplete = cursor, incomplete
		return nil
	})
}

// change writes a changed state to the file. If that fails, nothing has changed.
func (s *store) change(edit func(*state) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.state
	changed.Stock = maps.Clone(changed.Stock)
	if err := edit(&changed); err != nil {
		return err
	}
	text, err := json.Marshal(changed)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(s.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), s.path); err != nil {
		return err
	}
	s.state = changed
	return nil
}
