"""The command that judges every row on every adapter says what it found, and fails where that is not what we say."""

import pytest

from coatcheck.testing.conformance import Finding, Verdict

from .adapters import EVERY, framework_of
from .everywhere import main
from .test_conformance import OTHERWISE, unlike


def test_it_judges_what_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Litestar", "--rows", "CKE-10", "TOK-01", "--processes", "1"]) == 0
    (heading, line) = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["pass", "partial"]
    assert line.split()[:3] == ["Litestar", "2", "0"]


def test_it_fails_for_what_is_not_as_we_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OTHERWISE, "CKE-10", "we say that half of it holds")
    assert main(["WSGI", "--rows", "CKE-10", "--processes", "1"]) == 1
    assert "CKE-10 is pass, and not partial" in capsys.readouterr().out


def test_it_knows_no_other_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["Bottle"])
    assert "there is no adapter Bottle" in capsys.readouterr().err
    assert len({framework_of(name) for name in EVERY}) == 12


def test_what_is_worse_or_better_than_we_say_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unlike(Finding("CKE-10", Verdict.PASS, "It holds.")) is None
    assert unlike(Finding("CSR-11", Verdict.NOT_APPLICABLE, "WSGI has no websockets.")) is None
    assert "CKE-10 is fail, and not pass" in (unlike(Finding("CKE-10", Verdict.FAIL, "It does not.")) or "")
    assert unlike(Finding("CKE-10", Verdict.PARTIAL, "Half of it holds.")) is not None
    monkeypatch.setitem(OTHERWISE, "CKE-13", "we say that half of it holds")
    assert unlike(Finding("CKE-13", Verdict.PASS, "It holds.")) is not None, "of which we say that it holds in part"
