"""Who may do what with a lease: one check that every route passes through.

A token is good where its signature is by a key that the ledger names for the lease's owner, it is addressed to this
provider and this lease, and it lives for at most five minutes. A lease of somebody else is answered like none at all.
"""

import base64
import re
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey

from ledger.protocol.keys import is_refused_point
from marketplace.protocol.ids import parse_lease
from provider.client import MAX_TOKEN_S
from provider.gateway.problem import Problem, no_such_lease, unauthorised
from provider.leases.ledger import Ledger, LedgerUnreachable, TokenKeys

LEEWAY_S: Final = 30
"""How far clocks of tenant and provider may differ."""

FRESH_S: Final = 10.0
"""A key read from the ledger is believed this long: a revoked delegation works no longer than that."""

STALE_S: Final = 600.0
"""And this long while the ledger does not answer."""

# RFC 9864 names the curve, `EdDSA` is what most libraries still write: the same signature under both names.
warnings.filterwarnings("ignore", category=SecurityWarning, message="EdDSA is deprecated")
ALGORITHMS: Final = ["Ed25519", "EdDSA"]


class Gatekeeper:
    """`now_s` gives Unix time in seconds."""

    def __init__(self, ledger: Ledger, provider: str, *, now_s: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._provider = provider
        self._now_s = now_s
        self._keys: dict[str, tuple[float, TokenKeys]] = {}
        self._lock = threading.Lock()

    def check(self, authorization: str, lease: str, scope: str) -> None:
        """Return where the token may use `scope` on the lease; Problem otherwise."""
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise unauthorised("there is no bearer token")
        key, claims = self._verified(token.strip())
        self._check_claims(claims)
        owner = _owner_of(lease, self._provider)
        if claims["iss"] != owner:
            raise no_such_lease()
        if claims["sub"] != lease:
            raise Problem(403, "WRONG_LEASE", "the token is for another lease", fix="make one for this lease")
        if scope not in str(claims.get("scope", "")).split():
            raise Problem(403, "WRONG_SCOPE", f"the token does not allow {scope!r}", fix=f"make one with the scope {scope!r}")
        if not self._may_sign(owner, key):
            raise unauthorised("its key is neither the account's nor delegated for the gateway")

    def _verified(self, token: str) -> tuple[str, dict[str, Any]]:
        """(key in hex, claims) of a token whose signature by the key it names is good."""
        if len(token) > 4096:
            raise unauthorised("it is too long")
        named = ""

        def key_of(found: Any) -> OKPKey:
            nonlocal named
            named = str(found.headers().get("kid", ""))
            if not re.fullmatch(r"[0-9a-f]{64}", named) or is_refused_point(bytes.fromhex(named)):
                raise ValueError("kid is not a key")
            x = base64.urlsafe_b64encode(bytes.fromhex(named)).rstrip(b"=").decode()
            return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})

        try:
            decoded = jwt.decode(token, key_of, algorithms=ALGORITHMS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise unauthorised(f"it cannot be verified ({type(error).__name__})") from None
        if not isinstance(decoded.claims, dict):
            raise unauthorised("it has no claims")
        return named, decoded.claims

    def _check_claims(self, claims: dict[str, Any]) -> None:
        now = self._now_s()
        issued, expires = claims.get("iat"), claims.get("exp")
        times = [t for t in (issued, expires) if isinstance(t, int | float) and not isinstance(t, bool)]
        if len(times) != 2:
            raise unauthorised("it needs iat and exp")
        if times[1] - times[0] > MAX_TOKEN_S or times[1] > now + MAX_TOKEN_S + LEEWAY_S:
            raise unauthorised(f"it lives for more than {MAX_TOKEN_S} s")
        if times[1] + LEEWAY_S <= now:
            raise unauthorised("it has expired; compare your clock with the provider's")
        if times[0] - LEEWAY_S > now:
            raise unauthorised("it is of the future; compare your clock with the provider's")
        if claims.get("aud") != self._provider:
            raise unauthorised("it is addressed to another provider")
        if not isinstance(claims.get("iss"), str) or not isinstance(claims.get("sub"), str):
            raise unauthorised("it needs iss and sub")

    def _may_sign(self, owner: str, key: str) -> bool:
        keys = self._keys_of(owner)
        return key == keys.key or keys.delegated.get(key, -1) > self._ledger.now_ms()

    def _keys_of(self, owner: str) -> TokenKeys:
        now = time.monotonic()
        with self._lock:
            at, found = self._keys.get(owner, (float("-inf"), None))
        if found is not None and now - at < FRESH_S:
            return found
        try:
            fresh = self._ledger.token_keys(owner)
        except LedgerUnreachable as error:
            if found is not None and now - at < STALE_S:
                return found
            raise Problem(503, "LEDGER_UNREACHABLE", "the ledger does not answer", str(error), "try again soon") from None
        with self._lock:
            if len(self._keys) > 10_000:
                self._keys.clear()
            self._keys[owner] = (now, fresh)
        return fresh


def _owner_of(lease: str, provider: str) -> str:
    """The owner by the id itself; a lease of another provider is none of ours."""
    try:
        parts = parse_lease(lease)
    except ValueError:
        raise no_such_lease() from None
    if parts.provider != provider or parts.text != lease:
        raise no_such_lease()
    return parts.owner
