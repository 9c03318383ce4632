"""Measure a refresh of a device-bound session: `python -m bench.dbsc [--blocks N]`.

What is measured is our processor time for one POST to the refresh endpoint, the store in memory: header, record, proof,
commit, answer. The browser's half (its signature) is made before the clock starts.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import re
import statistics
import time
from typing import Any

from coatcheck import MemoryStore, SessionManager
from coatcheck.adapters.asgi import SessionMiddleware
from tests.support.devices import DeviceKey

GOAL = 1000.0
"""Microseconds that a refresh may cost, as the project promises."""
REFRESHES = 200


async def bare(scope: Any, _receive: Any, send: Any) -> None:
    """Log in at /login, answer everything."""
    if scope["path"] == "/login":
        scope["session"].login("alice")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Caller:
    """A browser with a key, in front of an application."""

    def __init__(self, alg: str) -> None:
        """Start with an empty jar."""
        self.key = DeviceKey(alg)
        self.app = SessionMiddleware(
            bare, store=MemoryStore(), manager=SessionManager(origins=["https://app.test"], binding="opportunistic")
        )
        self.cookie = b""

    async def post(self, path: str, *headers: tuple[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the headers of an answer."""
        started: dict[str, Any] = {}

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.update(message)

        sent = [(b"host", b"app.test"), (b"sec-fetch-site", b"same-origin"), *headers]
        if self.cookie:
            sent.append((b"cookie", self.cookie))
        scope = {
            "type": "http",
            "method": "POST",
            "scheme": "https",
            "path": path,
            "headers": sent,
            "query_string": b"",
        }
        await self.app(scope, receive, send)
        if started["status"] != 200:
            message = f"{path} was answered by {started['status']}"
            raise RuntimeError(message)
        return dict(started["headers"])

    async def bind(self) -> tuple[str, str]:
        """Log in and register; return the identifier and the first challenge."""
        answer = await self.post("/login")
        self.cookie = answer[b"set-cookie"].partition(b";")[0]
        offer = answer[b"secure-session-registration"].decode()
        said = dict(re.findall(r'(\w+)="([^"]*)"', offer))
        proof = self.key.proof(said["challenge"], register=True, authorization=said["authorization"])
        return _challenge(await self.post("/coatcheck/device/register", (b"secure-session-response", proof.encode())))


def _challenge(answer: dict[bytes, bytes]) -> tuple[str, str]:
    challenge, _, name = answer[b"secure-session-challenge"].decode().partition(";id=")
    return name.strip('"'), challenge.strip('"')


async def block(caller: Caller, name: str, challenge: str) -> tuple[float, str]:
    """Return the seconds of processor time that one refresh took, and the next challenge."""
    spent = 0.0
    for _ in range(REFRESHES):
        proof = caller.key.proof(challenge).encode()
        began = time.process_time()
        answer = await caller.post(
            "/coatcheck/device/refresh",
            (b"sec-secure-session-id", name.encode()),
            (b"secure-session-response", proof),
        )
        spent += time.process_time() - began
        _, challenge = _challenge(answer)
    return spent / REFRESHES, challenge


async def main(blocks: int) -> bool:
    """Print a row for each algorithm; return whether all keep the goal."""
    kept = True
    print(f"{platform.python_implementation()} {platform.python_version()}, microseconds of processor time a refresh")
    for alg in ("ES256", "RS256"):
        caller = Caller(alg)
        name, challenge = await caller.bind()
        figures = []
        for _ in range(blocks):
            figure, challenge = await block(caller, name, challenge)
            figures.append(figure * 1e6)
        median = statistics.median(figures)
        kept = kept and median <= GOAL
        print(f"{alg}  {median:7.1f}   goal {GOAL:.0f}")
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=15)
    raise SystemExit(0 if asyncio.run(main(parser.parse_args().blocks)) else 1)
