"""The probe as a Flask application: one view makes a Call of the request and turns the Answer back."""

from collections.abc import Callable
from typing import Any

import flask

from coatcheck.adapters.flask import Coatcheck, exchange_of, session_of
from coatcheck.testing import Probe
from coatcheck.testing.probe import Answer, Call, run

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def call_of(request: flask.Request) -> Call:
    """Return a request as a call."""
    return Call(
        request.method,
        request.path,
        request.args.to_dict(),
        {name.lower(): value for name, value in request.headers},
        request.get_data(),
        session_of(request),
        exchange_of(request),
    )


def response_of(answer: Answer) -> flask.Response:
    """Return an answer as a response; work behind it is done when the response is closed."""
    body: Any = answer.body if answer.chunks is None else flask.stream_with_context(answer.chunks())
    response = flask.Response(body, answer.status)
    del response.headers["content-type"]
    for name, value in answer.headers:
        response.headers.add(name, value)
    if answer.after is not None:
        response.call_on_close(answer.after)
    return response


def flask_probe(probe: Probe, *, awaited: bool = False, **how: Any) -> flask.Flask:
    """Return the probe as a Flask application; `awaited`: by an `async def` view, and with errors going past it."""
    app = flask.Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = awaited
    Coatcheck(app, **how)

    def page(rest: str) -> flask.Response:
        assert session_of(flask.request) is flask.session._get_current_object()
        return response_of(run(probe.answer(call_of(flask.request))))

    async def awaited_page(rest: str) -> flask.Response:
        return page(rest)

    view: Callable[..., Any] = awaited_page if awaited else page
    app.add_url_rule("/health", "health", lambda: "well", methods=["GET", "POST"])
    app.add_url_rule("/", "home", view, defaults={"rest": ""}, methods=METHODS, provide_automatic_options=False)
    app.add_url_rule("/<path:rest>", "page", view, methods=METHODS, provide_automatic_options=False)
    return app
