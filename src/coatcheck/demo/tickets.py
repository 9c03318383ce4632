"""Your sessions, how long this one lasts, and what just happened to it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from coatcheck import Event, Session
from coatcheck.adapters.starlette import session_of

from . import words
from .desk import Desk, back_to, desk_of, next_page, over, page, posted, record_of, text

STATUS = "/session/status"
"""Asked by a script every few seconds; it is `passive` (app.py), so asking keeps no session alive."""

MOST_EVENTS = 60


async def sessions(request: Request) -> Response:
    """List the live sessions of whoever is signed in, the newest first."""
    session = session_of(request)
    found = await desk_of(request).registry.find(subject=session.require_login())
    return page(request, "sessions.html", records=sorted(found.items, key=lambda one: one.created_at, reverse=True))


async def end(request: Request) -> Response:
    """End one session of one's own; somebody else's is as unknown as none."""
    form, session = await posted(request), session_of(request)
    name, handle = session.require_login(), text(form, "handle")
    if handle == session.handle:
        session.logout()
        return back_to("/", session, "You are signed out. Goodbye!")
    if not await desk_of(request).registry.revoke(handle, "owner", subject=name, actor=name):
        return page(request, "missing.html", 404)
    return back_to("/sessions", session, "That session is ended. Its next click will say so.")


async def end_others(request: Request) -> Response:
    """End all sessions of one's own but this one."""
    await posted(request)
    session = session_of(request)
    session.require_login()
    session.end_others("owner")
    return back_to("/sessions", session, "All your other sessions are ended.")


async def status(request: Request) -> Response:
    """Tell a script how long this session lasts."""
    session, now = session_of(request), desk_of(request).clock()
    if session.is_new:
        told = over(request)
        return JSONResponse(
            {"alive": False, "title": told and told.title, "text": told and told.text},
        )
    idle, absolute = session.idle_ends_at, session.ends_at
    return JSONResponse(
        {
            "alive": True,
            "handle": session.handle,
            "idle_left": None if idle is None else max(0.0, round(idle - now, 1)),
            "left": None if absolute is None else max(0.0, round(absolute - now, 1)),
        }
    )


async def stay(request: Request) -> Response:
    """Do nothing: to ask for it is activity, and that is the point."""
    form = await posted(request)
    if request.headers.get("x-asked-by") == "script":
        return Response(status_code=204)
    return back_to(next_page(session_of(request), text(form, "next")))


async def trail(request: Request) -> Response:
    """Tell, event by event, what happened to this session and to its owner's others."""
    desk, session = desk_of(request), session_of(request)
    events = await _events(desk, session)
    told = [(event, words.story(event, desk.clocks)) for event in events]
    record = await record_of(request)
    return page(
        request,
        "trail.html",
        told=told,
        fields=words.fields(record) if record else [],
        cookie=desk.manager.cookie.name,
        here=str(request.url.replace(query="")),
    )


async def _events(desk: Desk, session: Session) -> list[Event]:
    """Return the events of a subject, or of an anonymous session, newest first, with those of the ticket before."""
    registry, handle, subject = desk.registry, session.handle, session.subject
    if handle is None:
        return []
    if subject is None:
        return list((await registry.events(handle=handle, noise=False, limit=MOST_EVENTS)).items)
    found = list((await registry.events(subject=subject, noise=False, limit=MOST_EVENTS)).items)
    before = [event.detail["instead_of"] for event in found if event.handle == handle and "instead_of" in event.detail]
    if before:
        known = (await registry.events(handle=before[0], noise=False, limit=MOST_EVENTS)).items
        found.extend(event for event in known if event.subject is None)
    return sorted(found, key=lambda event: event.at, reverse=True)
