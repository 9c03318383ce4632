"""The catalogue, the cart in the session, and a checkout that happens once.

Anonymous visitors have a cart, too: it lies in their session and moves into the login (`carry` in app.py). To pay, one
must have signed in with a password; being remembered is not enough.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from coatcheck import Level, Session
from coatcheck.adapters.starlette import exchange_of, session_of

from .desk import back_to, over, page, posted, text
from .goods import GOODS, is_cart, lines_of, total_of, with_count

WELCOME = 10
"""Per cent that a new account's welcome ticket takes off one order."""


def cart_of(session: Session) -> dict[str, int]:
    """Return the cart as it lies in the session."""
    cart = session.get("cart", {})
    return dict(cart) if is_cart(cart) else {}


async def catalogue(request: Request) -> Response:
    """Show what hangs on the rail."""
    return page(request, "catalogue.html", goods=GOODS.values(), cart=cart_of(session_of(request)))


async def cart(request: Request) -> Response:
    """Show the cart."""
    session = session_of(request)
    lines = lines_of(cart_of(session))
    return page(request, "cart.html", lines=lines, total=total_of(lines), welcome=session.get("welcome"))


async def put(request: Request) -> Response:
    """Put a good into the cart, or change how many of it there are.

    A browser whose ticket is void begins a new one by it: to log out, and to write after that, is what hands it out.
    """
    session, void = session_of(request), over(request)
    form = await posted(request, needs_session=void is None)
    key, count = text(form, "good"), text(form, "count")
    if key not in GOODS or not (count == "" or (count.isascii() and count.isdigit() and len(count) < 4)):
        return page(request, "missing.html", 404)
    if void is not None:
        session.logout()
    before = cart_of(session)
    session["cart"] = with_count(before, key, int(count) if count else before.get(key, 0) + 1)
    if count:
        return back_to("/cart")
    notice = f"{GOODS[key].name} is in your cart."
    return back_to("/", session, f"{void.title}, so this is a new cart. {notice}" if void else notice)


async def checkout(request: Request) -> Response:
    """Show the order once more, to somebody who signed in."""
    session = session_of(request)
    session.require_login(level=Level.AAL1)
    lines = lines_of(cart_of(session))
    if not lines:
        return back_to("/cart")
    welcome = session.get("welcome", 0)
    return page(request, "checkout.html", lines=lines, welcome=welcome, total=total_of(lines, welcome))


async def order(request: Request) -> Response:
    """Place the order: of two clicks, one gets the cart; of two orders, one gets the discount."""
    await posted(request)
    session, exchange = session_of(request), exchange_of(request)
    session.require_login(level=Level.AAL1)
    # `take` removes a key by a commit of its own and gives its value to exactly one of all parallel requests
    taken = await exchange.take(session, "cart")
    if not taken or not is_cart(taken):
        return back_to("/cart", session, "That order was placed already; the cart is empty.")
    percent_off = await exchange.take(session, "welcome") or 0
    lines = lines_of(taken)
    session["receipt"] = {"cart": taken, "percent_off": percent_off, "total": total_of(lines, percent_off)}
    return back_to("/receipt")


async def receipt(request: Request) -> Response:
    """Show the last order of this session."""
    session = session_of(request)
    session.require_login()
    last = session.get("receipt")
    if last is None:
        return back_to("/cart")
    lines = lines_of(last["cart"])
    return page(request, "receipt.html", lines=lines, total=last["total"], percent_off=last["percent_off"])
