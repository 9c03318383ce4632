"""What is fuzzed of device binding: the proofs that browsers sign, and the headers of its two endpoints and its checks.

The good inputs are what Chromium 156 signed (tests/core/dbsc-vectors.json) and what a key of our own signs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.fuzz_targets import NAME, ORIGIN, Target
from coatcheck import MemoryStore, SessionManager
from coatcheck.core import proofs
from coatcheck.core.errors import Refusal
from coatcheck.core.model import Change, Conflict, Epochs, Handle, Record, Reply, Request, Update
from coatcheck.core.proofs import ProofError
from coatcheck.core.session import Session
from coatcheck.flow.sync import Exchange
from coatcheck.testing.clock import Clock
from tests.support.devices import DeviceKey

VECTORS = Path(__file__).parent.parent / "tests" / "core" / "dbsc-vectors.json"
ALGORITHMS = proofs.ALGORITHMS
REGISTER, REFRESH = b"/coatcheck/device/register", b"/coatcheck/device/refresh"
OUR_PAGE = ((b"host", b"shop.example"), (b"sec-fetch-site", b"same-origin"))


def proofs_of_devices() -> Target:
    """Proofs: no mutation of one is signed, neither by the key in it nor by the key that registered before."""
    recorded = [one["secure_session_response"].encode() for one in json.loads(VECTORS.read_text())["vectors"]]
    ours = [key.proof("A" * 75, register=True, authorization="B" * 24).encode() for key in map(DeviceKey, ALGORITHMS)]
    good = [*recorded, *ours]
    registered = [proofs.key_of(proof) for proof in map(proofs.read, good) if proof.jwk is not None]

    def read(raw: bytes) -> bool:
        proof = proofs.read(raw)
        keys = registered if proof.jwk is None else [proofs.key_of(proof)]
        return any(_signed(proof, key) for key in keys if key.alg == proof.alg)

    return Target("device proof", good, read, (ProofError,))


def _signed(proof: proofs.Proof, key: proofs.DeviceKey) -> bool:
    try:
        proofs.verify(proof, key.alg, key.der)
    except ProofError:
        return False
    return True


def device_headers() -> Target:
    """Header blocks at both endpoints and at a page: only a good proof is written down, only both cookies open a page.

    The first line is the path.
    """
    clock = Clock()
    manager = SessionManager(clock=clock, origins=[ORIGIN], binding="opportunistic")
    store = MemoryStore(clock=clock)
    known = [_Browser(Exchange(manager, store), alg) for alg in ALGORITHMS]
    unbound = [_Browser(Exchange(manager, store), alg) for alg in ALGORITHMS]
    for browser in known:
        browser.register()
        browser.look()
    clock.wind(100)  # requests without the bound cookie are no longer on their way
    good, keys = [], set()
    for browser in known:
        name, proof = browser.name, browser.key.proof(browser.challenge).encode()
        keys.add((name, proof))
        session = b"cookie: " + browser.cookie + b"\nsec-secure-session-id: "
        skipped = b'\nsecure-session-skipped: unreachable;session_identifier="%b", quota_exceeded' % name
        good += [
            REFRESH + b"\nsec-secure-session-id: " + name + b"\nsecure-session-response: " + proof,
            REFRESH + b"\n" + session + b'"' + name + b'"\nsecure-session-response: "' + proof + b'"; v=1',
            REFRESH + b"\nsecure-session-response: " + proof + b"\nsec-secure-session-id: " + name + skipped,
            b"/me\nsec-fetch-site: same-origin\n" + session + name + skipped,
        ]
    for browser in unbound:
        proof = browser.registration().encode()
        keys.add((browser.cookie, proof))
        good.append(REGISTER + b"\nsecure-session-response: " + proof + b"\ncookie: " + browser.cookie)
    still = _Still(store)
    exchange = Exchange(manager, still)
    jars = [browser.cookie.split(b"; ") for browser in known]

    def read(raw: bytes) -> bool:
        path, _, block = raw.partition(b"\n")
        lines = [line.partition(b":") for line in block.split(b"\n")]
        headers = [(b"host", b"shop.example"), *((name.strip().lower(), text.strip()) for name, _, text in lines)]
        method = "POST" if path in (REGISTER, REFRESH) else "GET"
        still.changes.clear()
        answer = exchange.begin(Request(method, "https", path.decode("latin-1"), headers, peer="192.0.2.7"))
        wrote = any(isinstance(change, Update) for change in still.changes)
        if isinstance(answer, Session):
            opened = answer.subject is not None and answer.is_bound
            if opened and not any(long in raw and short in raw for long, short in jars):
                message = "a session opened without both of its cookies"
                raise AssertionError(message)
            return opened
        handed = answer.status == 200 and any(name == b"set-cookie" for name, _ in answer.headers)
        if handed != wrote:
            message = "a bound cookie without a commit, or a commit without a proof"
            raise AssertionError(message)
        if handed and not any(name in raw and proof in raw for name, proof in keys):
            message = "a forged proof"
            raise AssertionError(message)
        return handed

    return Target("device headers", good, read, (Refusal,), forged=False)


class _Still:
    """A store that is read and stays what it is; `changes` are what was asked of it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.listeners: list[Any] = []
        self.changes: list[Change] = []

    def load(self, handle: Handle) -> Record | None:
        return self._store.load(handle)

    def commit(self, _commit_id: bytes, changes: Sequence[Change], _durable: bool) -> Conflict | None:
        self.changes += changes
        return None

    def epochs(self) -> Epochs:
        return self._store.epochs()


class _Browser:
    """A browser that logged in: its key, its cookies and what it was told."""

    def __init__(self, exchange: Exchange, alg: str) -> None:
        self.key = DeviceKey(alg)
        self.name = b""
        self.challenge = ""
        self._exchange = exchange
        session = self._begin("POST", "/login")
        assert isinstance(session, Session)
        session.login("ann")
        headers = exchange.finish(session, 200, ())
        assert not isinstance(headers, Reply)
        said = dict(headers)
        self.cookie = said[b"set-cookie"].partition(b";")[0]
        assert self.cookie.startswith(NAME)
        offer = said[b"secure-session-registration"].decode()
        self._offer = dict(re.findall(r'(\w+)="([^"]*)"', offer))

    def registration(self) -> str:
        """Return the proof that a registration brings."""
        return self.key.proof(self._offer["challenge"], register=True, authorization=self._offer["authorization"])

    def register(self) -> None:
        """Bind the session."""
        answer = self._begin("POST", REGISTER.decode(), (b"secure-session-response", self.registration().encode()))
        assert isinstance(answer, Reply)
        said = dict(answer.headers)
        challenge, _, name = said[b"secure-session-challenge"].decode().partition(";id=")
        self.challenge, self.name = challenge.strip('"'), name.strip('"').encode()
        self.cookie += b"; " + said[b"set-cookie"].partition(b";")[0]

    def look(self) -> None:
        """Come back with both cookies: from now on it is bound."""
        session = self._begin("GET", "/me")
        assert isinstance(session, Session)
        self._exchange.finish(session, 200, ())

    def _begin(self, method: str, path: str, *headers: tuple[bytes, bytes]) -> Session | Reply:
        cookie = ((b"cookie", self.cookie),) if hasattr(self, "cookie") else ()
        return self._exchange.begin(Request(method, "https", path, (*OUR_PAGE, *cookie, *headers)))
