"""Break a Redis Cluster under load and count what was lost: `python -m bench.chaos [--seconds 300] [--kind valkey]`.

Three masters and three replicas of our own; threads and tasks log in, read, write, step up, show themselves and log out
(see tests/support/crowd.py), with one replica to confirm what is durable (wait_replicas=1). Meanwhile masters and
replicas are killed and come back empty, masters freeze and wake again, and slots move, held half-way for a second. The
exit code is 1 if a promise broke: a durable write lost, a revoked session open again, a wrong answer, a key that never
expires, a call that took longer than its deadline and a second.

What WAIT cannot promise. It counts replicas that have received a write; it is no vote. A write may survive that was
answered with an error. With several replicas, one that never got the write may be elected, if it sees more of the rest;
with all of a master's copies gone at once, everything goes with them. A master that is cut off from the others takes
plain writes, and acknowledges them, until it notices; those are lost, and counted here apart. So: durable writes are
confirmed by a replica, and none was lost in the runs of this program; that is an observation, not a proof.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from coatcheck.stores.redis import AsyncRedisStore, RedisStore
from tests.support.crowd import Book, Crowd
from tests.support.servers import redis

REST = 2.0
"""Seconds between one trouble and the next."""
CALL_GRACE = 1.0
ELECTION = 20.0


@dataclass
class Trouble:
    """One thing that was broken: from when until when servers were not what they should be."""

    what: str
    began: float
    healthy: float = 0.0
    next: float = float("inf")


class Chaos:
    """Breaks a Cluster, one thing after another, each mended before the next."""

    def __init__(self, cluster: redis.Cluster, crowd: Crowd, seed: int) -> None:
        """Take a healthy Cluster, and a crowd whose slots are worth moving."""
        self._cluster, self._crowd, self._chance = cluster, crowd, random.Random(seed)
        self.troubles: list[Trouble] = []

    def reign(self, seconds: float) -> None:
        """Break things for so long."""
        until = time.monotonic() + seconds
        acts = [self.kill_master, self.move_slots, self.freeze_master, self.kill_master, self.move_slots]
        acts += [self.kill_replica]
        while time.monotonic() < until:
            self._chance.shuffle(acts)
            for act in acts:
                if time.monotonic() < until:
                    time.sleep(REST)
                    self._one(act)
        time.sleep(REST)

    def _one(self, act: Callable[[], str]) -> None:
        trouble = Trouble("", time.monotonic())
        if self.troubles:
            self.troubles[-1].next = trouble.began
        self.troubles.append(trouble)
        trouble.what = act()
        self._cluster.wait_until_healthy(60)
        trouble.healthy = time.monotonic()

    def kill_master(self) -> str:
        """Kill one; when its replica has taken over, start it again, as a replica with nothing in it."""
        victim = self._chance.choice(self._cluster.masters())
        victim.kill()
        redis.wait_until(lambda: len(self._cluster.masters()) == len(redis.MASTERS), ELECTION, "a new master")
        time.sleep(self._chance.random() * 2)
        victim.restart()
        return "master killed"

    def kill_replica(self) -> str:
        """Kill one and start it again; meanwhile nothing of its master can be confirmed."""
        victim = self._cluster.replica_of(self._chance.choice(self._cluster.masters()))
        victim.kill()
        time.sleep(self._chance.random() * 2)
        victim.restart()
        return "replica killed"

    def freeze_master(self) -> str:
        """Freeze one until it is replaced, and let it wake in the belief that it still reigns."""
        victim = self._chance.choice(self._cluster.masters())
        victim.pause()
        try:
            redis.wait_until(lambda: len(self._cluster.masters()) == len(redis.MASTERS), ELECTION, "a new master")
            time.sleep(self._chance.random())
        finally:
            victim.resume()
        return "master frozen"

    def move_slots(self) -> str:
        """Move some slots that are in use, each held half-way for a second."""
        for _ in range(3):
            slot = redis.slot_of(f"{{{self._chance.choice(self._crowd.sessions[-50:]).handle[:2]}}}")
            source = self._cluster.master_of(slot)
            target = self._chance.choice([node for node in self._cluster.masters() if node is not source])
            self._cluster.begin_move(slot, target)
            keys = int(source.client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot))
            self._cluster.move_keys(slot, source, target, most=keys // 2)
            time.sleep(1)
            self._cluster.end_move(slot, source, target)
        return "slots moved"


def everlasting(cluster: redis.Cluster) -> tuple[list[str], int]:
    """Return the keys that never expire (but for the one that must not), and the number of all keys."""
    found, total = [], 0
    for node in cluster.masters():
        for key in node.client.scan_iter(count=1000):
            total += 1
            if node.client.ttl(key) == -1 and not key.endswith(":store"):
                found.append(str(key))
    return found, total


def table(book: Book, troubles: list[Trouble], seconds: float) -> str:
    """Return what happened as lines."""
    counts = Counter(trouble.what for trouble in troubles)
    lines = [f"{seconds:.0f} s, {sum(book.calls.values()):,} calls: {', '.join(_each(book.calls))}"]
    lines.append(
        f"{'':14} {'times':>6} {'no error after':>15} {'and confirmed':>14} {'healthy after':>14}   (longest, s)"
    )
    for what, times in sorted(counts.items()):
        these = [trouble for trouble in troubles if trouble.what == what]
        again = max(book.recovered(trouble.began, trouble.next) for trouble in these)
        sure = max(book.recovered(trouble.began, trouble.next, confirmed=True) for trouble in these)
        healthy = max(trouble.healthy - trouble.began for trouble in these)
        lines.append(f"{what:14} {times:6} {again:15.2f} {sure:14.2f} {healthy:14.2f}")
    failed = ", ".join(f"{verb} {kind} {times:,}" for (verb, kind), times in sorted(book.errors().items()))
    lines.append(f"errors: {failed or 'none'}")
    odd = Counter(one.words for one in book.failures if one.verb == "commit" and one.kind == "StoreError")
    lines += [f"  {times} x StoreError: {words}" for words, times in odd.most_common(5)]
    lines.append("slowest call: " + ", ".join(f"{verb} {took:.2f} s" for verb, took in sorted(book.slowest.items())))
    return "\n".join(lines)


def _each(calls: Counter[str]) -> list[str]:
    return [f"{verb} {times:,}" for verb, times in sorted(calls.items())]


def main() -> None:
    """Break, count and judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--kind", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    cluster = redis.cluster(chosen.kind, ours=True)
    try:
        sys.exit(0 if held(cluster, chosen) else 1)
    finally:
        cluster.stop()


