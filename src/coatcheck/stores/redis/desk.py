"""What the two faces of a store share: its settings, what it knows, and every verb as steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypedDict

from ...core.errors import ConfigError, StoreError, Unconfirmed
from ...core.model import Change, Epochs, Event, EventPage, EventQuery, Handle, Instant, Query, Record, RecordPage
from . import format  # noqa: A004 - the record's
from .committing import Commit
from .keys import COMMON, SHARDS, Keys
from .listing import Lister
from .places import Places, Target, target_of, target_of_client
from .plan import Settings
from .scripts import PUT_KEY_SHA
from .steps import Ask, Command, Steps, asked
from .tidying import Tidier

WEEK: Final = 7 * 86400.0
LISTING_DEADLINE: Final = 30.0
"""Seconds that a listing of everything may take."""


class Options(TypedDict, total=False):
    """What may be chosen beside the URL; all of it has a default."""

    client: Any
    """Instead of a URL: a client of redis-py, whose address, name, password and TLS are taken over."""
    prefix: str
    """What every key begins with ("coatcheck"); stores with different prefixes do not see each other."""
    shards: int
    """1 or 4,096: over how many shards subjects are spread. A Cluster has 4,096 unless it is told 1, others 1."""
    wait_replicas: int
    """So many replicas must confirm logins, ends and revocations (0)."""
    pool_size: int
    """Connections to one server at most, of a process or an event loop (20)."""
    load_deadline: float
    """Seconds for a load with everything, waiting for a connection included (0.5)."""
    commit_deadline: float
    """Seconds for a commit with everything, conflicts included (2)."""
    tombstone: float
    """Seconds for which an ended record can still say why it ended (seven days)."""
    clock: Callable[[], Instant] | None
    """The time, in tests; the server's own otherwise."""


class Desk:
    """One store as this process sees it; it opens nothing, and any thread or loop may use it."""

    def __init__(self, url: str | None, options: Options) -> None:
        """Read the URL, or take over what a client is made with."""
        _check(url, options)
        self.pool_size = options.get("pool_size", 20)
        self.load_deadline = options.get("load_deadline", 0.5)
        self.commit_deadline = options.get("commit_deadline", 2.0)
        target = target_of_client(options.get("client")) if url is None else target_of(url)
        _try(target)
        self.places = Places(target)
        shards = options.get("shards", SHARDS if self.places.clustered else 1)
        self.keys = Keys(options.get("prefix", "coatcheck"), shards)
        self.settings = Settings(
            keys=self.keys,
            clock=options.get("clock"),
            tombstone=options.get("tombstone", WEEK),
            replicas=options.get("wait_replicas", 0),
            patience=self.commit_deadline / 4,
        )
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        self._lister = Lister(self.settings)
        self.tidier = Tidier(self.settings, random.randrange)

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the listeners what was written."""
        if events:
            for listener in self.listeners:
                listener(events)

    def load(self, handle: Handle) -> Steps[Record | None]:
        """Return a record."""
        if not self.keys.sound(handle):
            return None
        ((value,),) = yield from asked(Ask(self.keys.tag(handle), (("GET", self.keys.record(handle)),)))
        if value is None:
            return None
        record = format.unpack(handle, value)
        if self.keys.sharded:
            self.keys.check((yield from self.salt()), record)
        return record

    def committing(self, commit_id: bytes, changes: Sequence[Change], durable: bool) -> Steps[Commit]:
        """Return a commit that is ready to be tried."""
        return Commit(self.settings, (yield from self.salt()), commit_id, changes, durable)

    def salt(self) -> Steps[bytes]:
        """Return the salt of the shards, which never changes; without shards there is none."""
        return (yield from self._lister.salt())

    def epochs(self) -> Steps[Epochs]:
        """Return the store's clock and its epochs."""
        return (yield from self._lister.epochs())

    def renew_generation(self, generation: str) -> Steps[str]:
        """Begin another generation, after a restore; return its name."""
        yield from self.epochs()  # a new store gets all its marks at once
        yield from asked(Ask(COMMON, [("HSET", self.keys.store, "generation", generation)]))
        return generation

    def keyring(self) -> Steps[dict[str, bytes]]:
        """Return the wrapped keys, by name."""
        ((fields,),) = yield from asked(Ask(COMMON, [("HGETALL", self.keys.keyring)]))
        flat = list(fields)
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    def put_key(self, name: str, value: bytes, was: bytes | None) -> Steps[bool]:
        """Keep a wrapped key if the present one is `was` (None: there is none); tell whether it was."""
        given = (name, "0" if was is None else "1", was or b"", value)
        commands: list[Command] = [("EVALSHA", PUT_KEY_SHA, 1, self.keys.keyring, *given)]
        replicas = self.settings.replicas
        if replicas:
            commands.append(("WAIT", replicas, int(self.settings.patience * 1000)))
        (answers,) = yield from asked(Ask(COMMON, commands, decides=True))
        if replicas and answers[0] and answers[1] < replicas:
            message = f"the key is stored, but {answers[1]} of {replicas} replicas confirmed it; look after them"
            raise Unconfirmed(message)
        return bool(answers[0])

    def find(self, query: Query) -> Steps[RecordPage]:
        """Return a page of records."""
        return (yield from self._lister.find(query, self.places.primaries))

    def events(self, query: EventQuery) -> Steps[EventPage]:
        """Return a page of events."""
        return (yield from self._lister.events(query))


