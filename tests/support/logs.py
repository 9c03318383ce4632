"""What a test did to the root logger goes with it: frameworks configure it, with threads that write to its stream.

Litestar's default is a queue and a listener thread that writes to what sys.stderr was when the application was made:
pytest's capture, which is closed when that test is over. Every later record would be a traceback.
"""

import atexit
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener


@contextmanager
def usual_logging() -> Iterator[None]:
    """Put the root logger back as it was, and end the listeners that came meanwhile."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        if root.handlers != handlers or root.level != level:
            root.handlers[:] = handlers
            root.setLevel(level)
            _end_listeners()


def _end_listeners() -> None:
    """End the threads that write what loggers put into queues, and take the queues from the loggers."""
    for thread in threading.enumerate():
        listener = getattr(getattr(thread, "_target", None), "__self__", None)
        if isinstance(listener, QueueListener):
            atexit.unregister(listener.stop)
            listener.stop()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers[:] = [one for one in logger.handlers if not isinstance(one, QueueHandler)]
