"""Follows the gateway's account events, with nothing but the standard library."""

import http.client
import json
import sys
import time
import urllib.error
import urllib.request

WAIT = "10s"  # how long a call waits for a change
TIMEOUT = 20  # seconds


def follow(store, gateway, secret):
    """Erases what store holds about deleted accounts, for ever.

    store has a cursor, people() and erase(ids, cursor, incomplete), which stores all of
    it at once or not at all.
    """
    failed = False  # an outage is logged once
    while True:
        try:
            step(store, gateway, secret)
            failed = False
            continue
        except urllib.error.HTTPError as error:
            # The only failed precondition is CURSOR_EXPIRED: read from the beginning.
            if store.cursor and code_of(error) == "failed_precondition":
                store.erase([], "", True)
                continue
            problem, seconds = error, float(error.headers.get("Retry-After") or 1)
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            problem, seconds = error, 1
        if not failed:
            print(f"account events: not read, retrying: {problem}", file=sys.stderr, flush=True)
        failed = True
        time.sleep(seconds)


def step(store, gateway, secret):
    """Reads once. The cursor of the call confirms what was erased before."""
    answer = call(gateway, secret, "WatchAccounts", {"cursor": store.cursor, "wait": WAIT})
    # A deletion is the last event of an account, so that versions need no comparison.
    deleted = [event["accountId"] for event in answer.get("events", []) if event.get("deleted")]
    if deleted or answer["cursor"] != store.cursor:
        store.erase(deleted, answer["cursor"], store.incomplete)
    if store.incomplete and not answer.get("more"):
        # Deletions of long ago are no longer among the events.
        people, missing = store.people(), []
        for first in range(0, len(people), 1000):
            request = {"accountIds": people[first : first + 1000]}
            missing += call(gateway, secret, "FindMissingAccounts", request).get("accountIds", [])
        store.erase(missing, store.cursor, False)


def call(gateway, secret, method, request):
    url = f"{gateway}/service.v1.AccountFeedService/{method}"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(request).encode(), headers), timeout=TIMEOUT) as response:
        return json.load(response)


def code_of(error):
    try:
        return json.load(error).get("code")
    except ValueError:
        return None
