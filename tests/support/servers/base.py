"""What all servers of the tests share: a place, a process, and a clear word where one cannot be had.

Rules
- A server that the environment names (COATCHECK_TEST_POSTGRESQL=postgresql://...) is used instead of one of our own.
- Ours listen on a free port of 127.0.0.1, keep their files in a fresh directory, and end with the process that asked
  for them, whatever happens to it.
- Where one cannot be had, `NoServerError` says why and how to get it: a loud skip, and a failure in CI.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE = 30.0
"""Seconds until a server that does not answer is given up."""


class NoServerError(Exception):
    """There is no such server here and none could be had; the message says how to get one."""


def named(variable: str) -> str | None:
    """Return the server that the environment names, if it does."""
    return os.environ.get(variable) or None


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def directory(kind: str, *, owner: str | None = None) -> Path:
    """Return a fresh directory, removed when this process ends; `owner` may write it, if we are root."""
    place = Path(tempfile.mkdtemp(prefix=f"coatcheck-{kind}-"))
    place.chmod(0o755)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    if owner is not None and os.geteuid() == 0:
        shutil.chown(place, owner)
    return place


def as_user(user: str, command: Sequence[str]) -> list[str]:
    """Return the command as another user runs it, if we are root: some servers refuse root."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", f"--reuid={user}", "--clear-groups", *command]


class Minder:
    """A small process that kills a server's group once this process is gone, however it went.

    It waits on a pipe whose other end is ours alone: a line means that the server is over, an end that we are.
    """

    def __init__(self, pid: int) -> None:
        """Mind the server of that process id, which leads a group of its own."""
        command = ("sh", "-c", 'read line || kill -s KILL -- "-$1"', "minder", str(pid))
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
        )

    def dismiss(self) -> None:
        """Let it go: the server is over, and its process id may become another's."""
        if self._process.returncode is None:
            with suppress(BrokenPipeError):
                self._process.communicate(b"\n")


class Server:
    """A running server process."""

    def __init__(
        self,
        command: Sequence[str],
        ready: Callable[[], object],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it and wait until `ready` raises nothing; else raise NoServerError with its last words."""
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else {**os.environ, **environment},
                start_new_session=True,
            )
        self._minder = Minder(self.process.pid)
        atexit.register(self.kill)
        self._await(command[0], ready)

    def _await(self, name: str, ready: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                ready()
            except Exception as problem:
                if self.process.poll() is None and time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                words = self._log.read_text(errors="replace")[-2000:]
                self.kill()
                message = f"{name} did not start ({problem!r}); its last words:\n{words}"
                raise NoServerError(message) from problem
            return

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._minder.dismiss()

    def stop(self) -> None:
        """Ask it to end, and wait until it did."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._minder.dismiss()

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nobody."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)
