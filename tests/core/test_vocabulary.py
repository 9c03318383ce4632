"""The inventory of events is whole: what the sources write is listed, and what is listed is written."""

import re
from pathlib import Path

from coatcheck.core import facts, vocabulary
from coatcheck.core.model import Event

SOURCES = Path(facts.__file__).parents[1]
WRITTEN = re.compile(
    r"""(?:facts\.about|[^_a-z]about|_event|_heard|_guessed|_tell|_refuse|_note)\(\s*(?:\w+,\s*)*(?:visit,\ record,\ )?
    "([a-z]+_[a-z_]+)" | Event\(\s*name="([a-z_]+)"
    | ^(?:BACKEND|INTERNAL|RECOVERED|SEALED):\ Final\ =\ "([a-z_]+)" """,
    re.VERBOSE | re.MULTILINE,
)


def written() -> set[str]:
    found = set[str]()
    for folder in ("core", "flow", "stores", "cli/keys.py", "cli/restored.py"):
        place = SOURCES / folder
        for file in [place] if place.suffix else place.rglob("*.py"):
            text = file.read_text("utf-8")
            found |= {next(filter(None, one)) for one in WRITTEN.findall(text)}
    return found


def test_what_is_written_is_listed_and_what_is_listed_is_written() -> None:
    listed = {*vocabulary.FACTS, *vocabulary.NOISE}
    assert written() == listed
    assert not vocabulary.FACTS.keys() & vocabulary.NOISE.keys()


def test_an_event_without_a_detail_is_as_loud_as_its_entry_says() -> None:
    for name, kind in {**vocabulary.FACTS, **vocabulary.NOISE}.items():
        assert facts.severity(Event(name=name, at=0.0)) in kind.levels, name
        assert kind.says
        assert len({*kind.fields}) == len(kind.fields)


def test_the_places_that_events_go_to_are_named() -> None:
    class Bell:
        def __call__(self, event: Event) -> None: ...

    named = [(one.kind, one.name) for one in vocabulary.sinks([written, Bell()])]
    assert named[0][0] == "store"
    assert named[1] == ("logger", "coatcheck")
    assert named[2] == ("listener", f"{__name__}.written")
    assert named[3][1].endswith("Bell")
