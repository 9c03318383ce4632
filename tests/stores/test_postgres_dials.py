"""A connection to PostgreSQL that could not be made in time leaves nothing open, whenever the garbage is collected."""

import asyncio
import gc
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from coatcheck import StoreError, open_async_store, open_store

DIALS = 3


@pytest.fixture
def hole() -> Iterator[tuple[str, socket.socket]]:
    """Return the URL of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        yield f"postgresql://ann:secret@127.0.0.1:{port}/shop?load_deadline=0.1&commit_deadline=0.1", listening


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def hung_up(listening: socket.socket) -> bool:
    """Tell whether every caller hangs up within half a minute."""
    callers = []
    listening.settimeout(0)
    with suppress(BlockingIOError):
        while True:
            callers.append(listening.accept()[0])
    assert callers
    end = time.monotonic() + 30.0
    for caller in callers:
        with caller:
            caller.settimeout(max(0.1, end - time.monotonic()))
            try:
                while caller.recv(4096):
                    continue
            except TimeoutError:
                return False
            except ConnectionResetError:
                continue
    return True


async def test_an_awaited_dial_that_was_given_up_is_hung_up(hole: tuple[str, socket.socket]) -> None:
    store, listening = open_async_store(hole[0]), hole[1]
    kept: list[Any] = []
    for _ in range(DIALS):
        with pytest.raises(StoreError) as raised:
            await store.load("handle")
        kept.append(raised.value)  # as an error tracker does
        del raised
    assert await asyncio.to_thread(hung_up, listening)


def test_a_blocking_dial_that_was_given_up_is_hung_up(hole: tuple[str, socket.socket]) -> None:
    store, listening = open_store(hole[0]), hole[1]
    for _ in range(DIALS):
        with pytest.raises(StoreError):
            store.load("handle")
    assert hung_up(listening)
