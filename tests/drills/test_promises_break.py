"""Each of the ten promises fails when it is broken on purpose: so the checks that speak for them do watch.

A row names a promise (docs/design.md, section 5), the line that is broken, and the check of the contract, the journey
or the drills that must notice. Each check is run twice: on the house as it is it passes, on the broken one it fails.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck.adapters import asgi, wsgi
from coatcheck.core.errors import StoreError
from coatcheck.core.manager import SessionManager
from coatcheck.core.model import Outcome
from coatcheck.core.tokens import TokenClass
from coatcheck.testing.browser import Driver
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver
from coatcheck.testing.face import Face
from coatcheck.testing.journey import AdapterJourney
from coatcheck.testing.journey import House as JourneyHouse
from coatcheck.testing.serving import AsgiProbe, Control, WsgiProbe
from tests import drills

from .house import House, opened

PROMISES = {
    1: "revocation wins",
    2: "no lost updates",
    3: "strict",
    4: "login changes everything",
    5: "cookies only by right",
    6: "three clocks",
    7: "ended for a reason",
    8: "store down: refuse",
    9: "commit before the first byte",
    10: "nested changes count, caches are told",
}

Break = Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """One way to break a promise."""

    promise: int
    what: str
    targets: str
    by: Break
    check: str
    given: dict[str, Any] = field(default_factory=dict)
    store: str = "memory"

    def __str__(self) -> str:
        return f"{self.promise}. {self.what}"


def before(act: Callable[..., None]) -> Break:
    """Break by doing something first, with the arguments of the original."""

    def by(original: Any) -> Any:
        def broken(*arguments: Any, **named: Any) -> Any:
            act(*arguments)
            return original(*arguments, **named)

        return broken

    return by


def after(act: Callable[..., Any]) -> Break:
    """Break what comes out: `act` gets it, and the arguments."""

    def by(original: Any) -> Any:
        def broken(*arguments: Any, **named: Any) -> Any:
            return act(original(*arguments, **named), *arguments)

        return broken

    return by


def instead(value: Any) -> Break:
    """Break by something else in its place."""
    return lambda original: value


# The broken lines.


def _revive(table: Any, change: Any, *_: Any) -> None:
    stored = table.get(change.record.handle)
    if stored is not None and stored.ended_at is not None:
        table.put(replace(stored, ended_at=None, version=change.was))


def _revive_old(table: Any, change: Any, *_: Any) -> None:
    old = table.get(change.old)
    if old is not None and old.ended_at is not None:
        table.put(replace(old, ended_at=None, version=change.was))


def _forget_versions(original: Any) -> Any:
    def broken(table: Any, change: Any, commit_id: bytes, now: float) -> Any:
        stored = table.get(change.record.handle)
        return original(table, replace(change, was=stored.version) if stored else change, commit_id, now)

    return broken


def _judged(old: TokenClass, new: TokenClass) -> Break:
    return after(lambda found, *_: (new, found[1]) if found[0] is old else found)


def _mark_wanted(self: Any, visit: Any, *_: Any) -> None:
    visit.wanted = True


def _clear_the_dead(outcome: Outcome | None, self: Any, visit: Any, *_: Any) -> Outcome | None:
    if outcome is None or visit.bare or visit.record is not None or outcome.cookies:
        return outcome
    return replace(outcome, cookies=(self._handing._cookie.clear(),))


def _keep(self: Any, visit: Any, *_: Any) -> None:
    visit.kept = True


def _lengthen(found: Any, realm: bytes, record: Any, ticket: Any, nonce: bytes, now: float) -> Any:
    return replace(found[0], expires_at=now + 86_400), found[1]


def _without(name: bytes) -> Break:
    return after(lambda headers, *_: [pair for pair in headers if pair[0] != name])


def _logout_falls_with_the_page(original: Any) -> Any:
    def broken(self: Any, visit: Any, failed: bool) -> Outcome:
        return Outcome() if failed else original(self, visit, failed)

    return broken


def _serve_anyway(self: Any, session: Any, outcome: Outcome, error: StoreError) -> Outcome:
    return outcome


def _blank(self: Any, request: Any, error: StoreError) -> Any:
    return self.manager.blank(request, self._make)


def _edit_unstored(self: Any, session: Any, change: Any) -> Any:
    return change(session.visit.data), None


FLOWS = "coatcheck.flow.sync.Exchange.{0} coatcheck.flow.async_.AsyncExchange.{0}"
DRESS = "coatcheck.flow.sync.dress coatcheck.flow.async_.dress"
SETTLER = "coatcheck.core.settler.Settler."
HANDING = "coatcheck.core.handing.Handing."

ROWS = [
    Row(1, "an Update revives what has ended", "coatcheck.core.ledger._update", before(_revive),
        "contract: an_update_never_resurrects_an_ended_record", {"idle_for": None}),
    Row(1, "SQLite's Update does not look whether it ended", "coatcheck.stores.sqlite.rows._SWAP",
        lambda sql: sql.replace("and ended_at is null ", ""),
        "contract: an_update_never_resurrects_an_ended_record", {"idle_for": None}, store="sqlite"),
    Row(1, "a slow write revives what has ended", "coatcheck.core.ledger._update", before(_revive),
        "journey: a_slow_request_revives_nothing", {"slow": "/data?write=slow", "end": "logout"}),
    Row(1, "a step-up slips past a logout", "coatcheck.core.ledger._replace", before(_revive_old),
        "drill: a_login_that_races_a_logout_revives_nothing"),
    Row(2, "an Update does not compare versions", "coatcheck.core.ledger._update", _forget_versions,
        "contract: of_two_updates_of_one_version_one_wins"),
    Row(2, "a conflict is won by overwriting", "coatcheck.core.records.merged",
        instead(lambda base, mine, *_, **__: mine),
        "journey: two_tabs_that_change_different_keys_both_win"),
    Row(2, "a grant is taken from memory only", "coatcheck.core.aftermath.Aftermath.edit", instead(_edit_unstored),
        "drill: of_fifty_parallel_requests_one_gets_the_grant", {"two_nodes": False}),
    Row(3, "who shows a handle is believed", "coatcheck.core.tokens.judge",
        _judged(TokenClass.GARBAGE, TokenClass.CURRENT),
        "drill: the_right_parts_in_the_wrong_places_are_garbage", {"stolen": "c1.{handle}.{wrong}.{turn}"}),
    Row(3, "a look begins a session", f"{SETTLER}settle_read", before(_mark_wanted),
        "drill: page_loads_without_a_cookie_store_nothing", {"target": "/me"}),
    Row(4, "the session of before the login lives on", f"{SETTLER}_insert_and_end",
        instead(lambda self, visit, insert, *_: [insert]),
        "drill: what_a_planted_session_holds_moves_only_by_name", {"carry": (), "moved": set()}),
    Row(4, "all that was planted moves into the login", "coatcheck.core.manager.SessionManager.carried",
        instead(lambda self, data, carry: dict(data)),
        "drill: what_a_planted_session_holds_moves_only_by_name", {"carry": (), "moved": set()}),
    Row(4, "a former turn is honoured for ever", "coatcheck.core.tokens._former",
        instead(lambda *_: TokenClass.FORMER_GRACE),
        "drill: an_owner_who_is_refused_and_logs_in_takes_the_thief_down"),
    Row(4, "a former turn has no grace", "coatcheck.core.tokens._former", instead(lambda *_: TokenClass.LATE),
        "journey: a_renewal_hands_out_a_new_secret_and_the_old_one_works_for_a_while"),
    Row(4, "older turns are not recognised", "coatcheck.core.tokens.judge",
        _judged(TokenClass.STALE, TokenClass.GARBAGE),
        "drill: each_of_fifty_former_generations_is_recognised", {"on_theft": "end", "alive": None}),
    Row(4, "a lost answer is never handed again", f"{HANDING}again", instead(lambda *_: ()),
        "drill: a_lost_answer_costs_nobody_anything"),
    Row(4, "who knows the handle ends the session", "coatcheck.core.tokens.judge",
        _judged(TokenClass.GARBAGE, TokenClass.STALE),
        "drill: the_right_parts_in_the_wrong_places_are_garbage", {"stolen": "c1.{handle}.{wrong}.{turn}"}),
    Row(4, "the realm is not in the proof", "coatcheck.core.tokens.family_proof",
        lambda original: lambda realm, handle, family: original(b"one for all", handle, family),
        "drill: a_shop_token_opens_no_console", {"handler": "/me"}),
    Row(5, "a dead token is answered with a new cookie", f"{HANDING}may_begin", instead(lambda *_: True),
        "drill: a_request_with_the_token_of_before_the_login_wipes_nothing", {"late": "/data?write=k"}),
    Row(5, "a dead token is answered with a deletion", f"{SETTLER}settle_read", after(_clear_the_dead),
        "drill: a_request_with_the_token_of_before_the_login_wipes_nothing", {"late": "/me"}),
    Row(5, "a late answer wipes a login", "coatcheck.core.aftermath.Aftermath._dropped",
        after(lambda outcome, self, *_: replace(outcome, cookies=(self._settler._handing._cookie.clear(),))),
        "journey: an_old_answer_that_arrives_last_does_not_wipe_the_login", {"slow": "/data?write=slow"}),
    Row(6, "nobody looks at the clocks", "coatcheck.core.policies.over", instead(lambda *_: None),
        "journey: an_expired_session_is_ended_for_its_reason"),
    Row(6, "a renewal moves the absolute end", "coatcheck.core.records.renewed", after(_lengthen),
        "drill: no_renewal_and_no_activity_moves_the_absolute_end"),
    Row(6, "every read writes its activity", "coatcheck.core.policies.Timeouts.touch_every",
        instead(property(lambda self: -1.0)),
        "drill: a_first_sight_is_written_once"),
    Row(7, "an end forgets its reason", "coatcheck.core.ledger.ended",
        after(lambda record, *_: replace(record, ended_because="policy")),
        "contract: an_end_leaves_a_tombstone_without_secrets_or_data"),
    Row(7, "an end forgets its reason", "coatcheck.core.ledger.ended",
        after(lambda record, *_: replace(record, ended_because="policy")),
        "journey: an_ended_session_is_nobody_and_says_why"),
    Row(8, "without a store everybody is anonymous", FLOWS.format("_away"), instead(_blank),
        "journey: a_store_that_is_away_refuses_and_touches_no_cookie"),
    Row(9, "a login is answered though it was not stored", FLOWS.format("_failed"), instead(_serve_anyway),
        "journey: a_login_that_cannot_be_stored_is_a_503_and_nothing_else"),
    Row(9, "a logout falls with its page", f"{SETTLER}_settle_logout", _logout_falls_with_the_page,
        "journey: a_logout_counts_when_the_handler_then_raises"),
    Row(9, "a failed page keeps what it wrote", f"{SETTLER}settle", before(_keep),
        "journey: what_is_kept_of_an_act_follows_the_status", {"act": "write", "end": "status=500"}),
    Row(10, "only a changed key counts", "coatcheck.core.codec.is_unchanged", instead(lambda raw, data: True),
        "journey: every_change_is_kept", {"how": "nested"}),
    Row(10, "caches are not told what a page varies by", DRESS, _without(b"vary"),
        "journey: every_look_at_a_session_makes_the_page_vary_and_stores_nothing", {"how": "get"}),
    Row(10, "caches may keep a cookie", DRESS, _without(b"cache-control"),
        "journey: the_first_write_makes_one_record_and_one_cookie"),
]  # fmt: skip
"""(promise, the broken line, the check that must fail)"""


def test_every_promise_is_broken_at_least_once() -> None:
    assert {row.promise for row in ROWS} == set(PROMISES)


# the contract knows no doors, so its rows are run once
CASES = [
    (row, kind) for row in ROWS for kind in ("asgi", "wsgi") if kind == "asgi" or not row.check.startswith("contract")
]


@pytest.mark.parametrize(("row", "kind"), CASES, ids=str)
def test_a_broken_promise_is_noticed(
    row: Row, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run(row, kind, tmp_path / "whole")
    for target in row.targets.split():
        owner, name = _owner(target)
        monkeypatch.setattr(owner, name, row.by(getattr(owner, name)))
    # it has just passed with the same arguments: whatever it raises now, it noticed
    with pytest.raises((Exception, pytest.fail.Exception)):
        run(row, kind, tmp_path / "broken")


def _owner(target: str) -> tuple[Any, str]:
    path, _, name = target.rpartition(".")
    with suppress(ModuleNotFoundError):
        return importlib.import_module(path), name
    module, _, kind = path.rpartition(".")
    return getattr(importlib.import_module(module), kind), name


# How a check is run outside of its file.


def run(row: Row, kind: str, folder: Path) -> None:
    """Run the check of a row, on a fresh store, behind a door of this kind."""
    folder.mkdir()
    clock = Clock()
    suite, _, name = row.check.partition(": ")
    with opened(row.store, folder, clock) as store:
        made: list[Any] = []

        def build(**settings: Any) -> House:
            made.append(House(kind, store, settings.pop("clock", clock), **settings))
            return made[-1]

        def journey_house() -> JourneyHouse:
            control = Control(store, clock, SessionManager(clock=clock))
            made.append(_DRIVERS[kind](control))
            return JourneyHouse(control, made[-1])

        check = _check(suite, f"test_{name}")
        offered = {
            "clock": lambda: clock,
            "store": lambda: store,
            "tmp_path": lambda: folder,
            "build": lambda: build,
            "house": build if suite == "drill" else journey_house,
            "face": lambda: Face(store),
        }
        wanted = [name for name in inspect.signature(check).parameters if name not in row.given]
        try:
            check(**{name: offered[name]() for name in wanted}, **row.given)
        finally:
            for one in made:
                one.close()


def _check(suite: str, name: str) -> Callable[..., Any]:
    if suite == "contract":
        return getattr(StoreContract(), name)  # type: ignore[no-any-return]
    if suite == "journey":
        return getattr(_Journey(), name)  # type: ignore[no-any-return]
    for module in pkgutil.iter_modules(drills.__path__):
        if module.name.startswith("test_") and module.name not in ("test_chromium", Path(__file__).stem):
            found = getattr(importlib.import_module(f"tests.drills.{module.name}"), name, None)
            if found is not None:
                return found  # type: ignore[no-any-return]
    message = f"no drill is called {name}"
    raise LookupError(message)


class _Journey(AdapterJourney):
    can = frozenset({"stream", "after", "socket", "events", "split"})


def _asgi(control: Control) -> Driver:
    return AsgiDriver(
        asgi.SessionMiddleware(
            AsgiProbe(control.probe),
            store=control.store,
            manager=control.manager,
            watch_every=0.1,
            watch_recheck=0.1,
        )
    )


def _wsgi(control: Control) -> Driver:
    return WsgiDriver(wsgi.SessionMiddleware(WsgiProbe(control.probe), store=control.store, manager=control.manager))


_DRIVERS: dict[str, Callable[[Control], Driver]] = {"asgi": _asgi, "wsgi": _wsgi}
