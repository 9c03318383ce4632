"""A request has one id, made when it is asked for; a listed proxy may name it, nobody else, and nothing that forges."""

import json
from typing import Any

import pytest

from coatcheck import ConfigError, SessionManager
from coatcheck.core import exports, facts, replies
from coatcheck.core.model import End, Event, Note, Request, Touch, Trace
from coatcheck.stores import sql
from coatcheck.stores.redis import format as redis_format


def manager_of(**settings: Any) -> SessionManager:
    return SessionManager(origins=["https://app.test"], entropy=lambda size: bytes(range(size)), **settings)


def request(peer: str | None = "10.0.0.2", **headers: str) -> Request:
    pairs = tuple((name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items())
    return Request("POST", "https", "/pay", pairs, query="token=secret", peer=peer)


LISTED = {"trusted_proxies": ["10.0.0.0/8"], "request_id": "X-Request-Id"}


def test_an_id_is_made_once() -> None:
    manager = manager_of()
    one = request()
    assert manager.traces.id_of(one) == "0001020304050607"
    manager.traces._entropy = lambda size: b"x" * size
    assert manager.traces.id_of(one) == "0001020304050607"
    assert manager.traces.id_of(request()) == "78" * 8


def test_a_request_nobody_tells_of_has_no_id() -> None:
    one = Request("GET", "https", "/", ())
    manager_of().identify(one)
    assert one.id == ""


@pytest.mark.parametrize(
    ("settings", "sent", "peer"),
    [
        ({**LISTED, "trusted_proxies": []}, "abc", "10.0.0.2"),
        ({**LISTED, "request_id": None}, "abc", "10.0.0.2"),
        (LISTED, "abc", "192.0.2.7"),
        (LISTED, "abc", None),
        (LISTED, "", "10.0.0.2"),
        (LISTED, "a b", "10.0.0.2"),
        (LISTED, "a,b", "10.0.0.2"),
        (LISTED, "a\r\nset-cookie", "10.0.0.2"),
        (LISTED, "abc\n", "10.0.0.2"),
        (LISTED, "é", "10.0.0.2"),
        (LISTED, "-rf", "10.0.0.2"),
        (LISTED, "a" * 129, "10.0.0.2"),
    ],
)
def test_a_name_that_is_not_taken_over(settings: dict[str, Any], sent: str, peer: str | None) -> None:
    assert manager_of(**settings).traces.id_of(request(peer, x_request_id=sent)) == "0001020304050607"


@pytest.mark.parametrize("sent", ["abc", "a" * 128, "Root=1-67891233-abc", "7f3d2c04-1c9b-4b", "A.b_c:d;e/f+g@h"])
def test_a_listed_proxys_name_is_taken_over(sent: str) -> None:
    assert manager_of(**LISTED).traces.id_of(request(x_request_id=sent)) == sent


def test_a_proxy_on_a_unix_socket_may_name_requests_too() -> None:
    manager = manager_of(trusted_proxies=["unix"], request_id="X-Request-Id")
    assert manager.traces.id_of(request(None, x_request_id="abc")) == "abc"


def test_a_name_that_came_twice_is_nobodys() -> None:
    doubled = Request("GET", "https", "/", ((b"x-request-id", b"a"), (b"x-request-id", b"b")), peer="10.0.0.2")
    assert manager_of(**LISTED).traces.id_of(doubled) == "0001020304050607"


@pytest.mark.parametrize(
    "settings", [{"request_id": "X Request"}, {"request_id": ""}, {"node": "web 3"}, {"node": "x" * 101}]
)
def test_names_that_are_none_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is the name of a"):
        manager_of(**settings)


def test_only_changes_with_events_are_touched_and_a_trace_stays() -> None:
    traces = manager_of(node="web-3").traces
    quiet = (Touch(handle="h", seen_at=1.0),)
    assert traces.on(request(), quiet) is quiet
    told = Event(name="session_logout", at=1.0)
    elsewhere = Event(name="session_logout", at=1.0, trace=Trace("web-1"))
    one, two, three = traces.on(
        request(), (Note(events=(told, elsewhere)), *quiet, End(handle="h", because="logout", events=(told,)))
    )
    here = Trace("web-3", "0001020304050607", "POST", "/pay")
    assert [event.trace for event in one.events] == [here, Trace("web-1")]
    assert (two, three.events[0].trace) == (quiet[0], here)
    assert traces.of(None) == Trace("web-3")


def test_a_long_path_is_cut_and_a_query_never_kept() -> None:
    long = Request("M" * 50, "https", "/" + "x" * 5000, (), query="token=secret")
    trace = manager_of().traces.of(long)
    assert (len(trace.path or ""), len(trace.method or "")) == (200, 20)
    assert "secret" not in repr(manager_of().traces.of(request()))


def test_a_path_that_no_store_can_keep_does_not_take_the_event_along() -> None:
    odd = Request("P\udc80", "https", "/\udc80\x00\r\n\u2028\u202ex", ())
    trace = manager_of().traces.of(odd)
    assert (trace.method, trace.path) == ("P\ufffd", "/\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdx")
    event = Event(name="x", at=1.0, trace=trace)
    assert sql.event_of(sql.event_row(event)) == event
    manager = manager_of()
    manager._heard("csrf_denied", odd, reason="origin")
    (summary,) = manager.noise.summaries("r", 61.0)
    assert sql.event_of(sql.event_row(summary)) == summary


TRACED = Event(
    name="session_logout",
    at=1.5,
    handle="h",
    detail={"reason": "logout"},
    trace=Trace("web-3", "7f3d", "POST", "/a\r\nb\x1b[31m"),
)


@pytest.mark.parametrize("event", [TRACED, Event(name="x", at=1.0), Event(name="x", at=1.0, trace=Trace("web-3"))])
def test_stores_keep_it(event: Event) -> None:
    assert sql.event_of(sql.event_row(event)) == event
    assert redis_format.unpack_event(redis_format.pack_event(event), noise=False) == event


def test_events_of_former_releases_are_still_read() -> None:
    row = (1.0, "x", "r", None, None, 0, None, None, '{"reason": "idle"}')
    assert sql.event_of(row).trace is None
    packed = redis_format._encode(["x", 1.0, "r", None, None, None, {}])
    assert redis_format.unpack_event(packed, noise=False).trace is None


def test_every_form_says_it_on_one_line() -> None:
    for form, places in {
        "plain": ("request_id", "method", "path", "node"),
        "owasp": ("request_id", "request_method", "request_uri", "hostname"),
        "ocsf": ("http_request.uid", "http_request.http_method", "http_request.url.path", "device.hostname"),
        "ecs": ("http.request.id", "http.request.method", "url.path", "host.name"),
    }.items():
        line = exports.line(TRACED, form)  # type: ignore[arg-type]
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line
        found = []
        for place in places:
            said = json.loads(line)
            for name in place.split("."):
                said = said[name]
            found.append(said)
        assert found == ["7f3d", "POST", "/a\r\nb\x1b[31m", "web-3"]
    assert facts.line(TRACED).endswith(" request=7f3d")


def test_an_answer_names_its_request() -> None:
    answer = manager_of().traces.answered(request(), replies.UNAVAILABLE)
    assert (b"x-request-id", b"0001020304050607") in answer.headers
    assert answer.body.endswith(b"\nRequest: 0001020304050607\n")
    assert answer.status == 503
