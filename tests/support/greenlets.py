"""A store that is made before gevent takes the place of threads, as gunicorn --preload does, used by eight at once.

python -m tests.support.greenlets <url> [watch]   prints what the eight have, or where they hang

A lock that was made before is no greenlet's: whoever waits for it stops them all, the one that holds it too.
"""

import faulthandler
import sys
import threading
import warnings
from collections import Counter
from typing import Any

from coatcheck import SessionManager, open_store
from coatcheck.core.model import Query, Reply, Request
from coatcheck.flow.sync import Exchange

PATIENCE = 20
EIGHT = 8


def main(url: str, *more: str) -> None:
    """Log eight users in at once, as the first thing that happens in a process."""
    told: list[str] = []
    store: Any = open_store(url)
    manager = SessionManager(origins=["https://app.test"], on_event=[lambda event: told.append(event.name)])
    exchange = Exchange(manager, store)

    from gevent import monkey

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was late, as we know
        monkey.patch_all()
    import gevent

    faulthandler.dump_traceback_later(PATIENCE, exit=True)

    def login(user: str) -> str | None:
        session = exchange.begin(Request("POST", "https", "/", ((b"sec-fetch-site", b"same-origin"),)))
        assert not isinstance(session, Reply)
        session.login(user)
        assert not isinstance(exchange.finish(session, 200, ()), Reply)
        return session.subject

    if "watch" in more:
        gevent.joinall([gevent.spawn(store.watch, lambda handle: None) for _ in range(EIGHT)], raise_error=True)
    logins = [gevent.spawn(login, f"user-{number}") for number in range(EIGHT)]
    gevent.joinall(logins, raise_error=True)
    while len(told) < 2 * EIGHT:  # each login is two events; who waits in vain is told where, and ended
        gevent.sleep(0.01)
    while any(count > 1 for count in threads().values()):  # who came second with one lets it go
        gevent.sleep(0.01)
    stored = store.find(Query(live=True, limit=100)).items
    print(len({record.subject for record in stored}), len(told))
    store.close()


def threads() -> Counter[str]:
    """Return how many threads of ours there are, by name."""
    return Counter(thread.name for thread in threading.enumerate() if thread.name.startswith("coatcheck-"))


if __name__ == "__main__":
    main(*sys.argv[1:])
