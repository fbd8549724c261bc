"""An API that people call with their access token, in FastAPI with PyJWT."""

import json
import os
import threading
import time
import urllib.request
from typing import Optional

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

ISSUER = os.environ["GATEHOUSE_URL"]  # such as "https://gatehouse.example.com"


class KeysUnavailable(Exception):
    """The keys have never been fetched. The token may be valid."""


class Keys(jwt.PyJWKClient):
    """Fetches the keys at most once in 10 s, because anybody can send an unknown one."""

    def __init__(self, uri):
        super().__init__(uri, lifespan=300)
        self._lock = threading.Lock()
        self._keys = None
        self._next_fetch = 0.0

    def fetch_data(self):
        # One fetch for all concurrent callers, who wait for it only while there are no keys.
        if self._lock.acquire(blocking=self._keys is None):
            try:
                if time.monotonic() >= self._next_fetch:
                    self._fetch()
            finally:
                self._lock.release()
        if self._keys is None:
            raise KeysUnavailable
        return self._keys

    def _fetch(self):
        try:
            with urllib.request.urlopen(self.uri, timeout=5) as response:
                found = [key for key in json.load(response)["keys"] if key.get("crv") == "Ed25519"]
            if not found:
                raise ValueError("no keys")
            self._keys = {"keys": found}
            self._next_fetch = time.monotonic() + 10
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            self._next_fetch = time.monotonic() + 1
        if self._keys is not None:  # after a failure, those of before stay in use
            self.jwk_set_cache.put(self._keys)


keys = Keys(ISSUER + "/.well-known/jwks.json")


def refused(message):
    return HTTPException(401, message, headers={"WWW-Authenticate": "Bearer"})


def identity(sent: Optional[HTTPAuthorizationCredentials] = Depends(HTTPBearer(auto_error=False))):
    """Returns the claims of the caller's access token."""
    if sent is None:
        raise refused('Access token is missing. Sign in, and send it as "Authorization: Bearer …".')
    try:
        header = jwt.get_unverified_header(sent.credentials)
        if str(header.get("typ")).lower() not in ("at+jwt", "application/at+jwt"):
            raise jwt.InvalidTokenError("not an access token by its type")
        return jwt.decode(
            sent.credentials,
            keys.get_signing_key(header.get("kid")).key,
            algorithms=["EdDSA"],
            issuer=ISSUER,
            audience="gatehouse",
            leeway=30,  # seconds that the clocks may differ
            options={"require": ["iss", "aud", "sub", "iat", "exp"]},
        )
    except KeysUnavailable:
        raise HTTPException(503, "The keys of the issuer are unavailable. Try again.", headers={"Retry-After": "1"})
    except (jwt.PyJWTError, RecursionError):  # a forged header may be nested without end
        raise refused("Access token is not valid. Refresh it, or sign in again.")


app = FastAPI()


@app.get("/orders")
def orders(caller: dict = Depends(identity)):
    return {"owner": caller["sub"], "all": "admin" in caller["roles"]}
