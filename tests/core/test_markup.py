"""The markup of a CSRF token is safe in a page, and whatever is made of it is text again."""

import json
from html import unescape

import pytest
from markupsafe import Markup, escape

from coatcheck.core import markup

EVIL = "'\"><script>alert(1)</script>&amp;"


@pytest.mark.parametrize("make", [markup.field, markup.meta, markup.htmx])
def test_nothing_breaks_out_of_the_markup(make):
    """D68: a token has no such characters, and the markup does not rely on that."""
    text = make(EVIL)
    assert "<script" not in text
    assert text.count("<") == (0 if make is markup.htmx else 1)
    assert "'" not in text
    assert text.count('"') == {markup.field: 6, markup.meta: 4, markup.htmx: 4}[make]


def test_each_is_spelled_once():
    assert markup.field("m.x") == '<input type="hidden" name="csrf_token" value="m.x">'
    assert markup.meta("m.x") == '<meta name="csrf-token" content="m.x">'
    two, four = markup.htmx("m.x").split(" hx-")
    assert (two.partition("=")[0], four.partition("=")[0]) == ("hx-headers", "headers:inherited")
    for attribute in (two, four):
        assert json.loads(unescape(attribute.partition("=")[2]).strip('"')) == {"X-CSRF-Token": "m.x"}


@pytest.mark.parametrize("change", [lambda text: text + "<", lambda text: "<" + text, lambda text: text[1:], str])
def test_markupsafe_takes_it_as_it_is_and_what_is_made_of_it_as_text(change):
    """`__html__` is the protocol that Jinja, Mako, Chameleon and Django ask."""
    text = markup.field("m.x")
    assert escape(text) == Markup(text)
    changed = change(text)
    assert type(changed) is str
    assert "<" not in escape(changed)
