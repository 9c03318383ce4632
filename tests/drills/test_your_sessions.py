"""Who lists or ends sessions does so among their own: nobody else's handle leads anywhere (D70; M13, REV-05)."""

import pytest

from .conftest import Build
from .house import OURS, House

ELSEWHERE = (("sec-fetch-site", "cross-site"), ("origin", "https://evil.test"))


def handles(visitor: object) -> set[str]:
    return {one["handle"] for one in visitor.get("/account/sessions").json["sessions"]}  # type: ignore[attr-defined]


def test_a_foreign_handle_is_neither_listed_nor_ended(house: House) -> None:
    """D70: answered as a handle that is nobody's; nothing is written, and the owner is not even told."""
    ann, laptop, mallory = house.visitor(), house.visitor(), house.visitor(peer="203.0.113.66")
    ann.login("ann")
    laptop.login("ann")
    mallory.login("mallory")
    anns = {(one.token or "").split(".")[1] for one in (ann, laptop)}
    assert handles(ann) == anns
    assert handles(mallory) == {(mallory.token or "").split(".")[1]}
    commits = house.commits
    for handle in (*anns, "A" * 18, "..%2f..", "x" * 500):
        answer = house.ask(mallory.prepare("DELETE", f"/account/sessions/{handle}"))
        assert (answer.status, answer.body) == (404, b'{"ended": false}')
    assert house.commits == commits
    assert (ann.user, laptop.user) == ("ann", "ann")
    assert house.ask(ann.prepare("DELETE", f"/account/sessions/{(laptop.token or '').split('.')[1]}")).status == 200
    assert (ann.user, laptop.user) == ("ann", None)


def test_the_same_name_in_another_realm_is_somebody_else(build: Build) -> None:
    """D70, C3: subjects are compared as (realm, subject), in the store's own query."""
    shop, console = build(), build(realm="console")
    customer, operator = shop.visitor(), console.visitor()
    customer.login("admin")
    operator.login("admin")
    foreign = (operator.token or "").split(".")[1]
    assert foreign not in handles(customer)
    assert shop.ask(customer.prepare("DELETE", f"/account/sessions/{foreign}")).status == 404
    assert shop.ask(customer.prepare("POST", "/account/sessions/revoke-others")).status == 200
    assert operator.user == "admin"


@pytest.mark.parametrize(
    ("method", "target"), [("DELETE", "/account/sessions/{}"), ("POST", "/account/sessions/revoke-others")]
)
def test_no_other_site_ends_a_session(house: House, method: str, target: str) -> None:
    """D70: by a request forged across sites, with the owner's cookie and the right handle."""
    here, there = house.visitor(), house.visitor()
    here.login("ann")
    there.login("ann")
    answer = house.ask(here.prepare(method, target.format((there.token or "").split(".")[1]), ELSEWHERE))
    assert (answer.status, answer.set_cookies) == (403, [])
    assert there.user == "ann"


def test_a_logout_of_one_who_steals_a_handle_ends_nothing(house: House) -> None:
    """D70, P2: a handle is no secret and no power, whoever is logged in with it in mind."""
    ann, mallory = house.visitor(), house.visitor()
    _, handle, _, _ = ann.login("ann").split(".")
    _, _, family, turn = mallory.login("mallory").split(".")
    forged = house.visitor(f"c1.{handle}.{family}.{turn}")
    house.ask(forged.prepare("POST", "/logout?everywhere=1", OURS))
    assert ann.user == "ann"
