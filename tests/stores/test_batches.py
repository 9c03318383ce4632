"""A batcher of loads: what travels together, what happens to whom when a batch fails, and who waits for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from coatcheck.core.errors import NotApplied, StoreError
from coatcheck.stores.batches import FLIGHTS, SIZE, Batcher

NO_SERVER = "no server"


class Server:
    """Answers with the handle itself, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.cut = 0

    async def fetch(self, handles: list[str]) -> Sequence[str | StoreError]:
        self.batches.append(handles)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cut += 1
            raise
        if "fatal" in handles:
            raise NotApplied(NO_SERVER)
        if "bug" in handles:
            raise ZeroDivisionError
        return [StoreError(f"{handle} does not decode") if handle.startswith("bad") else handle for handle in handles]


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def batcher(server: Server) -> Batcher[str]:
    return Batcher(server.fetch, within=0.2)


async def test_what_is_asked_in_one_turn_travels_together_and_each_handle_once(
    server: Server, batcher: Batcher[str]
) -> None:
    found = await asyncio.gather(*(batcher.load(handle) for handle in "abcab"))
    assert found == list("abcab")
    assert server.batches == [["a", "b", "c"]]


async def test_a_later_load_never_joins_a_batch_that_was_sent(server: Server, batcher: Batcher[str]) -> None:
    server.open.clear()
    first = batcher.load("a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server.batches == [["a"]]
    second = batcher.load("a")
    await asyncio.sleep(0.01)
    server.open.set()
    assert await asyncio.gather(first, second) == ["a", "a"]
    assert server.batches == [["a"], ["a"]]


async def test_batches_are_bounded_in_size_and_number(server: Server, batcher: Batcher[str]) -> None:
    server.open.clear()
    loads = [batcher.load(str(number)) for number in range(3 * SIZE + 5)]
    await asyncio.sleep(0.01)
    assert [len(batch) for batch in server.batches] == [SIZE] * FLIGHTS
    late = batcher.load("late")
    await asyncio.sleep(0.01)
    assert len(server.batches) == FLIGHTS
    server.open.set()
    assert await asyncio.gather(*loads, late) == [*(str(number) for number in range(3 * SIZE + 5)), "late"]
    assert [len(batch) for batch in server.batches] == [SIZE, SIZE, SIZE, 6]


async def test_a_result_that_is_an_error_is_its_own_callers_alone(batcher: Batcher[str]) -> None:
    loads = (batcher.load(handle) for handle in ("a", "bad", "bad", "b"))
    first, bad, worse, last = await asyncio.gather(*loads, return_exceptions=True)
    assert (first, last) == ("a", "b")
    assert repr(bad) == repr(worse) == "StoreError('bad does not decode')"
    assert bad is not worse


@pytest.mark.parametrize(
    ("handle", "kind", "words"), [("fatal", NotApplied, "no server"), ("bug", StoreError, "ZeroDivisionError")]
)
async def test_a_batch_that_fails_fails_all_of_it_and_nothing_else(
    batcher: Batcher[str], handle: str, kind: type[StoreError], words: str
) -> None:
    found: list[Any] = await asyncio.gather(batcher.load(handle), batcher.load("a"), return_exceptions=True)
    assert [type(one) for one in found] == [kind, kind]
    assert all(words in str(one) for one in found)
    assert found[0] is not found[1]
    assert await batcher.load("a") == "a"


async def test_a_caller_who_is_cancelled_takes_nobody_along(server: Server, batcher: Batcher[str]) -> None:
    server.open.clear()
    tasks = [asyncio.ensure_future(batcher.load(handle)) for handle in "abc"]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    server.open.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert (found[1:], server.cut) == (["b", "c"], 0)


async def test_what_nobody_waits_for_is_not_asked(server: Server, batcher: Batcher[str]) -> None:
    load = batcher.load("a")
    load.cancel()
    assert await batcher.load("b") == "b"
    assert server.batches == [["b"]]


async def test_each_caller_waits_from_his_own_call_and_a_batch_that_hangs_is_cut_off(
    server: Server, batcher: Batcher[str]
) -> None:
    server.open.clear()
    loop, begun = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    early = asyncio.ensure_future(batcher.load("a"))
    await asyncio.sleep(0.1)
    late = asyncio.ensure_future(batcher.load("b"))
    with pytest.raises(StoreError, match=r"did not answer within 0\.2 s"):
        await early
    assert 0.15 < loop.time() - begun < 0.29
    assert not late.done()
    with pytest.raises(StoreError, match=r"did not answer within 0\.2 s"):
        await late
    await asyncio.sleep(0.05)
    assert server.cut == 2
    server.open.set()
    assert await batcher.load("c") == "c"


async def test_who_waits_behind_full_flights_has_a_deadline_too() -> None:
    sent = []

    async def slow(handles: list[str]) -> list[str]:
        sent.append(handles)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1.5)  # that is how long this one takes to close its connection
        return handles

    batcher: Batcher[str] = Batcher(slow, within=0.1)
    flying = []
    for handle in "ab":
        flying.append(batcher.load(handle))
        await asyncio.sleep(0.03)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(StoreError, match="did not answer"):
        await batcher.load("c")
    assert asyncio.get_running_loop().time() - begun < 1.0
    assert sent == [["a"], ["b"]]
    for load in flying:
        with pytest.raises(StoreError):
            await load


async def test_close_keeps_nobody_waiting(server: Server, batcher: Batcher[str]) -> None:
    server.open.clear()
    sent = batcher.load("a")
    await asyncio.sleep(0.01)
    queued = batcher.load("b")
    batcher.close()
    for load in (sent, queued):
        with pytest.raises(StoreError, match="closed"):
            await load
    await asyncio.sleep(0.01)
    assert server.cut == 1
