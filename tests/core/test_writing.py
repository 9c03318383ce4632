"""What a handler writes is what is stored, whichever short cut told that most of it did not change."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck import DataError, MemoryStore, SessionManager
from coatcheck.core import codec
from coatcheck.core.model import Request
from coatcheck.core.session import Session
from coatcheck.flow.sync import Exchange
from coatcheck.testing import Clock, sign_in

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | st.binary(max_size=9)
)
OURS = (
    st.datetimes(timezones=st.just(UTC)) | st.dates() | st.uuids() | st.decimals(allow_nan=False) | st.tuples(st.text())
)
VALUES = st.recursive(SCALARS | OURS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
NAMES = st.text(max_size=4)


class House:
    """A store with one logged-in session, and requests to it."""

    def __init__(self, data: dict[str, Any]) -> None:
        clock = Clock()
        self.store = MemoryStore(clock=clock)
        self.exchange = Exchange(SessionManager(clock=clock, origins=["https://shop.test"]), self.store)
        name, value = sign_in(self.store, "alice", data=data)
        self.handle = value.split(".")[1]
        self.request = Request("GET", "https", "/", [(b"cookie", f"{name}={value}".encode())])

    def session(self) -> Session:
        session = self.exchange.begin(self.request)
        assert isinstance(session, Session)
        return session

    def stored(self) -> bytes:
        record = self.store.load(self.handle)
        assert record is not None
        return record.data

    def finish(self, session: Session) -> None:
        self.exchange.finish(session, 200, [])
        self.exchange.close(session)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, SCALARS), st.dictionaries(NAMES, VALUES))
def test_what_is_set_is_stored_as_if_every_value_were_looked_at(
    data: dict[str, Any], plain: dict[str, Any], any_values: dict[str, Any]
) -> None:
    house = House(data)
    session = house.session()
    session.update(plain)
    house.finish(session)
    assert house.stored() == codec.encode(data | plain)
    session = house.session()
    session.update(any_values)
    house.finish(session)
    assert house.stored() == codec.encode(data | plain | any_values)


RICH: list[Any] = [datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), UUID(int=7), Decimal("1.0"), (1,), {2}, 2**80]


@pytest.mark.parametrize("rich", RICH, ids=lambda value: type(value).__name__)
def test_a_plain_value_beside_a_rich_one_leaves_it_what_it_is(rich: object) -> None:
    house = House({"rich": rich})
    session = house.session()
    session["plain"] = 1
    house.finish(session)
    assert house.session().copy() == {"rich": rich, "plain": 1}
    assert type(house.session()["rich"]) is type(rich)


@pytest.mark.parametrize("write", [{7: "x"}, {None: 1}, {"x": object()}, {"x": [{"y": {1: object()}}]}])
def test_a_write_that_cannot_be_kept_is_refused_whatever_was_there_before(write: dict[Any, Any]) -> None:
    house = House({"cart": [1]})
    before = house.stored()
    session = house.session()
    session.update(write)
    with pytest.raises(DataError):
        house.exchange.finish(session, 200, [])
    assert house.stored() == before


def test_a_change_of_what_was_handed_out_counts_even_after_the_response_started() -> None:
    house = House({"cart": ["hat"], "n": 1})
    session = house.session()
    cart = session["cart"]
    house.exchange.finish(session, 200, [])
    cart.append("coat")
    house.exchange.close(session)
    assert house.session().copy() == {"cart": ["hat", "coat"], "n": 1}


def test_a_change_of_typed_data_counts_even_after_the_response_started() -> None:
    house = House({"a": []})
    session = house.session()
    kind = TypedDict("kind", {"a": list[int]})  # noqa: UP013 - local to this test
    typed = session.as_type(kind)
    house.exchange.finish(session, 200, [])
    typed.data["a"].append(1)
    house.exchange.close(session)
    assert codec.decode(house.stored()) == {"a": [1]}


def test_a_change_of_what_was_put_in_counts_even_after_the_response_started() -> None:
    house = House({"n": 1})
    session, cart = house.session(), ["hat"]
    session["cart"] = cart
    house.exchange.finish(session, 200, [])
    cart.append("coat")
    house.exchange.close(session)
    assert house.session()["cart"] == ["hat", "coat"]


@pytest.mark.parametrize(
    "reach",
    [
        lambda session: session["cart"],
        lambda session: session.get("cart"),
        lambda session: session.setdefault("cart", []),
        lambda session: session.copy()["cart"],
        lambda session: next(value for value in session.values() if isinstance(value, list)),
        lambda session: dict(session.items())["cart"],
        lambda session: (session | {})["cart"],
    ],
)
def test_however_a_value_is_reached_its_change_is_stored(reach: Any) -> None:
    house = House({"n": 1, "cart": ["hat"]})
    session = house.session()
    reach(session).append("coat")
    house.finish(session)
    assert house.session()["cart"] == ["hat", "coat"]


def test_taking_from_a_session_that_is_not_stored_yet_counts_as_a_write() -> None:
    house = House({})
    house.request = Request("GET", "https", "/", [])
    session = house.session()
    assert house.exchange.bump(session, "tries") == 1
    house.exchange.finish(session, 200, [])
    assert session.handle is not None
    record = house.store.load(session.handle)
    assert record is not None
    assert codec.decode(record.data) == {"tries": 1}
