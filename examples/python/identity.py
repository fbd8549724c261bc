"""Verification of the gateway's identity tokens, with PyJWT and cryptography."""

import json
import threading
import time
import urllib.request

import jwt

LEEWAY = 30  # seconds that the clocks of the gateway and the service may differ
MAX_LIFE = 60  # seconds
REFRESH_AFTER = 300  # seconds, so that a withdrawn key is no longer valid
MIN_INTERVAL = 10  # seconds between fetches for unknown keys: anybody can send one
RETRY_INTERVAL = 1  # seconds between failed fetches


class KeysUnavailable(Exception):
    """The gateway's keys have never been fetched. The token may be valid."""


class Verifier:
    """Verifies identity tokens of one gateway for one service."""

    def __init__(self, issuer, audience, keys_url=None):
        self._issuer = issuer
        self._audience = audience
        self._url = keys_url or issuer.rstrip("/") + "/.well-known/identity-jwks.json"
        self._lock = threading.Lock()
        self._keys = None
        self._fetched = self._next_fetch = 0.0

    def verify(self, token):
        """Returns the claims of a token; without "sub" the caller is not signed in.

        Raises jwt.InvalidTokenError or KeysUnavailable.
        """
        header = jwt.get_unverified_header(token)
        # It tells an identity token from an access token, which has another audience too.
        if str(header.get("typ")).lower() not in ("identity+jwt", "application/identity+jwt"):
            raise jwt.InvalidTokenError("not an identity token by its type")
        if any(name in header for name in ("jwk", "jku", "x5u", "x5c", "crit")):
            raise jwt.InvalidTokenError("a header that is not allowed")
        claims = jwt.decode(
            token,
            self._key(header.get("kid")),
            algorithms=["EdDSA"],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY,
            options={"require": ["iss", "aud", "iat", "exp"]},
        )
        # With two audiences, one of them could present the token to the other.
        if claims["aud"] not in (self._audience, [self._audience]):
            raise jwt.InvalidAudienceError("for another service too")
        # PyJWT accepts numbers in quotes, which JSON Web Tokens do not have.
        if not all(isinstance(claims[name], (int, float)) for name in ("exp", "iat")):
            raise jwt.InvalidTokenError("a lifetime that is no number")
        if claims["exp"] - claims["iat"] > MAX_LIFE:
            raise jwt.InvalidTokenError("it lives too long")
        return claims

    def _key(self, kid):
        with self._lock:  # one fetch for all concurrent callers
            now = time.monotonic()
            stale = self._keys is None or kid not in self._keys or now - self._fetched >= REFRESH_AFTER
            if stale and now >= self._next_fetch:
                self._fetch(now)
            if self._keys is None:
                raise KeysUnavailable
            if kid not in self._keys:
                raise jwt.InvalidTokenError("an unknown key")
            return self._keys[kid]

    def _fetch(self, now):
        try:
            with urllib.request.urlopen(self._url, timeout=5) as response:
                jwks = json.loads(response.read(1 << 16))["keys"]
            self._keys = {
                key["kid"]: jwt.PyJWK(key, "EdDSA").key
                for key in jwks
                if key.get("kty") == "OKP" and key.get("crv") == "Ed25519" and key.get("kid")
            }
            self._fetched, self._next_fetch = now, now + MIN_INTERVAL
        except (OSError, ValueError, KeyError):
            self._next_fetch = now + RETRY_INTERVAL  # the keys that are there stay in use
