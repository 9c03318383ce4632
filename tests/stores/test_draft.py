"""Drafting a commit decides as applying it does: the contract holds for a store that reads, drafts and then writes."""

from collections.abc import Sequence

import pytest

from coatcheck.core.model import Change, Conflict, End, EndOthers, Event, Handle, Insert, Limit, Note, Replace, Update
from coatcheck.stores.draft import Draft, Found, Need, wanted
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing.clock import Clock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.face import Face, chain, make


class DraftingStore(MemoryStore):
    """A memory store whose commits are drafts: it reads what `wanted` names and writes what the draft holds."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.read: list[set[Handle]] = []

    def commit(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Conflict | None:
        shelf = self._shelf
        with shelf.lock:
            want = wanted(changes)
            handles = set(want.handles)
            members = {one: tuple(sorted(self._unended(*one))) for one in want.members}
            handles.update(*members.values())
            while True:
                found = Found(
                    {handle: shelf.records.get(handle) for handle in handles},
                    {one: shelf.subjects.get(one) for one in want.subjects},
                    members,
                )
                draft = Draft(found, commit_id)
                try:
                    conflict = draft.apply(changes, shelf.clock())
                    break
                except Need as need:
                    handles.add(need.handle)
            self.read.append(handles)
            written = () if conflict is not None else self._write(draft, commit_id)
            changed = shelf._changed()
        shelf._tell(written, changed)
        return conflict

    def _unended(self, realm: str, subject: str) -> set[Handle]:
        mine = self._shelf.of_subject.get((realm, subject), set())
        return {handle for handle in mine if self._shelf.records[handle].ended_at is None}

    def _write(self, draft: Draft, commit_id: bytes) -> Sequence[Event]:
        shelf = self._shelf
        for record in (*draft.added.values(), *draft.changed.values()):
            shelf.keep(record)
        for one, at in draft.epochs.items():
            shelf.subjects[one] = max(at, shelf.subjects.get(one, at))
        for scope, at in draft.scopes.items():
            shelf.scopes[scope] = max(at, shelf.scopes.get(scope, at))
        for event, position in draft.events:
            shelf.log.add(event, None if position is None else (commit_id, position))
        return shelf.log.written()


class TestDraftingStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock) -> DraftingStore:
        return DraftingStore(clock)


def test_a_commit_names_what_it_looks_at_in_an_order_that_locks_can_follow() -> None:
    clock = Clock()
    changes = [
        End(handle="z", because="logout"),
        Insert(record=make("m", clock, subject="bob"), limit=Limit(3)),
        EndOthers(realm="", subject="ann", because="owner"),
        Update(record=make("b", clock), was=1),
        Note(events=()),
    ]
    want = wanted(changes)
    assert want.handles == ("b", "m", "z")
    assert want.subjects == (("", "ann"), ("", "bob"))
    assert want.members == {("", "ann"), ("", "bob")}


def test_a_plain_insert_reads_nobody_elses_sessions() -> None:
    clock = Clock()
    assert wanted([Insert(record=make("m", clock))]).members == frozenset()
    assert wanted([Replace(record=make("m", clock), old="o", was=1)]).handles == ("m", "o")
    assert wanted([Insert(record=make("a", clock, subject=None), limit=Limit(1))]).subjects == ()


def test_what_a_decision_leads_to_is_asked_for_by_name() -> None:
    """An end of a session that was replaced twice reads its successors one by one, and nothing else."""
    clock = Clock()
    store = DraftingStore(clock)
    chain(Face(store), clock, "a", "b", "c")
    store.commit(b"bystander", [Insert(record=make("x", clock))], durable=False)
    store.read.clear()
    store.commit(b"end", [End(handle="a", because="operator")], durable=True)
    assert store.read == [{"a", "b", "c"}]
    assert store._shelf.records["c"].ended_because == "operator"


def test_a_draft_that_conflicts_holds_nothing() -> None:
    clock = Clock()
    stored = make("h", clock, version=3)
    draft = Draft(Found({"h": stored}, {("", "ann"): None}, {}), b"id")
    assert draft.apply([Update(record=make("h", clock), was=1)], clock.now) == Conflict(stored, "version")
    assert draft.empty
