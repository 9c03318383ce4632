"""The drills that go through an adapter, on every framework: its server, its routing, its cookies, its errors.

The drills themselves are those that ASGI and WSGI stand, with fewer repetitions; memory is the store.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock

from . import (
    plays,
    test_cookie_tricks,
    test_device_binding,
    test_guessing,
    test_hosts,
    test_lineage,
    test_login,
    test_once,
    test_realms,
    test_revoking_everywhere,
    test_sealed,
)
from .conftest import Build
from .frameworks import FRAMEWORKS, FrameworkHouse

VALUES = {"house": {}, "bound": {"binding": "opportunistic"}, "required": {"binding": "required"}}
"""What a drill's fixtures are built with."""

NEVER_SEALED = ("django", "django-asgi")
"""Sealed tokens have no session_key, which Django needs: our adapter refuses to start with them."""


@dataclass
class Drill:
    """A drill by number: the test that plays it, with its parameters, what is made smaller, and where not."""

    number: str
    play: Callable[..., None]
    given: dict[str, Any] = field(default_factory=dict)
    fewer: dict[str, Any] = field(default_factory=dict)
    but: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return its name among the tests'."""
        said = "-".join(str(value)[:16] for value in self.given.values() if isinstance(value, str))
        return f"{self.number}-{self.play.__name__.removeprefix('test_')}" + (f"-{said}" if said else "")


def drills(number: str, play: Callable[..., None], *given: dict[str, Any], **more: Any) -> list[Drill]:
    """Return a drill for each set of parameters."""
    return [Drill(number, play, each, **more) for each in given or ({},)]