def held(cluster: redis.Cluster, chosen: argparse.Namespace) -> bool:
    """Run, print, and return whether every promise held."""
    blocking = RedisStore(cluster.url, wait_replicas=1)
    awaited = AsyncRedisStore(cluster.url, wait_replicas=1)
    crowd = Crowd(blocking.epochs().salt, seed=chosen.seed)
    chaos = Chaos(cluster, crowd, chosen.seed)
    print(f"{chosen.kind} {cluster.masters()[0].info('server')['redis_version']}, 3 masters and 3 replicas", flush=True)
    with crowd.walking(blocking, chosen.threads), crowd.walking(awaited, chosen.tasks):
        chaos.reign(chosen.seconds)
    crowd.check(blocking)
    blocking.close()
    book = crowd.book
    forever, keys = everlasting(cluster)
    print(table(book, chaos.troubles, chosen.seconds))
    print(f"sessions {len(crowd.sessions):,}; keys {keys:,}, without an end {len(forever)}")
    print(f"acknowledged writes lost: durable {len(book.lost_durable)}, plain {len(book.lost_plain)}")
    print(f"sessions revived: {len(book.revived)}; wrong answers: {len(book.wrong)}")
    slow = [verb for verb, took in book.slowest.items() if took > _deadline(verb) + CALL_GRACE]
    broken = [*book.broken(), *(f"never expires: {key}" for key in forever), *(f"too slow: {verb}" for verb in slow)]
    for one in broken[:20]:
        print("BROKEN", one)
    print("every promise held" if not broken else f"{len(broken)} promises broken")
    return not broken


def _deadline(verb: str) -> float:
    return 0.5 if verb == "load" else 2.0


if __name__ == "__main__":
    main()
