"""What the handlers share: pages, forms, and who is at the other end.

Every form carries the session's CSRF token, and every handler that changes something reads its form through
`posted`, which checks it. (The middleware has refused other sites before, by Fetch metadata and Origin.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from coatcheck import AsyncRegistry, Record, Session, SessionManager, Timeouts
from coatcheck.adapters.starlette import session_of

from . import words
from .accounts import Accounts
from .goods import price

SEE_OTHER: Final = 303

_NOT_NEXT = ("/login", "/logout", "/signup")


class StaleFormError(Exception):
    """A form came without the token of the session that sent it; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the application is made of; it lies in `app.state.desk`."""

    manager: SessionManager
    registry: AsyncRegistry
    accounts: Accounts
    recent: float
    clock: Callable[[], float] = time.time

    @property
    def clocks(self) -> Timeouts:
        """The timeouts of the sessions."""
        return self.manager.clocks


def desk_of(request: Request) -> Desk:
    """Return what the application is made of."""
    desk = request.app.state.desk
    if not isinstance(desk, Desk):
        raise TypeError(desk)
    return desk


# -- pages -------------------------------------------------------------------------------------------------------------

pages = Environment(
    loader=PackageLoader("coatcheck.demo"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
pages.filters.update(price=price, span=words.span, ago=words.ago, at=words.at, device=words.device, bars=words.bars)
pages.filters.update(methods=words.methods, level=words.level)


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Return a page, with what all of them show: the ticket, the cart's count, a notice, why a session is over."""
    session, desk = session_of(request), desk_of(request)
    text = pages.get_template(template).render(
        path=request.url.path,
        session=session,
        clocks=desk.clocks,
        now=desk.clock(),
        over=over(request),
        notice=session.pop("notice", None) if "notice" in session else None,
        pieces=sum(session.get("cart", {}).values()),
        **context,
    )
    return HTMLResponse(text, status)


def over(request: Request) -> words.Told | None:
    """Return why the ticket that this browser shows is worth nothing, if it shows such a one.

    Such a browser gets no new anonymous session until it hands the dead ticket back (a POST to /logout) or signs in:
    a cookie that just *arrives late* must never overwrite a fresh login.
    """
    session = session_of(request)
    if session.ended_because is not None:
        return words.why(session.ended_because, desk_of(request).clocks)
    return words.STRANGER if is_stranger(request) else None


def is_stranger(request: Request) -> bool:
    """Tell whether the browser shows a ticket of which the counter knows nothing."""
    session, cookie = session_of(request), request.headers.get("cookie", "")
    return session.is_new and session.ended_because is None and f"{desk_of(request).manager.cookie.name}=" in cookie


def back_to(path: str, session: Session | None = None, notice: str = "") -> Response:
    """Send the browser to a page of ours, where it reads a notice."""
    if session is not None and notice:
        session["notice"] = notice
    return RedirectResponse(path, SEE_OTHER)


# -- forms -------------------------------------------------------------------------------------------------------------


async def posted(request: Request, *, needs_session: bool = True) -> FormData:
    """Return the form that was posted; raise StaleFormError unless it carries this session's CSRF token.

    With `needs_session=False` (signing in and out, a new cart) a browser without a live session may post as well: it
    has none that could be ridden, and `session.login` asks for same-origin evidence by itself.
    """
    form = await request.form(max_files=0, max_fields=16)
    session = session_of(request)
    good = session.check_csrf(text(form, "csrf"))  # a void ticket's is good, too, which is for signing in
    if (not needs_session) if session.is_new else good:
        return form
    raise StaleFormError


def text(form: FormData, name: str) -> str:
    """Return a field of a form as text; an upload is none."""
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def next_page(session: Session, wanted: str) -> str:
    """Return the page of ours that comes next: the wanted one, or what a login interrupted; never another site's."""
    target = session.resume(wanted).target  # a form that asks for a fresh proof stands where it is posted to
    return "/" if urlsplit(target).path in _NOT_NEXT else target


# -- records -----------------------------------------------------------------------------------------------------------


async def record_of(request: Request) -> Record | None:
    """Return this session as it lies in the store."""
    handle = session_of(request).handle
    if handle is None:
        return None
    found = await desk_of(request).registry.find(handle=handle)
    return found.items[0] if found.items else None
