"""A day of honest browsers on bad networks, and one with a thief: seeded, through Exchange and MemoryStore.

The numbers that it prints are those that docs/why/token.md speaks of: nobody is hurt while requests arrive within the
grace and answers within a renewal; a copied jar is noticed while both its holders are active. The long form is
`python -m bench.honest`.
"""

from typing import Literal

import pytest

from bench.honest import LOSSES, OWNERS, THIEFS, THIEVES, Habits, honest_day, thiefs_day


@pytest.mark.parametrize("loss", LOSSES)
def test_within_the_assumption_no_honest_browser_is_hurt_in_a_day(
    loss: float, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [honest_day(seed, Habits(loss=loss)) for seed in range(80)]
    asked, hurt = sum(jar.asked for jar, _ in days), sum(jar.refused > 0 for jar, _ in days)
    with capsys.disabled():
        print(f"\nhonest day: {loss:.0%} of answers lost: {hurt} of {len(days)} jars hurt in {asked:,} requests")
    assert asked > 50_000
    assert hurt == 0
    assert [day.reuse for _, day in days if day.reuse] == [], "no fact accuses an honest browser"


@pytest.mark.parametrize(
    ("habits", "least"),
    [(Habits(request_delay=600.0), 15), (Habits(answer_delay=4000.0), 5)],
    ids=["requests", "answers"],
)
def test_beyond_the_assumption_it_breaks_as_the_docs_say(
    habits: Habits, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [honest_day(seed, habits) for seed in range(30)]
    hurt = sum(jar.refused > 0 for jar, _ in days)
    with capsys.disabled():
        print(f"\nhonest day: requests up to {habits.request_delay:g} s, answers up to {habits.answer_delay:g} s late:")
        print(f"  {hurt} of {len(days)} jars hurt")
    assert hurt >= least


@pytest.mark.parametrize("on_theft", ["end", "note"])
@pytest.mark.parametrize("name", THIEVES)
def test_a_copied_jar_is_noticed_within_the_day(
    name: str, on_theft: Literal["end", "note"], capsys: pytest.CaptureFixture[str]
) -> None:
    thefts = [thiefs_day(seed, THIEVES[name], on_theft) for seed in range(20 if on_theft == "end" else 5)]
    assert all(theft.found for theft in thefts)
    for theft in thefts:
        assert theft.ended == ("theft" if on_theft == "end" else None)
        assert theft.asked_again is (on_theft == "note")
        told = theft.noticed[-1]
        assert told.client is not None
        assert {told.client.address, told.detail["known_address"]} <= {OWNERS, THIEFS}
    if on_theft == "end":
        after = sorted(theft.after / 60 for theft in thefts)
        with capsys.disabled():
            print(f"\nthief's day: {name}: noticed in {len(after)} of 20, ", end="")
            print(f"median {after[len(after) // 2]:.0f} min, at most {after[-1]:.0f} min")
