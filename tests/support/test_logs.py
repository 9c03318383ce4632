"""What a framework does to logging in one test is over in the next."""

import logging
import threading
from logging.handlers import QueueHandler

from litestar import Litestar

from tests.support.logs import usual_logging


def test_a_frameworks_logging_ends_with_its_test() -> None:
    root, theirs = logging.getLogger(), logging.getLogger("litestar")
    handlers, level, threads = root.handlers[:], root.level, set(threading.enumerate())
    with usual_logging():
        Litestar([])
        Litestar([])
        assert root.level == logging.INFO
        assert root.handlers != handlers
        listening = [one for one in threading.enumerate() if one not in threads]
        assert listening
    assert root.handlers == handlers
    assert root.level == level
    assert not any(isinstance(one, QueueHandler) for one in theirs.handlers)
    assert not any(one.is_alive() for one in listening)


def test_other_handlers_of_before_stay() -> None:
    root, mine = logging.getLogger(), logging.NullHandler()
    root.addHandler(mine)
    try:
        with usual_logging():
            root.removeHandler(mine)
        assert mine in root.handlers
    finally:
        root.removeHandler(mine)
