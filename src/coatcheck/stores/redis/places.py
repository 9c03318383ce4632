"""Where the primaries are: one server, whoever the Sentinels name, or the owners of a Cluster's slots.

    redis://[user:password@]host:port/db          one server; rediss:// with TLS; unix:///path a socket
    redis+sentinel://host:port,host:port/name/db  the primary that the Sentinels name
    redis+cluster://host:port,host:port           a Cluster; any of its nodes will do

`valkey` may stand for `redis` everywhere. Options follow a question mark, as redis-py knows them.

Rules
- What is known is a value that is replaced as a whole: threads and event loops share it without a lock.
- Only primaries are asked: a replica may not yet know of a revocation.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from redis import connection
from redis.asyncio import connection as asyncio_connection
from redis.crc import key_slot

from ...core.errors import ConfigError, NotApplied, StoreError
from .keys import Tag
from .steps import Address, Ask, Command, Steps

Kind: TypeAlias = Literal["single", "sentinel", "cluster"]

SLOTS: Final = 16384

_URL: Final = re.compile(r"(redis|rediss|valkey|valkeys)(?:\+(sentinel|cluster))?://(.*)", re.DOTALL).fullmatch
_SENTINEL_PORT: Final = 26379
_PORT: Final = 6379


class Target(NamedTuple):
    """What a URL or a client says of a server: how to reach it, and what every connection to it is made with."""

    kind: Kind
    seeds: tuple[Address, ...]
    options: dict[str, Any]
    tls: bool = False
    name: str = ""
    sentinel_options: dict[str, Any] = {}  # noqa: RUF012 - never changed


def target_of(url: str) -> Target:
    """Return what a URL says; raise ConfigError, without its password, for one that is not ours."""
    if url.startswith("unix://"):
        options = _parsed(url)
        path = options.pop("path", "")
        return Target("single", ((path, 0),), options)
    match = _URL(url)
    if match is None:
        message = (
            f"{url.partition('://')[0]!r} is no scheme of a Redis store; write redis://host:port/0, "
            "redis+sentinel://host:port,host:port/name or redis+cluster://host:port,host:port"
        )
        raise ConfigError(message)
    scheme, kind, rest = match.groups()
    tls = scheme in ("rediss", "valkeys")
    rest, question, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    who, at, hosts = netloc.rpartition("@")
    name = ""
    if kind == "sentinel":
        name, _, path = path.partition("/")
        if not name:
            message = "a Sentinel URL ends with the name of the primary: redis+sentinel://host:port,host:port/name"
            raise ConfigError(message)
    standard = _SENTINEL_PORT if kind == "sentinel" else _PORT
    seeds = tuple(_address(host, standard) for host in hosts.split(","))
    if len(seeds) > 1 and kind is None:
        message = (
            f"{scheme}:// names one server (found {len(seeds)}); write {scheme}+sentinel:// or {scheme}+cluster://"
        )
        raise ConfigError(message)
    options = _parsed(f"redis://{who}{at}host/{path}{question}{query}")
    options.pop("host", None)
    if kind == "cluster" and options.pop("db", 0):
        message = "a Cluster has one database, 0; leave the number out of the URL"
        raise ConfigError(message)
    return Target(cast("Kind", kind or "single"), seeds, options, tls, unquote(name))


def target_of_client(client: Any) -> Target:
    """Return what a client of redis-py (blocking or awaited, of one server, Sentinel or Cluster) is made with."""
    manager = getattr(client, "nodes_manager", None)
    if manager is not None:
        given = dict(manager.connection_kwargs)
        seeds = tuple((node.host, int(node.port)) for node in manager.startup_nodes.values())
        return Target("cluster", seeds, _kept(given), _is_tls(given, manager))
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        message = f"client is a Redis or RedisCluster of redis-py (found {type(client).__name__}); or give a URL"
        raise ConfigError(message)
    given = dict(pool.connection_kwargs)
    tls = _is_tls(given, pool)
    if hasattr(pool, "sentinel_manager"):
        sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        seeds = tuple((one["host"], int(one["port"])) for one in sentinels)
        return Target("sentinel", seeds, _kept(given), tls, pool.service_name, _kept(sentinels[0]))
    if "path" in given:
        return Target("single", ((given["path"], 0),), _kept(given))
    return Target("single", ((given.get("host", "localhost"), int(given.get("port", _PORT))),), _kept(given), tls)


class Places:
    """Knows the primary of every shard, or how to find it out."""

    def __init__(self, target: Target) -> None:
        """Know nothing yet, unless there is nothing to find out."""
        self.target = target
        self.clustered = target.kind == "cluster"
        self._one: Address | None = target.seeds[0] if target.kind == "single" else None
        self._slots: dict[int, Address] = {}
        self._tags: dict[Tag, int] = {}
        self.wrong = False
        """Something answered that it is not, or no longer, the one to ask."""

    @property
    def known(self) -> bool:
        """Whether there is somebody to ask."""
        return bool(self._slots) if self.clustered else self._one is not None

    def of(self, where: Tag | Address) -> Address:
        """Return the address of a shard's primary."""
        found = where if isinstance(where, tuple) else self.maybe(where)
        if found is None:
            message = "no server is known for a shard of the session store; nothing was written; check the Cluster"
            raise NotApplied(message)
        return found

    def maybe(self, tag: Tag) -> Address | None:
        """Return the address of a shard's primary, if it is known."""
        if not self.clustered:
            return self._one
        slot = self._tags.get(tag)
        if slot is None:
            slot = self._tags[tag] = key_slot(tag.encode())
        return self._slots.get(slot)

    def is_sentinel(self, address: Address) -> bool:
        """Tell whether an address is that of a Sentinel, which keeps no data."""
        return self.target.kind == "sentinel" and address in self.target.seeds

    def primaries(self) -> Sequence[Address]:
        """Return the address of each primary."""
        if self.clustered:
            return sorted(set(self._slots.values()))
        return () if self._one is None else (self._one,)

    def moved(self, slot: int, address: Address) -> None:
        """Learn that a slot has another owner; the rest is looked up at the next chance."""
        self._slots = {**self._slots, slot: address}
        self.wrong = True

    def find(self) -> Steps[None]:
        """Ask anybody who may know."""
        if self.target.kind == "single":
            self.wrong = False
            return
        known = self.primaries() if self.clustered else ()
        seeds = random.sample(self.target.seeds, len(self.target.seeds))
        problem: StoreError | None = None
        for address in dict.fromkeys((*random.sample(known, len(known)), *seeds)):
            (answers,) = yield [Ask(address, [self._question()])]
            if isinstance(answers, StoreError):
                problem = answers
                if not problem.retry:
                    raise problem
            elif self._learn(answers[0], address):
                self.wrong = False
                return
        if problem is not None:
            raise problem
        message = f"the Sentinels know no primary named {self.target.name!r}; nothing was written; check the name"
        raise NotApplied(message)

    def _question(self) -> Command:
        return ("CLUSTER", "SLOTS") if self.clustered else ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.target.name)

    def _learn(self, answer: Any, asked: Address) -> bool:
        """Take over what somebody told, if he could tell it."""
        if isinstance(answer, Exception):
            message = f"{asked[0]}:{asked[1]} is no {self.target.kind} ({answer}); correct the URL of the store"
            raise StoreError(message) from answer
        if not answer:
            return False
        if self.clustered:
            slots = {}
            for first, last, (host, port, *_), *_ in answer:
                address = (host.decode() or asked[0], int(port))
                slots.update(dict.fromkeys(range(int(first), int(last) + 1), address))
            self._slots = slots
        else:
            self._one = (answer[0].decode(), int(answer[1]))
        return True

    def options(self, address: Address, *, awaited: bool) -> tuple[type[Any], dict[str, Any]]:
        """Return the class of a connection to an address, and what it is made with."""
        target = self.target
        given = target.sentinel_options if self.is_sentinel(address) else target.options
        kinds: Any = asyncio_connection if awaited else connection
        if not address[1]:
            return kinds.UnixDomainSocketConnection, {**given, "path": address[0]}
        kind = kinds.SSLConnection if target.tls else kinds.Connection
        return kind, {**given, "host": address[0], "port": address[1]}


_OURS: Final = re.compile(r"username|password|db|credential_provider|client_name|socket_keepalive.*|ssl_.*").fullmatch
"""What we take over of a client's settings: who it is; how it waits and retries is our own affair."""


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _OURS(name) and value is not None}


def _is_tls(options: dict[str, Any], pool: Any) -> bool:
    kind = getattr(pool, "connection_class", None) or options.get("connection_class")
    return "SSL" in getattr(kind, "__name__", "")


def _parsed(url: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = dict(cast("Any", connection).parse_url(url))
    except ValueError as error:
        message = f"the URL of a Redis store has an option that redis-py does not know ({error}); correct it"
        raise ConfigError(message) from error
    options.pop("connection_class", None)
    return options


def _address(text: str, standard: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError as error:
        message = f"{text!r} is no host and port; write host:{standard}"
        raise ConfigError(message) from error
    if not parts.hostname:
        message = "the URL of a Redis store names a host; write redis://localhost:6379/0"
        raise ConfigError(message)
    return parts.hostname, port or standard
