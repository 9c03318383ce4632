"""What every test may ask for: a browser and a page; and the closing lines of a run."""

import asyncio
import json
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from coverage import Coverage
from coverage.exceptions import NoDataError
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.chromium import ARGUMENTS, NoBrowserError, find_chromium
from tests.support.logs import usual_logging
from tests.support.servers.base import NoServerError

T = TypeVar("T")

NO_BROWSER = "no browser: "
NO_SERVER = "no server: "
LOW = 85
INTERNAL_ERRORS = Path(__file__).parents[1] / ".cache" / "internal-errors.txt"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test log for those after it."""
    with usual_logging():
        return (yield)


@pytest.fixture(autouse=True)
def _usual_loops() -> Iterator[None]:
    """Let no test choose the event loops of those after it: Sanic makes uvloop's the usual ones."""
    before = asyncio.get_event_loop_policy()
    yield
    if asyncio.get_event_loop_policy() is not before:
        asyncio.set_event_loop_policy(before)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium; without one, skip, but fail where CI should have had one."""
    try:
        return find_chromium()
    except NoBrowserError as problem:
        if os.environ.get("CI"):
            pytest.fail(f"{NO_BROWSER}{problem}")
        pytest.skip(f"{NO_BROWSER}{problem}")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Return a running Chromium.

    It lasts for a module, not for the session: while it runs, Playwright keeps an event loop in this thread, and every
    `asyncio.run` and every async test would fail. For the same reason a module with browser tests has no async ones.
    """
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page in a context of its own: no cookie, no storage of another test."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def server_or_skip(start: Callable[[], T]) -> T:
    """Return what `start` starts; where it cannot be had, skip loudly, but fail where CI should have had it."""
    try:
        return start()
    except NoServerError as problem:
        if os.environ.get("CI"):
            pytest.fail(f"{NO_SERVER}{problem}")
        pytest.skip(f"{NO_SERVER}{problem}")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Let every report reach the one who gathers them: a lone surrogate in a logged line would end its process."""
    data = yield
    return data and sendable(data)


def sendable(value: Any) -> Any:
    """Return the same with every lone surrogate written as an escape."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {sendable(key): sendable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(sendable, value))
    return value


def pytest_internalerror(excrepr: object) -> None:
    """Keep what ended a process of the tests for the last lines of `python3 run test`."""
    INTERNAL_ERRORS.parent.mkdir(exist_ok=True)
    with INTERNAL_ERRORS.open("a", errors="backslashreplace") as file:
        file.write(f"{excrepr}\n\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was skipped for want of a browser or a server, and how much of the code ran."""
    for want, what in ((NO_BROWSER, "BROWSER TESTS"), (NO_SERVER, "TESTS ON REAL SERVERS")):
        skipped = [report for report in terminalreporter.getreports("skipped") if want in str(report.longrepr)]
        if skipped:
            terminalreporter.section(f"{len(skipped)} {what} SKIPPED", sep="!", red=True, bold=True)
            for reason in sorted({str(report.longrepr[2]) for report in skipped}):
                terminalreporter.line(reason)
    if config.pluginmanager.hasplugin("_cov") and config.getoption("cov_source"):
        for line in _coverage(Path(config.rootpath)):
            terminalreporter.line(line)


def _coverage(root: Path) -> Iterator[str]:
    """Describe the measured coverage: the total, and each file that lies low."""
    measured = Coverage(data_file=root / ".coverage")
    measured.load()
    report = root / ".cache" / "coverage.json"
    report.parent.mkdir(exist_ok=True)
    try:
        measured.json_report(outfile=str(report))
    except NoDataError:
        return
    found = json.loads(report.read_text())
    yield f"coverage {found['totals']['percent_covered']:.1f} % (lines and branches)"
    low = {name: file["summary"]["percent_covered"] for name, file in found["files"].items()}
    for name, percent in sorted(low.items(), key=lambda item: item[1]):
        if percent < LOW:
            yield f"  {percent:5.1f} %  {name}"
