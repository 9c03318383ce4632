"""The codec keeps what it says it keeps, refuses the rest by name, and meets damage with one answer."""

import enum
import math
import pickle
import struct
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coatcheck.core.codec import UnknownVersion, decode, encode, is_unchanged
from coatcheck.core.errors import DataError


def exactly(one, other):
    """Tell whether two values are the same in every respect that a handler could see, types and order included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(map(repr, one)) == list(map(repr, other)) and all(exactly(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(exactly, one, other))
    if isinstance(one, set):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, int):
        return one == other
    if isinstance(one, datetime):
        return (one.isoformat(), one.fold) == (other.isoformat(), other.fold)
    return repr(one) == repr(other)


offsets = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | offsets)
    | st.builds(lambda value: value.replace(fold=1), st.datetimes())
    | st.uuids()
    | st.decimals(),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=5,
)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner, max_size=4)
        | st.sets(hashable.filter(lambda value: "sNaN" not in repr(value)), max_size=4)
    ),
    max_leaves=12,
)
sessions = st.dictionaries(st.text(), values, max_size=6)


@given(sessions)
@example({"a": True, "b": 1, "c": 1.0, "d": [True, 1, 1.0], "e": {1: "one", "1": "text"}})
@example({"zero": -0.0, "nan": math.nan, "inf": -math.inf, "tiny": 5e-324})
@example({"sets": {(1, ("a", 2)), (), ("x",), 2**70, -(2**70), "1", 1, b"1", None}})
@example({"ints": [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000]})
def test_what_is_kept_comes_back_as_it_was(data):
    assert exactly(decode(encode(data)), data)


@given(sessions)
def test_the_same_data_has_the_same_bytes(data):
    raw = encode(data)
    assert encode(decode(raw)) == raw


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(datetime(2026, 10, 25, 2, 30), id="naive"),  # noqa: DTZ001
        pytest.param(datetime(2026, 10, 25, 2, 30, fold=1), id="naive, the second time that night"),  # noqa: DTZ001
        pytest.param(datetime(2026, 1, 1, tzinfo=UTC), id="UTC"),
        pytest.param(datetime(2026, 1, 1, 12, 0, 0, 1, timezone(timedelta(hours=-3, minutes=-30))), id="offset"),
        pytest.param(datetime(1, 1, 1, tzinfo=timezone(timedelta(seconds=1))), id="odd offset"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, 999999), id="the last moment"),  # noqa: DTZ001
        pytest.param(date.min, id="the first day"),
        pytest.param(Decimal("sNaN123"), id="signalling NaN"),
        pytest.param(Decimal("-0E+5"), id="negative zero with exponent"),
        pytest.param(Decimal("1.10"), id="trailing zero"),
        pytest.param(UUID(int=0), id="nil UUID"),
        pytest.param((), id="empty tuple"),
        pytest.param(set(), id="empty set"),
        pytest.param({}, id="empty dict"),
        pytest.param("\x00\u2028\U0001f9e5", id="odd text"),
        pytest.param({1: {2: {3: ({4: [5]},)}}}, id="dicts with int keys in a tuple"),
    ],
)
def test_odd_values_come_back_too(value):
    assert exactly(decode(encode({"key": value, "list": [value]})), {"key": value, "list": [value]})


def test_a_zoned_time_keeps_its_instant_and_offset_but_not_the_zone():
    berlin = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    back = decode(encode({"at": berlin}))["at"]
    assert back == berlin
    assert back.utcoffset() == timedelta(hours=2)
    assert type(back.tzinfo) is timezone


@given(st.sets(hashable.filter(lambda value: "NaN" not in repr(value) and "nan" not in repr(value)), max_size=8))
def test_a_set_has_one_spelling_whatever_its_history(items):
    grown = set()
    for item in sorted(items, key=repr, reverse=True):
        grown.add(item)
    assert encode({"set": items}) == encode({"set": grown})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 0.0}, {"a": -0.0}),
        ({"a": [1]}, {"a": (1,)}),
        ({"a": "1"}, {"a": b"1"}),
        ({"a": {1: 2}}, {"a": {"1": 2}}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
        ({"a": Decimal("1.0")}, {"a": Decimal("1.00")}),
        ({"a": datetime(2026, 1, 1, fold=0)}, {"a": datetime(2026, 1, 1, fold=1)}),  # noqa: DTZ001
    ],
)
def test_what_a_handler_could_tell_apart_counts_as_a_change(before, after):
    assert encode(before) != encode(after)


def test_no_data_takes_no_bytes():
    assert encode({}) == b""
    assert decode(b"") == {}


class Text(str):
    __slots__ = ()


class Colour(enum.StrEnum):
    RED = "red"


class Count(int):
    pass


class UUID2(UUID):
    pass


UUID2.__qualname__ = "UUID"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Text("x"), "test_codec.Text"),
        (Colour.RED, "test_codec.Colour"),
        (Count(1), "test_codec.Count"),
        (OrderedDict(), "collections.OrderedDict"),
        (UUID2(int=1), "test_codec.UUID"),
        (frozenset(), "frozenset"),
        (bytearray(), "bytearray"),
        (1j, "complex"),
        (object(), "object"),
        (print, "builtin_function_or_method"),
        (timedelta(), "datetime.timedelta"),
        (msgspec.Raw(b"\x01"), "msgspec.Raw"),
        (msgspec.msgpack.Ext(1, b""), "msgspec.msgpack.Ext"),
    ],
)
def test_everything_else_is_refused_by_place_and_type(value, name):
    with pytest.raises(DataError) as caught:
        encode({"fine": 1, "cart": [{"items": (value,)}]})
    assert caught.value.found.endswith(name)
    assert caught.value.key == "'cart'][0]['items'][0"
    assert "session['cart'][0]['items'][0] is of type" in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("key", [1, True, None, b"x", 1.5, (1,), Text("x"), Colour.RED, 2**64])
def test_the_first_level_has_text_for_keys(key):
    with pytest.raises(DataError, match="the session has a key of type"):
        encode({key: 1})


@pytest.mark.parametrize(
    "key", [True, None, b"x", 1.5, (1,), Text("x"), 2**64, -(2**63) - 1, pytest.param(10**5000, id="huge")]
)
def test_below_it_keys_are_text_or_64_bit_ints(key):
    with pytest.raises(DataError, match=r"session\['a'\] has a key of type") as caught:
        encode({"a": {key: 1}})
    assert len(str(caught.value)) < 300


def test_another_mapping_in_place_of_a_dict_is_refused():
    for data in (OrderedDict(), OrderedDict(a=1), [1]):
        with pytest.raises(DataError, match="the session's data is of type"):
            encode(data)


@pytest.mark.parametrize("data", [{"name": "\ud800"}, {"\ud800": 1}, {"name": [("\udfff",)]}, {"name": {"\ud800"}}])
def test_text_that_is_no_unicode_is_refused_by_key(data):
    with pytest.raises(DataError, match="not valid Unicode") as caught:
        encode({"fine": 1, **data})
    assert caught.value.key in ("'name'", "'\\ud800'")
    str(caught.value).encode()  # a message that a log can write


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"a": inner}])
def test_depth_is_bounded(wrap):
    value = 1
    for _ in range(64):
        value = wrap(value)
    assert exactly(decode(encode({"a": value})), {"a": value})
    for more in (1, 10_000):
        for _ in range(more):
            value = wrap(value)
        with pytest.raises(DataError, match="nested deeper than 64"):
            encode({"a": value})


def test_a_cycle_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(DataError, match="nested"):
        encode({"a": loop})


def test_the_handlers_own_objects_are_left_alone():
    inner = [uuid4()]
    data = {"a": inner, "b": {"c": (1,)}}
    encode(data)
    assert data["a"] is inner
    assert type(inner[0]) is UUID
    assert type(data["b"]["c"]) is tuple


# -- damage ------------------------------------------------------------------------------------------------------------

WHOLE = encode(
    {
        "text": "abc",
        "list": [1, 2.5, None, True],
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "day": date(2026, 1, 1),
        "id": UUID(int=7),
        "price": Decimal("1.10"),
        "set": {1, "a", (2,)},
        "big": 2**99,
    }
)


def read(raw):
    try:
        data = decode(raw)
    except UnknownVersion:
        return
    assert type(data) is dict


@given(st.binary(max_size=200))
def test_damage_is_an_unknown_version_and_nothing_else(noise):
    read(noise)
    read(b"\x01" + noise)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, 12))
def test_a_damaged_session_is_read_or_unknown(at, byte, cut):
    read(WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 + cut :])


@given(st.integers(0, 255), st.binary(max_size=40))
def test_any_extension_is_read_or_unknown(code, body):
    read(b"\x01\x81\xa1a" + b"\xc7" + bytes([len(body), code]) + body)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x00\x80", id="another version"),
        pytest.param(b"\x03\x80", id="a later version"),
        pytest.param(b"\x01\x81\xa1a\xc7\x02\x04\x35\x31", id="a type of ours in plain data"),
        pytest.param(b"\x01", id="nothing after the version"),
        pytest.param(b"\x01\x90", id="a list"),
        pytest.param(b"\x01\x81\x01\x01", id="an int key on the first level"),
        pytest.param(b"\x01\x80\x80", id="something after the end"),
        pytest.param(b"\x02\x81\xa1a\xc7\x02\x06\x91\x90", id="a set with a list in it"),
        pytest.param(b"\x02\x81\xa1a\xc7\x01\x63x", id="an unknown extension"),
        pytest.param(b"\x02\x81\xa1a\xc7\x01\x04x", id="no decimal"),
        pytest.param(b"\x02\x81\xa1a\xc7\x01\x03x", id="no UUID"),
        pytest.param(b"\x02\x81\xa1a\xc7\x02\x01\xff\xfe", id="no date and time"),
        pytest.param(b"\x01\x81\xa1a\xa2\xff\xfe", id="no UTF-8"),
        pytest.param(b"\x01\x81\xa1a\xdd\xff\xff\xff\xff", id="a list of four billion"),
        pytest.param(b"\x01\x81\xa1a\xdb\xff\xff\xff\xff", id="a text of four billion"),
        pytest.param(b"\x01\x81\xa1a" + b"\x91" * 100_000, id="a depth bomb"),
        pytest.param(pickle.dumps({"a": 1}), id="a pickle"),
        pytest.param(b"\x01" + pickle.dumps({"a": 1}), id="a pickle with our version"),
        pytest.param(b'{"a": 1}', id="JSON"),
    ],
)
def test_what_we_did_not_write_is_an_unknown_version(raw):
    with pytest.raises(UnknownVersion):
        decode(raw)


def test_bytes_of_other_kinds_are_read_too():
    assert decode(bytearray(WHOLE)) == decode(WHOLE) == decode(memoryview(WHOLE))


# -- the fast comparison -----------------------------------------------------------------------------------------------


@given(sessions)
def test_the_fast_comparison_never_calls_other_bytes_the_same(data):
    """And it answers for every session: what msgpack cannot take is for `encode` to tell."""
    raw = encode(data)
    is_unchanged(raw, decode(raw))
    changed = {**data, "one more": 1}
    assert encode(changed) == raw or not is_unchanged(raw, changed)
    assert not data or not is_unchanged(raw, {})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": [1, 2]}, {"a": [1, 2, 3]}),
        ({"a": {"x": 1}}, {"a": {"x": 2}}),
        ({"a": {"x": 1}}, {"a": {"x": True}}),
        ({"a": {"x": 1}}, {"a": {"x": 1.0}}),
        ({"a": {"x": 1}}, {"a": {"y": 1}}),
        ({"a": [{"x": []}]}, {"a": [{"x": [None]}]}),
        ({"a": [2**63]}, {"a": [2**64]}),
        ({"a": ["x"]}, {"a": [b"x"]}),
        ({"a": [1]}, {"a": [object()]}),
        ({}, {"a": []}),
        ({"a": []}, {}),
    ],
)
def test_a_nested_change_is_seen_by_the_fast_comparison(before, after):
    assert is_unchanged(encode(before), decode(encode(before)))
    assert not is_unchanged(encode(before), after)


def test_a_cycle_is_not_unchanged():
    loop = []
    loop.append(loop)
    assert not is_unchanged(encode({"a": [[]]}), {"a": loop})
