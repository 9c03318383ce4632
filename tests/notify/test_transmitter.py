"""Revocations told to other parties: what is told, how it is signed, how it is pushed (SSF-03; RFC 8417, 8935)."""

import json
import logging
from typing import Any

import pytest

from coatcheck import ConfigError, Event
from coatcheck.core import announcements, jose
from coatcheck.core.model import Client
from coatcheck.notify.delivery import Delivery
from coatcheck.notify.transmitter import Push, Transmitter
from coatcheck.testing.conformance.provider import curve_key, key_set, private_key

from .test_webhook import Place, place  # noqa: F401 - a fixture

ISSUER, AUDIENCE = "https://shop.example", "https://partner.example/events"
HANDLE = "h" * 18


def event(name: str = "session_revoked", **fields: Any) -> Event:
    said: dict[str, Any] = {"handle": HANDLE, "subject": "alice", "realm": "shop", "detail": {"reason": "operator"}}
    return Event(name=name, at=1_800_000_000.7, client=Client("203.0.113.9", "Firefox"), **{**said, **fields})


def told(one: Event) -> dict[str, Any] | None:
    return announcements.revoked(one, issuer=ISSUER, audience=AUDIENCE, jti="j", now=1_800_000_009.9)


def transmitter(outbox: Any, **changes: Any) -> Transmitter:
    given: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "key": private_key("one"), "outbox": outbox}
    return Transmitter(**{**given, **changes})


def test_a_revocation_is_the_event_of_the_specification() -> None:
    """CAEP 1.0 section 3.1, as the receiver's chapter of the standards shows it; and nothing more."""
    assert told(event()) == {
        "iss": ISSUER,
        "jti": "j",
        "iat": 1_800_000_009,
        "aud": AUDIENCE,
        "sub_id": {
            "format": "complex",
            "session": {"format": "opaque", "id": HANDLE},
            "user": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"},
        },
        "events": {
            "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {
                "event_timestamp": 1_800_000_000,
                "initiating_entity": "admin",
                "reason_admin": {"en": "An operator ended this session. (operator)"},
                "reason_user": {"en": "You were logged out; please log in again."},
            }
        },
    }


@pytest.mark.parametrize(
    ("name", "detail", "who"),
    [
        ("session_revoked", {"reason": "account_disabled"}, "admin"),
        ("session_revoked", {"because": "owner"}, "user"),
        ("session_revoked", {"because": "sso_logout"}, "system"),
        ("session_revoked", {"because": "a word of the application's"}, "policy"),
        ("session_expired", {"reason": "epoch"}, "admin"),
        ("session_expired", {"reason": "theft"}, "policy"),
        ("session_expired", {"reason": "unbound"}, "policy"),
        ("session_logout", {}, "user"),
        ("excess_sessions_exceeded", {"because": "limit"}, "policy"),
        ("session_token_reuse", {"kind": "late", "ended": True}, "policy"),
    ],
)
def test_every_end_that_is_no_clocks_is_told(name: str, detail: dict[str, Any], who: str) -> None:
    claims = told(event(name, detail=detail))
    assert claims is not None
    (said,) = claims["events"].values()
    assert said["initiating_entity"] == who
    assert said["reason_admin"]["en"].strip()


@pytest.mark.parametrize(
    "one",
    [
        *(event("session_expired", detail={"reason": why}) for why in ("idle", "absolute", "superseded", "replaced")),
        event(detail={"reason": "moved"}),
        event(noise=True),
        event(handle=None),
        event("session_token_reuse", detail={"kind": "straggler"}),
        event("session_token_reuse", detail={"kind": "stale"}),
        event("session_created"),
        event("session_use_after_expire", detail={"because": "operator"}),
        event("sessions_revoked", handle=None),
        event("sessions_revoked", handle=None, subject=None, detail={"reason": "operator"}),
    ],
    ids=str,
)
def test_nothing_else_is(one: Event) -> None:
    """Clocks, successors, what ended nothing; and bulk events, whose sessions have one each, or no subject at all."""
    assert told(one) is None


def test_a_tenant_is_told_of_once() -> None:
    claims = told(event("sessions_revoked", handle=None, subject=None, detail={"reason": "operator", "tenant": "acme"}))
    assert claims is not None
    assert claims["sub_id"] == {"format": "complex", "tenant": {"format": "opaque", "id": "acme"}}


