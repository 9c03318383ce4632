"""Each framework's tests in an environment of its own, with the oldest versions that pyproject.toml allows.

python3 run oldest                         every framework, one after the other
python3 run oldest flask quart             these
python3 run oldest --newest django         the newest versions that the package index has for this Python
python3 run oldest --both                  the oldest, then the newest
python3 run oldest --both --python 3.13    on another Python: a version that is installed, or a path
python3 run oldest --keep flask            keep the environment, under .cache/oldest, for the next run
python3 run oldest flask -- -k login       what follows -- goes to pytest

Only the framework and what the extra names beside it are old; all else is what a user would get today. Unless options
for pytest narrow it, every row of the conformance suite is judged there, too.
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

from tests.conformance.adapters import EVERY, framework_of

ROOT: Final = Path(__file__).resolve().parents[2]
PLACE: Final = ROOT / ".cache" / "oldest"
MISJUDGED: Final = ", rows that are not as we say"
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
#: what a framework needs beside it for our tests, and does not bring
BESIDE: Final = {"flask": "asgiref>=3.2"}  # for awaiting views: the extra flask[async]


class NoEnvironmentError(Exception):
    """An environment could not be made."""


def main(arguments: Sequence[str]) -> int:
    """Run the tests of the named frameworks; return 1 if any failed."""
    cut = list(arguments).index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="python3 run oldest", description=__doc__.partition("\n")[0])
    parser.add_argument("frameworks", nargs="*", metavar="FRAMEWORK", help=f"of {', '.join(FRAMEWORKS)}; all if none")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--newest", action="store_true", help="the newest versions instead of the oldest")
    which.add_argument("--both", action="store_true", help="the oldest versions, then the newest")
    parser.add_argument("--python", default=sys.executable, help="another Python: a version, such as 3.13, or a path")
    parser.add_argument("--keep", action="store_true", help="keep the environments for the next run")
    chosen = parser.parse_args(arguments[:cut])
    unknown = sorted(set(chosen.frameworks) - set(FRAMEWORKS))
    if unknown:
        parser.error(f"no adapter is for {', '.join(unknown)}; there are {', '.join(FRAMEWORKS)}")
    ages = (False, True) if chosen.both else (chosen.newest,)
    lines, failed = [], False
    for framework in chosen.frameworks or FRAMEWORKS:
        for newest in ages:
            started = time.monotonic()
            try:
                trial = Trial(framework, python_of(chosen.python), newest=newest)
                outcome, bad = trial.run(arguments[cut + 1 :], keep=chosen.keep)
            except NoEnvironmentError as error:
                outcome, bad = str(error), True
            failed = failed or bad
            lines.append(f"{framework:10} {outcome} ({time.monotonic() - started:.0f} s)")
            print(lines[-1], flush=True)
    if len(lines) > 1:
        print(*lines, sep="\n")
    return 1 if failed else 0


class Trial:
    """One framework's tests, on one Python, with the oldest versions or the newest."""

    def __init__(self, framework: str, base: str, *, newest: bool) -> None:
        """Make nothing yet; `base` is the path of a Python."""
        self.framework, self.newest, self._base = framework, newest, base
        self.release = attempt([base, "-c", "import platform; print(platform.python_version())"]).strip()
        self.place = PLACE / f"{framework}-{'newest' if newest else 'oldest'}-{self.release}"
        self.python = self.place / "bin" / "python"

    def run(self, options: Sequence[str], *, keep: bool) -> tuple[str, bool]:
        """Return what became of the tests, in a line, and whether they failed."""
        self._make([] if self.newest else self._floors())
        own = sorted(
            str(path.relative_to(ROOT)) for path in (ROOT / "tests/adapters").glob(f"test_{self.framework}*.py")
        )
        own += MORE.get(self.framework, [])
        command = [str(self.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *own, *options]
        done = subprocess.run(
            command, cwd=ROOT, env=entered(self.place), check=False, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, flush=True)
        rows = "" if options else self._rows()
        last = re.findall(r"^(?:=+ )?(\d+ \w+.*?)(?: in [\d.]+.*)?$", done.stdout, re.MULTILINE)
        said = last[-1] if last else f"pytest ended with {done.returncode}"
        version = self._versions()
        if not keep:
            shutil.rmtree(self.place)
        return f"{version}: {said}{rows}", done.returncode != 0 or rows == MISJUDGED

    def _rows(self) -> str:
        """Judge every row of the conformance suite on a framework; return what became of it, to be added to a line."""
        names = [name for name in EVERY if framework_of(name) == self.framework]
        command = [str(self.python), "-W", "ignore", "-m", "tests.conformance.everywhere", *names]
        done = subprocess.run(
            command, cwd=ROOT, env=entered(self.place), check=False, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, flush=True)
        return MISJUDGED if done.returncode else ", every row as we say"

    def _floors(self) -> list[str]:
        """Return the oldest version of each package of the extra that this Python can have."""
        lines = [*PROJECT["dependencies"], *EXTRAS[self.framework]]
        command = [uv(), "pip", "compile", "-", "--resolution", "lowest-direct", "--python", self._base, "--quiet"]
        command += ["--no-header", "--no-annotate"]
        found = attempt(command, "\n".join(lines))
        pins = {name_of(line): line for line in found.splitlines() if "==" in line}
        return [pins[canonicalize_name(requirement.name)] for requirement in wanted(self.framework)]

    def _make(self, pins: list[str]) -> None:
        """Make an environment with coatcheck, all that its tests need, and the pinned framework."""
        if not self.python.exists():
            attempt([uv(), "venv", "--quiet", "--python", self._base, str(self.place)])
        beside = [BESIDE[self.framework]] if self.framework in BESIDE else []
        said = {name_of(line) for line in (*pins, *beside)}
        others = [*PROJECT["dependencies"], *everything(self.framework)]
        lines = [line for line in others if name_of(line) not in said]
        command = [uv(), "pip", "install", "--quiet", "--upgrade", "--python", str(self.python), "--requirements", "-"]
        attempt(command, "\n".join([*lines, *pins, *beside]))
        site = next(self.place.glob("lib/python*/site-packages"))
        (site / "coatcheck-source.pth").write_text(f"{ROOT / 'src'}\n")

    def _versions(self) -> str:
        """Return which versions of the extra's packages are installed."""
        code = (
            "import sys; from importlib.metadata import version as v; "
            "print(', '.join(f'{n} {v(n)}' for n in sys.argv[1:]))"
        )
        names = [requirement.name for requirement in wanted(self.framework)]
        return f"{attempt([str(self.python), '-c', code, *names]).strip()}, Python {self.release}"


def wanted(framework: str) -> list[Requirement]:
    """Return what the extra of a framework names."""
    return [Requirement(line) for line in EXTRAS[framework]]


def name_of(line: str) -> str:
    """Return the name in a requirement."""
    return canonicalize_name(Requirement(line).name)


def python_of(said: str) -> str:
    """Return the path of a Python that is installed: this one, or one named by path or version."""
    if Path(said).is_file():
        return said
    # pyenv's own commands answer for the versions that it was told to use only
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = sorted((*kept.glob(f"{said}/bin/python3"), *kept.glob(f"{said}.*/bin/python3")))
    if found:
        return str(found[-1])
    return attempt([uv(), "python", "find", "--no-python-downloads", "--system", said]).strip()


def everything(framework: str) -> list[str]:
    """Return what our tests need, without the other frameworks: they need not go together with an old one."""
    names = (*sorted(EXTRAS.keys() - {*FRAMEWORKS, "all", "bench"}), framework, *ALSO.get(framework, []))
    return [line for name in names for line in EXTRAS[name] if not line.startswith("coatcheck")]


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
