"""Finds a Chromium for the browser tests, or gets one from Debian's packages, with or without root.

In this order: the variable COATCHECK_CHROMIUM; one on PATH; one that an earlier run unpacked into .cache; then apt-get:
as root it installs the package, as anyone else it downloads the packages that are missing and unpacks them into .cache.
Run as a module, it says what it found.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "chromium"
UNPACKED = CACHE / "chromium"

ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core")

ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium refuses to run as root inside its sandbox
    *(("--no-sandbox",) if os.geteuid() == 0 else ()),
)

HOW_TO = "install Chromium or Chrome, or name one in COATCHECK_CHROMIUM"


class NoBrowserError(Exception):
    """There is no Chromium and none could be had; the message says how to get one."""


def find_chromium() -> str:
    """Return the path of a Chromium that runs, or raise NoBrowserError."""
    named = os.environ.get("COATCHECK_CHROMIUM")
    if named:
        if not os.access(named, os.X_OK):
            message = f"COATCHECK_CHROMIUM names no program that can be run ({named})"
            raise NoBrowserError(message)
        return named
    found = _present()
    if found:
        return found
    if not shutil.which("apt-get"):
        message = f"no Chromium found, and no apt-get to get one: {HOW_TO}"
        raise NoBrowserError(message)
    with _alone():
        # another process may have got it while this one waited
        found = _present()
        if found:
            return found
        if os.geteuid() == 0:
            _install()
        else:
            _unpack()
    found = _present()
    if not found:
        message = f"apt-get brought no Chromium that runs: {HOW_TO}"
        raise NoBrowserError(message)
    return found


def _present() -> str | None:
    candidates = (*ON_PATH, str(UNPACKED))
    return next((path for path in map(shutil.which, candidates) if path and _runs(path)), None)


def _runs(path: str) -> bool:
    """Tell whether it starts; some systems have a `chromium-browser` that only says where to get one."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other test processes from getting a browser at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install() -> None:
    print("getting Chromium: apt-get install", *PACKAGES, flush=True)
    _run("apt-get", "-qq", "update")
    _run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *PACKAGES)


def _unpack() -> None:
    """Let apt-get work out and download what this system lacks, and unpack that; none of it needs root."""
    print(f"getting Chromium: unpacking Debian's packages into {CACHE.relative_to(ROOT)}", flush=True)
    archives, tree = CACHE / "archives", CACHE / "root"
    for folder in (archives / "partial", CACHE / "lists" / "partial", tree):
        folder.mkdir(parents=True, exist_ok=True)
    ours = (
        ("Dir::State::Lists", CACHE / "lists"),
        ("Dir::Cache", CACHE),
        ("Dir::Cache::Archives", archives),
        ("Debug::NoLocking", "1"),
        ("APT::Sandbox::User", ""),
    )
    apt = ("apt-get", "-qq", *(f"-o{name}={value}" for name, value in ours))
    _run(*apt, "update")
    _run(*apt, "install", "-y", "--no-install-recommends", "--download-only", *PACKAGES)
    for package in sorted(archives.glob("*.deb")):
        _run("dpkg", "-x", str(package), str(tree))
    libraries = sorted({str(path.parent) for path in tree.rglob("*.so*")})
    fonts = CACHE / "fonts.conf"
    fonts.write_text(
        '<?xml version="1.0"?><fontconfig>'
        f"<dir>/usr/share/fonts</dir><dir>{tree}/usr/share/fonts</dir><cachedir>{CACHE}/fonts</cachedir></fontconfig>"
    )
    UNPACKED.write_text(
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH='{':'.join(libraries)}' FONTCONFIG_FILE='{fonts}'\n"
        f"exec '{tree}/usr/lib/chromium/chromium' \"$@\"\n"
    )
    UNPACKED.chmod(0o755)
    shutil.rmtree(archives)


def _run(*command: str) -> None:
    variables = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        act = " ".join(word for word in command if not word.startswith("-"))
        message = f"`{act}` failed ({said[-1] if said else done.returncode}): {HOW_TO}"
        raise NoBrowserError(message)


if __name__ == "__main__":
    try:
        print("browser:", find_chromium())
    except NoBrowserError as problem:
        print("no browser:", problem)