class Loading:
    """Loads of several handles, as often as they have to be tried; each has a result or a failure of its own."""

    def __init__(self, desk: Desk, handles: Sequence[Handle]) -> None:
        """Begin without a result."""
        self._desk, self._handles = desk, handles
        self._results: dict[Handle, Record | StoreError | None] = {}
        self._waiting = [handle for handle in handles if desk.keys.sound(handle)]

    def results(self) -> list[Record | StoreError | None]:
        """Return what became of each, in order."""
        return [self._results.get(handle) for handle in self._handles]

    def fail(self, error: StoreError) -> None:
        """Take note why those that still wait have no result."""
        self._results.update(dict.fromkeys(self._waiting, error))

    def steps(self) -> Steps[None]:
        """Ask for those that have no result yet."""
        desk, waiting = self._desk, self._waiting
        salt = yield from desk.salt()
        tags: dict[str, list[Handle]] = {}
        for handle in waiting:
            tags.setdefault(desk.keys.tag(handle), []).append(handle)
        answers = yield [Ask(tag, [("GET", desk.keys.record(one)) for one in mine]) for tag, mine in tags.items()]
        self._waiting, problem = [], None
        for mine, values in zip(tags.values(), answers, strict=True):
            if isinstance(values, StoreError):
                self._waiting, problem = self._waiting + mine, values
            else:
                for handle, value in zip(mine, values, strict=True):
                    self._results[handle] = self._one(handle, value, salt)
        if problem is not None:
            raise problem

    def _one(self, handle: Handle, value: Any, salt: bytes) -> Record | StoreError | None:
        if value is None:
            return None
        if isinstance(value, Exception):
            return StoreError(f"the store refused to load {handle!r} ({value}); check what else writes to its keys")
        try:
            record = format.unpack(handle, value)
            self._desk.keys.check(salt, record)
        except StoreError as error:
            return error
        return record


def _check(url: str | None, options: Options) -> None:
    known = Options.__annotations__.keys()
    if unknown := options.keys() - known:
        message = f"a Redis store has no option {min(unknown)!r}; it has {', '.join(sorted(known))}"
        raise ConfigError(message)
    if (url is None) == (options.get("client") is None):
        message = "a Redis store is given a URL or a client, one of the two; write RedisStore('redis://localhost')"
        raise ConfigError(message)
    for name, least in (("wait_replicas", 0), ("pool_size", 1)):
        found = options.get(name, least)
        if not isinstance(found, int) or found < least:
            message = f"{name} is a number from {least} on (found {found!r}); correct it"
            raise ConfigError(message)


def _try(target: Target) -> None:
    """Make a connection object, and open nothing: it names the options that it does not know."""
    kind, options = Places(target).options(target.seeds[0], awaited=False)
    try:
        kind(**{**options, **target.options})
    except TypeError as error:
        unknown = str(error).rpartition(" ")[2].strip("'\"")
        message = f"a Redis connection has no option {unknown!r}; leave it out of the URL"
        raise ConfigError(message) from error
