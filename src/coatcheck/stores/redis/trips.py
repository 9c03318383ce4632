"""The way of a round through the servers: who is asked what, and what becomes of refusals and redirections.

No waiting here; `wire` and `wire_async` carry the commands and hand in what came back.

Rules
- Commands that only read are redirected one by one, so that a slot half moved answers each key from where it lies.
  A script and what belongs to it are redirected together.
- A failure befalls only those who asked that server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from redis import exceptions

from ...core.errors import NotApplied, StoreError
from . import faults
from .places import Places
from .scripts import SOURCES
from .steps import Address, Answers, Ask, Command

HOPS: Final = 6
"""How often a command is sent on within one round: to where its slot went, or with the text of its script."""

_ELSEWHERE: Final = {"CLUSTERDOWN", "MASTERDOWN", "READONLY", "UNBLOCKED"}


class Piece(msgspec.Struct):
    """Commands that stay together, and where they are sent."""

    ask: int
    first: int
    commands: Sequence[Command]
    address: Address
    decides: bool
    asking: bool = False


class Trip:
    """One round under way."""

    def __init__(self, places: Places, asks: Sequence[Ask]) -> None:
        """Find out who is to be asked what."""
        self._places = places
        self._answers: list[list[Any]] = [[None] * len(ask.commands) for ask in asks]
        self._failed: dict[int, StoreError] = {}
        self._waiting: list[Piece] = []
        for number, (where, commands, decides) in enumerate(asks):
            try:
                address = places.of(where)
            except StoreError as error:
                places.wrong = True
                self._failed[number] = error
                continue
            if decides or not places.clustered:
                self._waiting.append(Piece(number, 0, commands, address, decides))
            else:
                self._waiting += (Piece(number, at, (one,), address, decides=False) for at, one in enumerate(commands))

    def due(self) -> dict[Address, list[Piece]]:
        """Return what has to be sent now, by server."""
        due: dict[Address, list[Piece]] = {}
        for piece in self._waiting:
            due.setdefault(piece.address, []).append(piece)
        self._waiting = []
        return due

    def answers(self) -> list[Answers]:
        """Return what came back."""
        for piece in self._waiting:
            message = "servers kept sending each other a command of the session store; nothing was written; try again"
            self._failed[piece.ask] = NotApplied(message)
        return [self._failed.get(number, answers) for number, answers in enumerate(self._answers)]

    def lost(self, pieces: Iterable[Piece], error: BaseException, *, sent: bool) -> None:
        """Take note that a server did not answer."""
        for piece in pieces:
            if isinstance(error, StoreError):
                self._failed[piece.ask] = error
            else:
                self._failed[piece.ask] = faults.broken(error, piece.address, sent=sent, decides=piece.decides)
        self._places.wrong = True

    def fail(self, pieces: Iterable[Piece], error: StoreError) -> None:
        """Take note that something was not even sent, though the server may be well."""
        self._failed.update((piece.ask, error) for piece in pieces)

    def came(self, pieces: Sequence[Piece], answers: Sequence[Any]) -> None:
        """Take what a server answered; send on what it sent elsewhere."""
        at = 0
        for piece in pieces:
            mine = answers[at + piece.asking : at + piece.asking + len(piece.commands)]
            at += piece.asking + len(piece.commands)
            for position, answer in enumerate(mine, piece.first):
                self._answers[piece.ask][position] = answer
            refused = next((answer for answer in mine if isinstance(answer, exceptions.ResponseError)), None)
            if refused is not None:
                self._refused(piece, refused)

    def _refused(self, piece: Piece, error: exceptions.ResponseError) -> None:
        if isinstance(error, exceptions.AskError):
            # the client library derives the one from the other: MOVED is for good, ASK for this once
            self._elsewhere(piece, error, asking=not isinstance(error, exceptions.MovedError))
        elif isinstance(error, exceptions.NoScriptError) and piece.commands[0][0] == "EVALSHA":
            _, sha, *arguments = piece.commands[0]
            piece.commands = [("EVAL", SOURCES[sha], *arguments), *piece.commands[1:]]
            self._waiting.append(piece)
        else:
            refusal = faults.refusal(error, piece.address)
            if refusal is not None:
                self._failed[piece.ask] = refusal
                self._places.wrong = self._places.wrong or faults.code_of(error) in _ELSEWHERE

    def _elsewhere(self, piece: Piece, error: exceptions.AskError, *, asking: bool) -> None:
        if not self._places.clustered:
            where = faults.shown(piece.address)
            message = f"{where} is part of a Cluster; name it so: redis+cluster://host:port"
            self._failed[piece.ask] = StoreError(message)
            return
        address = (error.host or piece.address[0], int(error.port))
        if not asking:
            self._places.moved(int(error.slot_id), address)
        piece.address, piece.asking = address, asking
        self._waiting.append(piece)


def commands_of(pieces: Iterable[Piece]) -> list[Command]:
    """Return the commands of some pieces as they are sent."""
    commands: list[Command] = []
    for piece in pieces:
        if piece.asking:
            commands.append(("ASKING",))
        commands += piece.commands
    return commands


def packed_of(commands: Iterable[Command]) -> bytes:
    """Return commands as they travel (RESP): bytes as they are, text in UTF-8, numbers as Python writes them."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            raw = word if type(word) is bytes else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def has_refusal(answers: Iterable[Any]) -> bool:
    """Tell whether a server refused one of the commands."""
    return any([isinstance(answer, exceptions.ResponseError) for answer in answers])  # noqa: C419 - few, and quicker


GREETING: Final[tuple[Command, ...]] = (("INFO", "replication"), ("INFO", "memory"))
"""What every new connection asks first."""


def greet(answers: Sequence[Any], address: Address, *, clustered: bool) -> None:
    """Raise StoreError if a server that answered the greeting so must not keep sessions."""
    why = _objection(answers, address, clustered=clustered)
    if why is not None:
        raise why


def _objection(answers: Sequence[Any], address: Address, *, clustered: bool) -> StoreError | None:
    told: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, bytes):
            lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
            told.update((name, value) for name, _, value in lines)
        elif isinstance(answer, exceptions.ResponseError) and faults.code_of(answer) != "NOPERM":
            why = faults.refusal(answer, address)
            if why is not None:
                return why
    if told.get("role") == "slave" and not clustered:
        where = faults.shown(address)
        return NotApplied(f"{where} is a replica; name the primary, or let Sentinels do it (redis+sentinel://)")
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return StoreError(
            f"{faults.shown(address)} evicts keys when memory is short (maxmemory-policy {policy}), and with them "
            "sessions, revocations and events; set maxmemory-policy noeviction"
        )
    return None
