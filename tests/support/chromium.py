"""Finds a Chromium for the browser tests, or gets one from Debian's packages, with or without root.

In this order: the variable COATCHECK_CHROMIUM; one on PATH; one that an earlier run unpacked into .cache; then apt-get
(see packages.py).
"""

import os
import shutil
import subprocess

from tests.support.packages import NoPackageError, Packages

ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO = "install Chromium or Chrome, or name one in COATCHECK_CHROMIUM"
PACKAGES = Packages("Chromium", "chromium", ("chromium", "fonts-dejavu-core"), HOW_TO)
UNPACKED = PACKAGES.cache / "chromium"

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
    try:
        return PACKAGES.get(_present, _wrap)
    except NoPackageError as problem:
        raise NoBrowserError(str(problem)) from problem


def _present() -> str | None:
    candidates = (*ON_PATH, str(UNPACKED))
    return next((path for path in map(shutil.which, candidates) if path and _runs(path)), None)


def _runs(path: str) -> bool:
    """Tell whether it starts; some systems have a `chromium-browser` that only says where to get one."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _wrap() -> None:
    """Make a program of what was unpacked: one that finds its libraries and fonts."""
    tree, fonts = PACKAGES.tree, PACKAGES.cache / "fonts.conf"
    fonts.write_text(
        '<?xml version="1.0"?><fontconfig>'
        f"<dir>/usr/share/fonts</dir><dir>{tree}/usr/share/fonts</dir>"
        f"<cachedir>{PACKAGES.cache}/fonts</cachedir></fontconfig>"
    )
    UNPACKED.write_text(
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH='{PACKAGES.libraries()}' FONTCONFIG_FILE='{fonts}'\n"
        f"exec '{tree}/usr/lib/chromium/chromium' \"$@\"\n"
    )
    UNPACKED.chmod(0o755)
