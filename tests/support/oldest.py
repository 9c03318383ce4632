"""Each framework's tests in an environment of its own, with the oldest versions that pyproject.toml allows.

python3 run oldest                    every framework, one after the other
python3 run oldest flask quart        these
python3 run oldest --newest django    the newest versions that this Python can have
python3 run oldest --newest --python 3.13 django    that another Python can have, as uv finds it (or its path)
python3 run oldest --keep flask       keep the environment, under .cache/oldest, for the next run
python3 run oldest flask -- -k login  what follows -- goes to pytest

Only the framework and what the extra names beside it are old; all else is what a user would get today. What an old
framework cannot be run with, and does not say, stands in BESIDE.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[2]
PLACE: Final = ROOT / ".cache" / "oldest"
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final[dict[str, list[str]]] = PROJECT["optional-dependencies"]

#: tests of each framework's adapter, beside tests/adapters/test_<framework>*.py
MORE: Final = {
    "django": [
        *("tests/adapters/test_csrf_django.py", "tests/stores/test_django.py"),
        *("tests/examples/test_channels.py", "tests/examples/test_django.py"),
    ],
    "fastapi": ["tests/adapters/test_journey.py"],
    "pyramid": ["tests/examples/test_pyramid.py"],
    "starlette": ["tests/adapters/test_journey.py"],
}
FRAMEWORKS: Final = (
    "aiohttp",
    "django",
    "fastapi",
    "flask",
    "litestar",
    "pyramid",
    "quart",
    "sanic",
    "starlette",
    "tornado",
)
#: frameworks that the tests of another one need
ALSO: Final = {"litestar": ["starlette"], "starlette": ["fastapi"]}
#: what the oldest version of a framework needs beside it, though it does not say so
BESIDE: Final = {
    "django": ["django-htmx>=1"],  # the newest needs Django 5.2
    "flask": ["asgiref>=3.2"],  # for awaiting views: the extra flask[async]
    "quart": ["flask<3.1"],  # it has no PROVIDE_AUTOMATIC_OPTIONS, which Flask 3.1 reads
    "sanic": ["websockets<14"],  # from 14 on, each of its sockets closes with 1006: "invalid opcode"
}


class NoEnvironmentError(Exception):
    """An environment could not be made."""


def main(arguments: Sequence[str]) -> int:
    """Run the tests of the named frameworks; return 1 if any failed."""
    cut = list(arguments).index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="python3 run oldest", description=__doc__.partition("\n")[0])
    parser.add_argument("frameworks", nargs="*", metavar="FRAMEWORK", help=f"of {', '.join(FRAMEWORKS)}; all if none")
    parser.add_argument("--newest", action="store_true", help="the newest versions instead of the oldest")
    parser.add_argument(
        "--python", metavar="PYTHON", default=sys.executable, help="a version or path; this one if none"
    )
    parser.add_argument("--keep", action="store_true", help="keep the environments for the next run")
    chosen = parser.parse_args(arguments[:cut])
    unknown = sorted(set(chosen.frameworks) - set(FRAMEWORKS))
    if unknown:
        parser.error(f"no adapter is for {', '.join(unknown)}; there are {', '.join(FRAMEWORKS)}")
    lines, failed = [], False
    for framework in chosen.frameworks or FRAMEWORKS:
        started = time.monotonic()
        try:
            outcome, bad = tried(framework, arguments[cut + 1 :], chosen)
        except NoEnvironmentError as error:
            outcome, bad = str(error), True
        failed = failed or bad
        lines.append(f"{framework:10} {outcome} ({time.monotonic() - started:.0f} s)")
        print(lines[-1], flush=True)
    if len(lines) > 1:
        print(*lines, sep="\n")
    return 1 if failed else 0


def tried(framework: str, options: Sequence[str], chosen: argparse.Namespace) -> tuple[str, bool]:
    """Return what became of a framework's tests, in a line, and whether they failed."""
    base = chosen.python
    other = "" if base == sys.executable else "-" + re.sub(r"[^\w.]+", "-", base).strip("-")
    place = PLACE / f"{framework}-{'newest' if chosen.newest else 'oldest'}{other}"
    pins = [] if chosen.newest else floors(framework, base)
    python = made(place, framework, pins, base)
    own = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/adapters").glob(f"test_{framework}*.py"))
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *own, *MORE.get(framework, []), *options]
    done = subprocess.run(command, cwd=ROOT, env=entered(place), check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    last = re.findall(r"^(?:=+ )?(\d+ \w+.*?)(?: in [\d.]+.*)?$", done.stdout, re.MULTILINE)
    said = last[-1] if last else f"pytest ended with {done.returncode}"
    version = versions(python, [requirement.name for requirement in wanted(framework)])
    if not chosen.keep:
        shutil.rmtree(place)
    return f"{version}: {said}", done.returncode != 0


def wanted(framework: str) -> list[Requirement]:
    """Return what the extra of a framework names."""
    return [Requirement(line) for line in EXTRAS[framework]]


def floors(framework: str, base: str) -> list[str]:
    """Return the oldest version of each of them that a Python can have."""
    lines = [*PROJECT["dependencies"], *EXTRAS[framework]]
    command = [uv(), "pip", "compile", "-", "--resolution", "lowest-direct", "--python", base, "--quiet"]
    command += ["--no-header", "--no-annotate"]
    found = attempt(command, "\n".join(lines))
    pins = {canonicalize_name(Requirement(line).name): line for line in found.splitlines() if "==" in line}
    return [pins[canonicalize_name(requirement.name)] for requirement in wanted(framework)]


def made(place: Path, framework: str, pins: list[str], base: str) -> Path:
    """Make an environment with coatcheck, all that its tests need, and the pinned framework; return its Python."""
    python = place / "bin" / "python"
    if not python.exists():
        attempt([uv(), "venv", "--quiet", "--python", base, str(place)])
    beside = BESIDE.get(framework, []) if pins else []
    said = {canonicalize_name(Requirement(line).name) for line in (*pins, *beside)}
    others = [*PROJECT["dependencies"], *everything(framework)]
    lines = [line for line in others if canonicalize_name(Requirement(line).name) not in said]
    command = [uv(), "pip", "install", "--quiet", "--python", str(python), "--requirements", "-"]
    attempt(command, "\n".join([*lines, *pins, *beside]))
    source = str(ROOT / "src")
    site = next(place.glob("lib/python*/site-packages"))
    (site / "coatcheck-source.pth").write_text(source + "\n")
    return python


def everything(framework: str) -> list[str]:
    """Return what our tests need, without the other frameworks: they need not go together with an old one."""
    names = (*sorted(EXTRAS.keys() - {*FRAMEWORKS, "all", "bench"}), framework, *ALSO.get(framework, []))
    return [line for name in names for line in EXTRAS[name] if not line.startswith("coatcheck")]


def versions(python: Path, names: Sequence[str]) -> str:
    """Return which versions are installed of some packages."""
    code = (
        "import sys; from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in sys.argv[1:]), "
        "f'Python {sys.version.split()[0]}', sep=', ')"
    )
    return attempt([str(python), "-c", code, *names]).strip()


def entered(place: Path) -> dict[str, str]:
    """Return our environment variables, with an environment entered."""
    changed = {"VIRTUAL_ENV": str(place), "PATH": f"{place / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")} | changed


def uv() -> str:
    """Return the path of uv: only it finds the oldest versions."""
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        tools = ROOT / ".venv-tools"
        if not (tools / "bin" / "uv").exists():
            attempt([sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(tools), "uv"])
        found = str(tools / "bin" / "uv")
    return found


def attempt(command: list[str], text: str | None = None) -> str:
    """Return what a command says; raise NoEnvironmentError with the end of its complaint if it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-400:]
        message = f"no environment: {' '.join(command[:3])} said: {said}"
        raise NoEnvironmentError(message)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
