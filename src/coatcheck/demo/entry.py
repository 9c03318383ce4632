"""Create an account, sign in and out, change the password.

The proof is checked here; what follows from it is one line: `session.login(name)`.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from coatcheck import Refusal
from coatcheck.adapters.starlette import session_of

from .accounts import AccountError
from .desk import back_to, desk_of, next_page, page, posted, record_of, text
from .shop import WELCOME

NO_ERRORS: Mapping[str, str] = {}


async def new_account(request: Request) -> Response:
    """Show the form for a new account."""
    return _new_account(request, next_page(session_of(request), request.query_params.get("next", "")))


async def create_account(request: Request) -> Response:
    """Create an account and sign it in."""
    form = await posted(request, needs_session=False)
    session, name = session_of(request), text(form, "name")
    target = next_page(session, text(form, "next"))
    try:
        name = await desk_of(request).accounts.create(name, text(form, "password"))
    except AccountError as error:
        return _new_account(request, target, name=name, errors={error.field: str(error)})
    session.login(name, remember=bool(form.get("remember")))
    session["welcome"] = WELCOME
    return back_to(target, session, f"Welcome, {name}! Your first order is {WELCOME}% off.")


def _new_account(request: Request, target: str, name: str = "", errors: Mapping[str, str] = NO_ERRORS) -> Response:
    return page(request, "signup.html", 422 if errors else 200, next=target, name=name, errors=errors)


async def sign_in_form(request: Request) -> Response:
    """Show the form to sign in; to somebody who is signed in it asks for the password again."""
    return _sign_in_form(request, next_page(session_of(request), request.query_params.get("next", "")))


async def sign_in(request: Request) -> Response:
    """Sign in, or confirm who is signed in: a new ticket either way."""
    form = await posted(request, needs_session=False)
    session = session_of(request)
    target = next_page(session, text(form, "next"))
    again, before = session.subject, await record_of(request)
    name = await desk_of(request).accounts.verify(again or text(form, "name"), text(form, "password"))
    if name is None:
        return _sign_in_form(request, target, name=text(form, "name"), failed=True)
    remember = bool(form.get("remember")) or bool(again and before and before.persistent)
    session.login(name, remember=remember)
    return back_to(target, session, "Thank you, it is you." if again else f"Welcome back, {name}.")


def _sign_in_form(request: Request, target: str, name: str = "", *, failed: bool = False) -> Response:
    return page(request, "login.html", 422 if failed else 200, next=target, name=name, failed=failed)


async def sign_out(request: Request) -> Response:
    """End this session, or all of them; a browser with a dead ticket hands it back here."""
    form = await posted(request, needs_session=False)
    session = session_of(request)
    name, everywhere = session.subject, bool(form.get("everywhere"))
    session.logout(everywhere=everywhere)
    if name is None:
        return back_to("/", session, "A fresh start: the old ticket is gone.")
    return back_to("/", session, "You are signed out everywhere." if everywhere else "You are signed out. Goodbye!")


async def new_password(request: Request) -> Response:
    """Show the form for another password, to somebody who signed in just now."""
    session_of(request).require_login(within=desk_of(request).recent)
    return page(request, "password.html", errors=NO_ERRORS)


async def change_password(request: Request) -> Response:
    """Change the password: every other session ends, and this one goes on under a new ticket."""
    form = await posted(request)
    session, desk = session_of(request), desk_of(request)
    try:
        name = session.require_login(within=desk.recent)
    except Refusal:
        # too late by now; the form is shown again after the login (a stored POST is never replayed)
        return back_to("/login?next=/password")
    password = text(form, "password")
    if password != text(form, "again"):
        errors = {"again": "The two are not the same; type the new password once more."}
        return page(request, "password.html", 422, errors=errors)
    try:
        await desk.accounts.change_password(name, password)
    except AccountError as error:
        return page(request, "password.html", 422, errors={error.field: str(error)})
    session.password_changed()
    return back_to("/sessions", session, "Your password is changed, and every other session is ended.")
