"""Each weak choice is told by its rule and severity; sound settings have nothing to be told but notes."""

from typing import Any

import pytest

from coatcheck.core.lint import ROWS, findings, rows
from coatcheck.core.policies import timeouts
from coatcheck.core.settings import settings_of
from coatcheck.core.visit import ALL

SOUND: dict[str, Any] = {"origins": ["https://shop.example"], "limit": 5, "login_url": "/login"}
WEAK: list[tuple[dict[str, Any], str, str]] = [
    ({"origins": []}, "CSR-01", "error"),
    ({"origins": [], "allow_insecure_http": True}, "CKE-13", "error"),
    ({"csrf": "off"}, "CSR-01", "error"),
    ({"csrf": "report"}, "CSR-01", "warning"),
    ({"csrf_exempt": ["/hook"]}, "CSR-01", "warning"),
    ({"trusted_origins": ["https://other.example"]}, "CSR-01", "warning"),
    ({"same_site": "None", "cookie_reason": "frames"}, "CKE-02", "warning"),
    ({"name": "__Secure-x", "domain": "shop.example", "cookie_reason": "sso"}, "CKE-03", "warning"),
    ({"name": "sid", "cookie_reason": "old"}, "CKE-01", "error"),
    ({"partitioned": True}, "CKE-09", "warning"),
    ({"comma_joined": True}, "TOK-18", "warning"),
    ({"on_theft": "note"}, "TOK-15", "warning"),
    ({"carry": ALL}, "TOK-12", "warning"),
    ({"limit": None}, "DOC-02", "warning"),
    ({"store_down": "anonymous"}, "CCH-06", "warning"),
    ({"exclude": ["/"]}, "TOK-01", "error"),
    ({"exclude": ["/a"], "fresh": ["/a/b"]}, "TRM-01", "warning"),
    ({"login_url": "http://x.example/"}, "CCH-04", "error"),
    ({"login_url": "//x.example/"}, "CCH-04", "warning"),
    ({"trusted_proxies": ["0.0.0.0/0"]}, "LOG-01", "error"),
    ({"timeouts": timeouts(idle=None)}, "DOC-01", "error"),
    ({"timeouts": timeouts(absolute=31 * 86400, remember=None, remember_idle=None)}, "DOC-01", "error"),
    ({"timeouts": timeouts(renew=None)}, "TOK-13", "warning"),
    ({"timeouts": timeouts(remember=100 * 86400)}, "TMO-14", "warning"),
]


def test_sound_settings_fulfil_every_row():
    assert {one.severity for one in findings(settings_of(SOUND))} == {"note"}
    assert {*rows(settings_of(SOUND)).values()} == {"yes", "yours to do"}


@pytest.mark.parametrize(("choice", "rule", "severity"), WEAK)
def test_a_weak_choice_is_told(choice: dict[str, Any], rule: str, severity: str):
    settings = settings_of({**SOUND, **choice})
    found = findings(settings)
    assert (rule, severity) in {(one.rule, one.severity) for one in found}
    assert {one.rule for one in found} <= ROWS.keys()
    assert rows(settings)[rule] == ("no" if severity == "error" else "less well")


def test_a_standard_is_held_against_the_clocks():
    settings = settings_of({**SOUND, "timeouts": timeouts(idle=1000)})
    told = {(one.rule, one.severity) for one in findings(settings, "nist-aal3")}
    assert {("TMO-05", "error"), ("TMO-05", "warning"), ("TMO-15", "error")} <= told
    assert ("TMO-11", "error") in {(one.rule, one.severity) for one in findings(settings, "pci")}
