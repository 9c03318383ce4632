"""Measure what open websockets cost a store, and how soon they close: `python -m bench.sockets [--sockets N]`.

Each row opens the sockets of so many sessions on one store, counts the loads of some idle seconds, then revokes some of
the sessions and takes the time until their sockets are closed. "polled" hides from the adapter that the store can be
watched; "elsewhere" revokes through another store on the same file, as another process would.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from typing import Any

from bench.applications import signed_in
from coatcheck import AsyncRegistry, MemoryStore, SessionManager, open_async_store
from coatcheck.adapters.asgi import SessionMiddleware
from coatcheck.core.model import Handle, Record


class Counted:
    """A store whose loads are counted."""

    def __init__(self, store: Any, *, watched: bool) -> None:
        self.store, self.loads = store, 0
        for name in ("commit", "epochs", "listeners", *(["watch"] if watched else [])):
            setattr(self, name, getattr(store, name))

    async def load(self, handle: Handle) -> Record | None:
        self.loads += 1
        found: Record | None = await self.store.load(handle)
        return found


class Socket:
    """One open websocket."""

    def __init__(self, app: SessionMiddleware, cookie: bytes) -> None:
        headers = [(b"host", b"localhost"), (b"origin", b"https://localhost"), (b"cookie", cookie)]
        scope = {"type": "websocket", "scheme": "https", "path": "/", "headers": headers}
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})
        self.outbox: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(app(scope, self.inbox.get, self.outbox.put))


async def listen(_scope: Any, receive: Any, send: Any) -> None:
    """Accept, and wait for the end."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def row(name: str, store: Any, other: Any, chosen: argparse.Namespace, *, watched: bool) -> None:
    """Measure and print one row."""
    manager = SessionManager(origins=["https://localhost"])
    counted = Counted(store, watched=watched)
    app = SessionMiddleware(listen, store=counted, manager=manager)
    handles, sockets = [], []
    for _ in range(chosen.sockets):
        cookie, insert = signed_in(manager)
        await store.commit(os.urandom(16), (insert,), durable=False)
        handles.append(insert.record.handle)
        sockets.append(Socket(app, cookie))
    for socket in sockets:
        await socket.outbox.get()
    await asyncio.sleep(1)
    counted.loads, used, began = 0, time.process_time(), time.monotonic()
    await asyncio.sleep(chosen.seconds)
    took = time.monotonic() - began
    rate, load = counted.loads / took, (time.process_time() - used) / took * 100
    registry, times = AsyncRegistry(other), []
    for handle, socket in list(zip(handles, sockets, strict=True))[:20]:
        began = time.monotonic()
        await registry.revoke(handle)
        await socket.outbox.get()
        times.append((time.monotonic() - began) * 1000)
    print(f"{name:22} {rate:9.0f} {load:6.1f} {statistics.median(times):9.1f} {max(times):9.1f}")
    for socket in sockets:
        socket.task.cancel()
    await asyncio.gather(*(socket.task for socket in sockets), return_exceptions=True)


async def measured(chosen: argparse.Namespace) -> None:
    """Print the rows."""
    print(f"{chosen.sockets} sockets")
    print(f"{'store':22} {'loads/s':>9} {'cpu %':>6} {'closed ms':>9} {'max':>9}")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/sockets.db"
        for name, watched in (("polled", False), ("watched", True)):
            memory = MemoryStore().as_async()
            await row(f"memory, {name}", memory, memory, chosen, watched=watched)
            one, two = open_async_store(url), open_async_store(url)
            await row(f"sqlite, {name}", one, one, chosen, watched=watched)
            if watched:
                await row("sqlite, elsewhere", one, two, chosen, watched=True)
            await one.close()
            await two.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sockets", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--sockets", type=int, default=1000, help="open sockets, each of a session (default 1000)")
    parser.add_argument("--seconds", type=float, default=35.0, help="idle seconds to count loads in (default 35)")
    asyncio.run(measured(parser.parse_args()))


if __name__ == "__main__":
    main()
