"""The set-up keeps its promises: a script that needs nothing, a lock that names no index and forgets no package."""

import ast
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = (ROOT / "run").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

LOCKED = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE)}
WANTED = [
    requirement
    for group in (
        PROJECT["project"]["dependencies"],
        PROJECT["build-system"]["requires"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
    for requirement in map(Requirement, group)
    if requirement.name != "coatcheck"
]


def test_the_script_imports_the_standard_library_only() -> None:
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(SCRIPT))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in imported if name} <= sys.stdlib_module_names


def test_an_old_python_reads_far_enough_to_say_that_it_is_too_old() -> None:
    tree = ast.parse(SCRIPT, feature_version=(3, 7))
    first = [ast.unparse(node) for node in tree.body[1:3]]
    assert first[0] == "import sys"
    assert first[1].startswith("if sys.version_info < (3, 11):\n    sys.exit(")


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_the_scripts_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_the_continuous_integration_runs_what_a_contributor_runs() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands[-1] == "exec python3 run test"
    assert all(line.startswith(("set ", "cd ")) for line in commands[:-1])


def test_the_lock_names_no_address() -> None:
    assert "://" not in LOCK
    assert "index" not in LOCK


def test_everything_in_the_lock_has_a_hash() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)
    assert len(LOCKED) > 40
    assert [entry for entry in entries if entry.strip() and "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("requirement", WANTED, ids=str)
def test_the_lock_holds_what_pyproject_asks_for(requirement: Requirement) -> None:
    assert requirement.specifier.contains(LOCKED[canonicalize_name(requirement.name)]), "run `python3 run lock`"