def test_where_a_visitor_was_is_nobody_elses_business() -> None:
    text = json.dumps(told(event(detail={"reason": "operator", "known_address": "192.0.2.1", "actor": "root"})))
    assert not any(word in text for word in ("203.0.113.9", "192.0.2.1", "Firefox", "root"))


def test_a_token_is_signed_and_has_a_name_of_its_own() -> None:
    outbox: list[str] = []
    teller = transmitter(outbox.append)
    teller(event())
    teller(event())
    teller(event("session_created"))
    assert len({jose.peek(token)[1]["jti"] for token in outbox}) == len(outbox) == 2
    (shown,) = teller.keys["keys"]
    assert set(shown) == {"kty", "n", "e", "kid", "use", "alg"}
    for token in outbox:
        assert jose.verified(token, (shown,), ("RS256",), "secevent+jwt")["aud"] == AUDIENCE
        with pytest.raises(jose.Refused):
            jose.verified(token, ({**shown, "n": key_set()["keys"][2]["n"]},), ("RS256",), "secevent+jwt")
    assert private_key("one")["d"] not in repr(teller)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": private_key("small")},
        {"key": {**private_key("one"), "kid": None}},
        {"key": {name: value for name, value in private_key("one").items() if name != "d"}},
        {"key": {**private_key("one"), "n": "!"}},
        {"key": {"kty": "oct", "k": "AAAA", "kid": "one"}},
        {"key": {"kty": "EC", "crv": "P-256", "d": str(curve_key().private_numbers().private_value), "kid": "one"}},
        {"key": "not JSON"},
        {"key": "[" * 5000},
        {"issuer": "shop.example"},
        {"audience": ""},
    ],
)
def test_what_would_sign_badly_is_refused_at_the_start(changes: dict[str, Any]) -> None:
    """The profile asks for RS256 with 2,048 bits; no secret of the key is in the sentence that says so."""
    with pytest.raises(ConfigError) as caught:
        transmitter(print, **changes)
    assert private_key("one")["d"] not in str(caught.value)


def test_the_key_may_come_as_json() -> None:
    assert transmitter(print, key=json.dumps(private_key("one"))).keys == transmitter(print).keys


# -- pushed ------------------------------------------------------------------------------------------------------------


def pushed(place: Place, authorization: str | None = "Bearer agreed") -> bool:  # noqa: F811
    push = Push(place.url, authorization, delivery=Delivery(3, pause=lambda _: None))
    taken: bool = transmitter(push)(event())
    return taken


def test_a_token_is_pushed_as_rfc_8935_says(place: Place) -> None:  # noqa: F811
    place.answers.append((202, {}))
    assert pushed(place)
    ((_, headers, body),) = place.got
    said = {name: headers[name] for name in ("content-type", "accept", "authorization")}
    assert said == {
        "content-type": "application/secevent+jwt",
        "accept": "application/json",
        "authorization": "Bearer agreed",
    }
    assert jose.peek(body.decode())[1]["iss"] == ISSUER


def test_a_busy_receiver_is_asked_again_with_the_same_token(place: Place) -> None:  # noqa: F811
    place.answers += [(503, {"retry-after": "7"}), (429, {}), (202, {})]
    assert pushed(place)
    assert len({body for _, _, body in place.got}) == 1
    assert len(place.got) == 3


def test_a_refused_token_is_said_and_not_sent_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    place.answers.append((400, {}))
    with caplog.at_level(logging.ERROR, "coatcheck"):
        pushed(place)
    assert len(place.got) == 1
    assert "refused a security event" in caplog.text
    assert "hidden" not in caplog.text


def test_a_redirect_is_not_followed(place: Place) -> None:  # noqa: F811
    place.answers += [(307, {"location": "http://127.0.0.1:9/"})] * 3
    assert not pushed(place)
    assert {path for path, _, _ in place.got} == {"/hook?key=hidden"}


def test_nothing_is_pushed_in_the_clear() -> None:
    with pytest.raises(ConfigError, match="https"):
        Push("http://partner.example/events")
    assert "hidden" not in repr(Push("https://user:hidden@partner.example/events?key=hidden", "Bearer hidden"))
