"""Every ```python block in README.md and docs/ runs: a document is one program, told in pieces.

The blocks of a document share their names and run in order, in an empty folder. A block that awaits does so inside
`asyncio.run`. Blocks in other languages are not run.
"""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
DISGUISED = re.compile(r"py|pycon|Python|python.+")


def blocks(text: str) -> list[tuple[int, str]]:
    """Return the line and the code of each python block of a document."""
    return [
        (text.count("\n", 0, match.start(3)), re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE))
        for match in FENCE.finditer(text)
        if match[2].strip() == "python"
    ]


def run(path: Path, text: str) -> None:
    """Run a document; errors name its own lines."""
    module = ModuleType(f"document_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        for line, code in blocks(text):
            exec(compile("\n" * line + code, path, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_the_code_of_a_document_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(path, path.read_text())


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_no_python_hides_under_another_label(path: Path) -> None:
    labels = [match[2].strip() for match in FENCE.finditer(path.read_text())]
    assert [label for label in labels if DISGUISED.fullmatch(label)] == []


def test_a_fault_in_a_document_is_reported_with_its_line() -> None:
    text = "# Title\n\n```python\nx = 1\n```\n\n- in a list:\n\n  ```python\n  y = x\n  raise KeyError(y)\n  ```\n"
    with pytest.raises(KeyError) as caught:
        run(ROOT / "docs" / "planted.md", text)
    assert caught.traceback[-1].lineno + 1 == 11


NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_test_that_a_document_names_is_there(path: Path) -> None:
    """Guarantees are backed by tests; a test that was renamed or deleted no longer backs anything."""
    gone = [
        f"{file}::{name}"
        for file, name in NAMED.findall(path.read_text("utf-8"))
        if not (ROOT / file).exists() or f"def {name}(" not in (ROOT / file).read_text("utf-8")
    ]
    assert gone == []


def test_the_guarantees_of_the_stores_name_their_tests() -> None:
    assert len(NAMED.findall((ROOT / "docs" / "stores.md").read_text("utf-8"))) >= 20
