"""The awaited and the blocking files of flow/ are one text each: equal but for the words of waiting.

The rule: `async` and `await` fall, `Async` in front of a name falls, and the few pairs below stand for each other.
Where a line is broken and how imports are ordered does not count; comments and docstrings do.
"""

import ast
import io
import re
import tokenize
from difflib import unified_diff
from pathlib import Path

import pytest

FLOW = Path(__file__).resolve().parents[1] / "src" / "coatcheck" / "flow"

TWINS = (
    ("async_.py", "sync.py"),
    ("async_guarded.py", "guarded.py"),
    ("async_keys.py", "keys.py"),
    ("async_legacy.py", "legacy.py"),
    ("async_receivers.py", "receivers.py"),
    ("async_registry.py", "registry.py"),
    ("async_store.py", "store.py"),
)

# (in the async twin, in the other), besides the syntax of waiting and `Async` in front of a name
PAIRS = (
    ("The flow, awaiting:", "The flow, blocking:"),
    ("from asyncio import sleep", "from time import sleep"),
    ("from asyncio import to_thread as ask", "from .asking import ask"),
    ("A guarded store, awaiting:", "A guarded store, blocking:"),
    ("from .async_guarded import", "from .guarded import"),
    ("from .async_keys import", "from .keys import"),
    ("from .async_legacy import", "from .legacy import"),
    ("from .async_ import", "from .sync import"),
    ("from .given import awaited as given", "from .given import blocking as given"),
    ("Sessions of another library, awaiting:", "Sessions of another library, blocking:"),
    ("The registry, awaiting:", "The registry, blocking:"),
    ("The store, awaiting:", "The store, blocking:"),
    ("from .async_store import", "from .store import"),
    ("The receivers, awaiting:", "The receivers, blocking:"),
    ("from .loops import Lock", "from threading import Lock"),
)

BLOCKING = {ast.AsyncFunctionDef: ast.FunctionDef, ast.AsyncFor: ast.For, ast.AsyncWith: ast.With}


class Blocking(ast.NodeTransformer):
    """Takes the waiting out of a syntax tree."""

    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        if isinstance(node, ast.Await):
            return node.value
        if isinstance(node, ast.comprehension):
            node.is_async = 0
        kind = BLOCKING.get(type(node))
        return node if kind is None else ast.copy_location(kind(**dict(ast.iter_fields(node))), node)


def as_sync(text: str) -> str:
    """Return the text of async_.py with the words of sync.py; the syntax of waiting is left in."""
    for theirs, ours in PAIRS:
        text = text.replace(theirs, ours)
    return re.sub(r"\bAsync(?=[A-Z])", "", text)


def normal(text: str) -> list[str]:
    """Return what a text says without waiting, line by line in one layout: imports, the rest, comments."""
    imports, rest = [], []
    for node in Blocking().visit(ast.parse(text)).body:
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            imports += [f"from {module} import {ast.unparse(alias)}" for alias in node.names]
        elif isinstance(node, ast.Import):
            imports.append(ast.unparse(node))
        else:
            rest += ast.unparse(node).splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sorted(imports) + rest + [token.string for token in tokens if token.type == tokenize.COMMENT]


def differences(asynchronous: str, blocking: str) -> list[str]:
    """Return where the twins differ, as a diff."""
    pair = normal(as_sync(asynchronous)), normal(blocking)
    return list(unified_diff(*pair, "the async one, as sync", "the other", lineterm="", n=2))


@pytest.mark.parametrize(("awaiting", "blocking"), TWINS)
def test_the_flows_are_twins(awaiting: str, blocking: str) -> None:
    found = differences((FLOW / awaiting).read_text(), (FLOW / blocking).read_text())
    assert not found, "\n".join(found)


def test_every_pair_of_words_is_needed() -> None:
    text = "".join((FLOW / awaited).read_text() for awaited, _ in TWINS)
    assert [theirs for theirs, _ in PAIRS if theirs not in text] == []


ASYNC = '''"""Awaited."""
from asyncio import sleep
from time import time
from .model import AsyncStore, Record

class AsyncExchange:
    async def load(self, store: AsyncStore) -> Record:
        # tried once more
        await sleep(0.05)
        async with self.lock:
            return [one async for one in await store.load(self.handle)]
'''
SYNC = '''"""Awaited."""
from time import sleep, time
from .model import Record, Store

class Exchange:
    def load(self, store: Store) -> Record:
        # tried once more
        sleep(0.05)
        with self.lock:
            return [one for one in store.load(
                self.handle
            )]
'''


def test_layout_and_the_order_of_imports_do_not_count() -> None:
    assert differences(ASYNC, SYNC) == []


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("sleep(0.05)", "sleep(0.5)"),
        ("        sleep(0.05)\n", ""),
        ("store.load", "store.find"),
        ("# tried once more", "# tried twice"),
        ('"""Awaited."""', '"""Blocking."""'),
        ("import sleep, time", "import time"),
        ("class Exchange", "class SyncExchange"),
    ],
)
def test_a_twin_that_strays_is_seen(here: str, there: str) -> None:
    assert here in SYNC
    assert differences(ASYNC, SYNC.replace(here, there))
