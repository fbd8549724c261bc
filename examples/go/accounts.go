package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	accountWait   = "10s"            // how long a call waits for a change
	answerTimeout = 20 * time.Second // of a call, the wait included
	maxAccounts   = 1000             // of one FindMissingAccounts
)

// follower follows the accounts of the gateway, and erases what the store has about those
// that are deleted.
type follower struct {
	store           *store
	gateway, secret string
	client          http.Client
}

// refusal is an error of the gateway.
type refusal struct {
	code       string
	retryAfter time.Duration
}

func (r refusal) Error() string { return "the gateway refuses: " + r.code }

// run reads account events for ever.
func (f *follower) run(ctx context.Context) {
	failed := false // an outage is logged once
	for ctx.Err() == nil {
		err := f.step(ctx)
		refused, isRefusal := errors.AsType[refusal](err)
		// The only failed precondition is CURSOR_EXPIRED: read from the beginning.
		if isRefusal && refused.code == "failed_precondition" && f.store.read().Cursor != "" {
			err = f.store.erase(nil, "", true)
		}
		if err == nil {
			failed = false
			continue
		}
		if !failed {
			log.Printf("account events: not read, retrying: %v", err)
		}
		failed = true
		time.Sleep(max(time.Second, refused.retryAfter))
	}
}

// step reads once. The cursor of the call confirms what was erased before.
func (f *follower) step(ctx context.Context) error {
	var answer struct {
		Events []struct {
			AccountID string `json:"accountId"`
			Deleted   bool   `json:"deleted"`
		} `json:"events"`
		Cursor string `json:"cursor"`
		More   bool   `json:"more"`
	}
	before := f.store.read()
	if err := f.call(ctx, "WatchAccounts", map[string]any{"cursor": before.Cursor, "wait": accountWait}, &answer); err != nil {
		return err
	}
	// A deletion is the last event of an account, so that versions need no comparison.
	var deleted []string
	for _, event := range answer.Events {
		if event.Deleted {
			deleted = append(deleted, event.AccountID)
		}
	}
	if len(deleted) > 0 || answer.Cursor != before.Cursor {
		if err := f.store.erase(deleted, answer.Cursor, before.Incomplete); err != nil {
			return err
		}
	}
	if !before.Incomplete || answer.More {
		return nil
	}
	return f.eraseMissing(ctx)
}

// eraseMissing erases accounts whose deletion is no longer among the events.
func (f *follower) eraseMissing(ctx context.Context) error {
	now := f.store.read()
	var missing []string
	for page := range slices.Chunk(now.people(), maxAccounts) {
		var answer struct {
			AccountIDs []string `json:"accountIds"`
		}
		if err := f.call(ctx, "FindMissingAccounts", map[string]any{"accountIds": page}, &answer); err != nil {
			return err
		}
		missing = append(missing, answer.AccountIDs...)
	}
	return f.store.erase(missing, now.Cursor, false)
}

func (f *follower) call(ctx context.Context, method string, request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, f.gateway+"/service.v1.AccountFeedService/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	post.Header.Set("Content-Type", "application/json")
	post.Header.Set("Authorization", "Bearer "+f.secret)
	response, err := f.client.Do(post)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return json.NewDecoder(response.Body).Decode(answer)
	}
	var failure struct {
		Code string `json:"code"`
	}
	if err := json.NewDecoder(response.Body).Decode(&failure); err != nil {
		return fmt.Errorf("the gateway answers %s", response.Status)
	}
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return refusal{failure.Code, time.Duration(seconds) * time.Second}
}
