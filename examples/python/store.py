"""The quotes, in one file, which is written as a whole or not at all."""

import json
import os
import threading


class Store:
    def __init__(self, path):
        self._path = path
        self._lock = threading.Lock()
        self._state = {
            "quotes": [["The Analytical Engine weaves algebraical patterns.", ""]],
            "erased": [],  # deleted accounts, so that a late call stores nothing for one
            "cursor": "",  # how far the account events are applied
            "incomplete": False,  # whether events may have been missed
        }
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self._state = json.load(file)

    @property
    def cursor(self):
        return self._state["cursor"]

    @property
    def incomplete(self):
        return self._state["incomplete"]

    @property
    def quotes(self):
        """The text and the user of each quote; the user is "" if the account was deleted."""
        return self._state["quotes"]

    def people(self):
        """The ids of the people about whom the store has data."""
        return sorted({user for _, user in self.quotes if user})

    def add(self, text, user):
        """Stores a quote and returns its number; None if the account of its user was deleted."""
        with self._lock:
            if user in self._state["erased"]:
                return None
            self._save(quotes=self.quotes + [[text, user]])
            return len(self.quotes) - 1

    def drop(self):
        with self._lock:
            self._save(quotes=self.quotes[:1])

    def erase(self, people, cursor, incomplete):
        """Erases who added quotes, and stores the position in the account events."""
        with self._lock:
            self._save(
                quotes=[[text, "" if user in people else user] for text, user in self.quotes],
                erased=sorted({*self._state["erased"], *people}),
                cursor=cursor,
                incomplete=incomplete,
            )

    def _save(self, **changes):
        state = {**self._state, **changes}
        with open(self._path + ".new", "w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._path + ".new", self._path)
        self._state = state
