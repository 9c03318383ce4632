"""What a store promises that keeps keys, as tests: subclass `KeptKeysContract`, give it your store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .clock import Clock
from .face import Face


class KeptKeysContract:
    """What every store promises that has `keys` and `put_key`; alone, or beside StoreContract.

    The values are wrapped: to a store they are bytes of any kind, some hundred of them.
    """

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock that the store reads."""
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Any:
        """Return the store to test."""
        raise NotImplementedError(KeptKeysContract.__doc__)

    @pytest.fixture
    def face(self, store: Any) -> Iterator[Face]:
        """Return the store, callable without await."""
        face = Face(store)
        yield face
        face.close()

    def test_a_new_store_keeps_no_keys(self, face: Face) -> None:
        """There is nothing that anybody could mistake for a key."""
        assert _keys(face) == {}

    def test_keys_come_back_as_they_went_in(self, face: Face) -> None:
        """Every byte counts, also those that are no text."""
        assert _put(face, "ring", bytes(range(256)), None) is True
        assert _put(face, "other", b"", None) is True
        assert _keys(face) == {"ring": bytes(range(256)), "other": b""}

    def test_a_key_is_put_in_the_place_of_the_one_that_was_seen(self, face: Face) -> None:
        """Compare and set: who saw an older value changes nothing, and is told."""
        assert _put(face, "ring", b"one", b"something") is False
        assert _put(face, "ring", b"one", None) is True
        assert _put(face, "ring", b"two", None) is False
        assert _put(face, "ring", b"two", b"zero") is False
        assert _keys(face) == {"ring": b"one"}
        assert _put(face, "ring", b"two", b"one") is True
        assert _put(face, "ring", b"three", b"one") is False
        assert _keys(face) == {"ring": b"two"}

    def test_of_many_who_saw_the_same_exactly_one_is_right(self, face: Face) -> None:
        """At once, in threads or as tasks of the loop."""
        was = None
        for turn in range(10):
            done = _together(face, [(b"%d-%d" % (turn, number), was) for number in range(8)])
            assert sorted(done) == [False] * 7 + [True]
            was = _keys(face)["ring"]
            assert was == b"%d-%d" % (turn, done.index(True))

    def test_keys_do_not_touch_the_generation(self, face: Face) -> None:
        """Nobody is logged out by a key."""
        before = face.epochs()
        _put(face, "generation", b"x", None)
        after = face.epochs()
        assert (after.generation, after.scopes) == (before.generation, before.scopes)


def _keys(face: Face) -> dict[str, bytes]:
    found: dict[str, bytes] = face._done(face.store.keys())
    return found


def _put(face: Face, name: str, value: bytes, was: bytes | None) -> bool:
    done: bool = face._done(face.store.put_key(name, value, was))
    return done


def _together(face: Face, puts: list[tuple[bytes, bytes | None]]) -> list[bool]:
    store = face.store
    if face._runner is None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(lambda put: store.put_key("ring", *put), puts))

    async def gathered() -> list[bool]:
        return list(await asyncio.gather(*(store.put_key("ring", *put) for put in puts)))

    return face._runner.run(gathered())
