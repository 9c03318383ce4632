"""What a read asks of its store, whatever rules are on: one record, and nothing else (the short `bench.reads`)."""

import time

import pytest

from bench.reads import Counted, Row, rows


@pytest.mark.parametrize("row", rows(time.time()), ids=lambda row: row.name)
async def test_no_rule_adds_a_trip_to_a_read(row: Row) -> None:
    counted = Counted(row)
    await counted.prepare()
    assert await counted.counted(20) == (1.0, 0.0)


async def test_a_trip_too_many_would_be_seen() -> None:
    """A first sight is written once: the very read that the others leave out."""
    counted = Counted(Row("unseen", {"used_at": None}))
    await counted.case.prepare()
    assert await counted.counted(4) == (1.0, 0.25)
