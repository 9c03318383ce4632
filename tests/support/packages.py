"""Gets programs for the tests from Debian's packages: root installs them, anyone else unpacks them into .cache.

`get` asks whether the program is there, fetches it if not, and asks again; of several test processes one fetches.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]


class NoPackageError(Exception):
    """The program is not there and could not be had; the message says how to get it."""


class Packages:
    """The packages of one program."""

    def __init__(self, what: str, folder: str, names: Sequence[str], how_to: str) -> None:
        """Remember; get nothing. `folder` is below .cache."""
        self.what, self._names, self._how_to = what, names, how_to
        self.cache = ROOT / ".cache" / folder
        self.tree = self.cache / "root"

    def get(self, present: Callable[[], T | None], unpacked: Callable[[], object] = lambda: None) -> T:
        """Return what `present` finds, if need be after fetching; `unpacked` is called after unpacking."""
        found = present()
        if found is not None:
            return found
        if not shutil.which("apt-get"):
            message = f"no {self.what} found, and no apt-get to get one: {self._how_to}"
            raise NoPackageError(message)
        with self._alone():
            # another process may have got it while this one waited
            found = present()
            if found is None:
                self._fetch(unpacked)
                found = present()
        if found is None:
            message = f"apt-get brought no {self.what} that runs: {self._how_to}"
            raise NoPackageError(message)
        return found

    def libraries(self) -> str:
        """Return where the unpacked libraries lie, as LD_LIBRARY_PATH wants it."""
        return ":".join(sorted({str(path.parent) for path in self.tree.rglob("*.so*")}))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _fetch(self, unpacked: Callable[[], object]) -> None:
        if os.geteuid() == 0:
            print(f"getting {self.what}: apt-get install", *self._names, flush=True)
            self._run("apt-get", "-qq", "update")
            self._run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *self._names)
        else:
            self._unpack()
            unpacked()

    def _unpack(self) -> None:
        """Let apt-get work out and download what this system lacks, and unpack that; none of it needs root."""
        print(f"getting {self.what}: unpacking Debian's packages into {self.cache.relative_to(ROOT)}", flush=True)
        archives = self.cache / "archives"
        for folder in (archives / "partial", self.cache / "lists" / "partial", self.tree):
            folder.mkdir(parents=True, exist_ok=True)
        ours = (
            ("Dir::State::Lists", self.cache / "lists"),
            ("Dir::Cache", self.cache),
            ("Dir::Cache::Archives", archives),
            ("Debug::NoLocking", "1"),
            ("APT::Sandbox::User", ""),
        )
        apt = ("apt-get", "-qq", *(f"-o{name}={value}" for name, value in ours))
        self._run(*apt, "update")
        self._run(*apt, "install", "-y", "--no-install-recommends", "--download-only", *self._names)
        for package in sorted(archives.glob("*.deb")):
            self._run("dpkg", "-x", str(package), str(self.tree))
        shutil.rmtree(archives)

    def _run(self, *command: str) -> None:
        # RUNLEVEL: install it, but do not start a system's own
        variables = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            act = " ".join(word for word in command if not word.startswith("-"))
            message = f"`{act}` failed ({said[-1] if said else done.returncode}): {self._how_to}"
            raise NoPackageError(message)