DRILLS = [
    *drills("D01", plays.guesses_at_a_handle_are_answered_like_unknown_tokens),
    *drills(
        "D02",
        test_guessing.test_the_right_parts_in_the_wrong_places_are_garbage,
        {"stolen": "c1.{handle}.{wrong}.{turn}"},
    ),
    *drills("D03", test_guessing.test_a_guess_at_an_ended_session_is_no_evidence_of_anything),
    *drills("D04", plays.parallel_requests_at_renewal_get_one_successor),
    *drills("D05", test_lineage.test_a_lost_answer_costs_nobody_anything),
    *drills("D06", test_lineage.test_an_answer_that_comes_five_minutes_late_is_still_good),
    *drills(
        "D07",
        test_lineage.test_each_of_fifty_former_generations_is_recognised,
        {"on_theft": "end", "alive": None},
        {"on_theft": "note", "alive": "alice"},
        fewer={"GENERATIONS": 3},
    ),
    *drills("D08", plays.an_old_turn_from_elsewhere_is_refused_and_then_theft),
    *drills("D09", test_realms.test_a_shop_token_opens_no_console, {"handler": "/me"}),
    *drills(
        "D10",
        test_realms.test_two_apps_on_one_store_share_a_session_only_in_one_realm,
        {"one": {"realm": "shop"}, "two": {"realm": "blog"}, "shared": False},
        {"one": {"realm": "both"}, "two": {"realm": "both"}, "shared": True},
    ),
    *drills(
        "D11",
        test_guessing.test_a_part_has_one_spelling,
        {"end": test_guessing.TURN + 23},
        fewer={"ALPHABET": "AQgw-_"},
    ),
    *drills(
        "D12",
        test_login.test_what_a_planted_session_holds_moves_only_by_name,
        {"carry": (), "moved": set()},
        {"carry": ["cart"], "moved": {"cart"}},
    ),
    *drills("D13", test_lineage.test_a_slow_worker_takes_a_request_of_before_the_renewal_for_no_thief),
    *drills(
        "D16", test_login.test_a_request_with_the_token_of_before_the_login_wipes_nothing, {"late": "/data?write=k"}
    ),
    *drills("D17", test_login.test_a_slow_renewal_is_overtaken_by_a_login_and_hands_out_nothing),
    *drills(
        "D19",
        test_cookie_tricks.test_only_the_exact_name_after_spaces_and_tabs_counts,
        {"spelling": b'a="x;y"; %b=%b', "counts": True},
        {"spelling": b'$Version="1"; %b=%b; $Path="/"', "counts": True},
        {"spelling": b"$Version=1,%b=%b", "counts": False},
        {"spelling": b"%b =%b", "counts": False},
        {"spelling": b'%b="%b"', "counts": False},
        {"spelling": b"a=%b=%b", "counts": False},
        {"spelling": b" \t %b=%b \t", "counts": True},
        {"spelling": b"\xa0%b=%b", "counts": False},
        {"spelling": b"\xe2\x80\x80%b=%b", "counts": False},
    ),
    *drills("D19", test_cookie_tricks.test_another_name_is_another_cookie, {"name": "__host-coat"}, {"name": "coat"}),
    *drills("D20", test_cookie_tricks.test_two_different_values_are_nobodys),
    *drills("D20", test_cookie_tricks.test_the_same_value_twice_and_a_header_in_two_parts_are_one_session),
    *drills(
        "D21", test_once.test_of_fifty_parallel_requests_one_gets_the_grant, {"two_nodes": False}, fewer={"PARALLEL": 6}
    ),
    *drills("D22", test_once.test_parallel_guesses_are_all_counted, fewer={"PARALLEL": 6}),
    *drills("D22", test_once.test_guesses_of_a_session_that_ended_meanwhile_are_refused),
    *drills("D22", plays.a_wrong_guess_is_counted_whatever_becomes_of_its_answer),
    *drills("D23", test_device_binding.test_no_offer_comes_to_whoever_waits),
    *drills("D24", test_device_binding.test_a_thief_registers_no_key),
    *drills("D25", test_device_binding.test_required_ends_what_stays_unbound),
    *drills("D26", test_device_binding.test_nothing_that_a_client_says_excuses_a_missing_cookie),
    *drills("D27", test_device_binding.test_a_bounce_is_one_page_without_data),
    *drills("D28", test_device_binding.test_a_handle_alone_is_a_strangers),
    *drills("D26", test_device_binding.test_either_cookie_alone_is_nothing),
    *drills("D29", test_device_binding.test_bad_proofs_end_nothing_and_write_nothing, fewer={"BAD_PROOFS": 80}),
    *drills("D30", test_device_binding.test_a_hundred_strangers_evict_no_challenge),
    *drills("D31", test_device_binding.test_a_refresh_beside_a_logout_brings_nothing_back, fewer={"ORDERS": 4}),
    *drills("D26", test_device_binding.test_a_copied_jar_dies_when_its_bound_cookie_has_aged),
    *drills("D33", plays.page_loads_without_a_cookie_store_nothing),
    *drills("D34", plays.an_oversize_header_opens_nothing),
    *drills(
        "D40",
        test_revoking_everywhere.test_a_password_change_ends_the_thief_and_spares_the_owner_on_every_node,
        {"owners": "here"},
    ),
    *drills("D45", plays.what_is_stored_is_no_cookie),
    *drills(
        "D49",
        test_sealed.test_a_sealed_cookie_opens_nothing_at_another_application,
        *({"where": where, "settings": settings, "name": name} for where, settings, name in test_sealed.ELSEWHERE[:4]),
        but=NEVER_SEALED,
    ),
    *drills(
        "D50",
        test_sealed.test_an_older_cookie_is_refused_once_the_session_is_another,
        {"act": test_sealed._logout},
        {"act": test_sealed._step_down},
        but=NEVER_SEALED,
    ),
    *drills(
        "D51",
        test_sealed.test_pieces_of_two_own_cookies_open_nothing_together,
        but=NEVER_SEALED,
    ),
    *drills(
        "D58",
        test_hosts.test_forwarded_headers_of_an_unlisted_peer_change_nothing,
        {"host": "app.test", "origin": "https://app.test", "status": 303},
        {"host": "evil.example", "origin": "https://evil.example", "status": 403},
        {"host": "app.test", "origin": "null", "status": 403},
        fewer={"FORWARDED": [one for one in test_hosts.FORWARDED if one[0] not in ("x-real-ip", "forwarded")]},
    ),
    *drills("D61", plays.many_tabs_that_wake_a_remembered_login_have_one_session),
    *drills("D73", test_login.test_an_owner_who_is_refused_and_logs_in_takes_the_thief_down),
    *drills("promise 1", plays.a_copied_cookie_is_dead_after_the_logout),
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def build(framework: str, store: MemoryStore, clock: Clock) -> Iterator[Build]:
    """Return a maker of houses behind one framework."""
    houses: list[FrameworkHouse] = []

    def made(**settings: Any) -> FrameworkHouse:
        settings = dict(settings)
        houses.append(FrameworkHouse(framework, store, settings.pop("clock", clock), **settings))
        return houses[-1]

    yield made
    for house in houses:
        house.close()


STANDS = [(framework, drill) for framework in FRAMEWORKS for drill in DRILLS if framework not in drill.but]


@pytest.mark.parametrize(("framework", "drill"), STANDS, ids=str)
def test_no_attack_succeeds(
    build: Build, store: MemoryStore, clock: Clock, drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in drill.fewer.items():
        monkeypatch.setattr(sys.modules[drill.play.__module__], name, value)
    wanted = inspect.signature(drill.play).parameters
    fixtures: dict[str, Any] = {"build": build, "store": store, "clock": clock, "monkeypatch": monkeypatch}
    fixtures["ahead"] = Clock(clock.now + test_revoking_everywhere.AHEAD) if "ahead" in wanted else None
    fixtures["sealed"] = sealed_of(build)
    fixtures |= {name: build(**settings) for name, settings in VALUES.items() if name in wanted}
    drill.play(**{name: fixtures[name] for name in wanted if name in fixtures}, **drill.given)


def sealed_of(build: Build) -> Callable[..., Any]:
    """Return a maker of houses with sealed tokens, as test_sealed.py has it."""
    made: Callable[..., Any] = inspect.unwrap(test_sealed.sealed.__wrapped__)(build)
    return made
