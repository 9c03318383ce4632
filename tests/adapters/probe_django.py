"""The probe as a Django project, through WSGIHandler and ASGIHandler, with sync and async views."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from .django_site import ready

ready()

from asgiref.sync import iscoroutinefunction  # noqa: E402
from django.core.handlers.asgi import ASGIHandler, ASGIRequest  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.http.response import HttpResponseBase  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path, re_path  # noqa: E402
from django.utils.decorators import sync_and_async_middleware  # noqa: E402

from coatcheck.adapters.django import exchange_of, session_of  # noqa: E402
from coatcheck.testing import Control, Probe  # noqa: E402
from coatcheck.testing.flaky import Gate  # noqa: E402
from coatcheck.testing.probe import Answer, Call, Steps, run  # noqa: E402

KEY, PAGES = "probe", "pages"


def call_of(request: HttpRequest) -> Call:
    """Return a request as a call."""
    return Call(
        request.method or "",
        request.path,
        {name: str(request.GET[name]) for name in request.GET},
        {name.lower(): value for name, value in request.headers.items()},
        request.body,
        session_of(request),
        exchange_of(request),
    )


def response_of(answer: Answer, *, awaited: bool) -> HttpResponseBase:
    """Return an answer as a response."""
    if answer.chunks is None:
        response: HttpResponseBase = HttpResponse(answer.body, status=answer.status)
    else:
        chunks = _awaited(answer.chunks()) if awaited else answer.chunks()
        response = StreamingHttpResponse(chunks, status=answer.status)
    for name, value in answer.headers:
        if name == "set-cookie":
            pair = value.partition(";")[0].partition("=")
            response.set_cookie(pair[0], pair[2])
        else:
            response.headers[name] = value
    if answer.status in (204, 304):
        del response.headers["Content-Type"]
    if answer.after is not None:
        response._resource_closers.insert(0, answer.after)  # type: ignore[attr-defined]
    return response


async def _awaited(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def probe_of(request: HttpRequest) -> Probe:
    """Return the probe of the handler that serves the request."""
    given = request.scope if isinstance(request, ASGIRequest) else request.META
    probe: Probe = given[KEY]
    return probe


def page(request: HttpRequest) -> HttpResponseBase:
    """Answer by a sync view."""
    return response_of(run(probe_of(request).answer(call_of(request))), awaited=isinstance(request, ASGIRequest))


async def apage(request: HttpRequest) -> HttpResponseBase:
    """Answer by an async view."""
    return response_of(await run_mixed(probe_of(request).answer(call_of(request))), awaited=True)


async def run_mixed(steps: Steps) -> Answer:
    """Drive an answer on an event loop over a blocking store: only gates are awaited."""
    value: Any = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        if isinstance(value, Gate):
            await value.wait_async()


def well(_request: HttpRequest) -> HttpResponse:
    """Say that all is well, without a look at the session."""
    return HttpResponse("well")


class Sync:
    """A urlconf of sync views."""

    urlpatterns = (path("health", well), re_path("^.*$", page))


class Async:
    """A urlconf of async views."""

    urlpatterns = (path("health", well), re_path("^.*$", apage))


@sync_and_async_middleware
def routed(get_response: Any) -> Any:
    """Let the request be routed by the pages that its handler was made for."""
    if iscoroutinefunction(get_response):

        async def aroute(request: Any) -> Any:
            request.urlconf = request.scope[PAGES]
            return await get_response(request)

        return aroute

    def route(request: Any) -> Any:
        request.urlconf = (request.scope if isinstance(request, ASGIRequest) else request.META)[PAGES]
        return get_response(request)

    return route


def wsgi_probe(control: Control, urls: Any = Sync) -> Any:
    """Return the probe behind WSGIHandler, which writes a space before each cookie; servers drop it."""
    with settings_of(control):
        handler = WSGIHandler()

    def app(environ: Any, start_response: Any) -> Any:
        def stripped(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [(name, value.strip()) for name, value in headers], *more)

        return handler({**environ, KEY: control.probe, PAGES: urls.urlpatterns}, stripped)

    return app


def asgi_probe(control: Control, urls: Any = Async) -> Any:
    """Return the probe behind ASGIHandler, whose header names are put into lower case as servers do."""
    with settings_of(control):
        handler = ASGIHandler()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def lower(message: Any) -> None:
            if "headers" in message:
                message["headers"] = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
            await send(message)

        await handler({**scope, KEY: control.probe, PAGES: urls.urlpatterns}, receive, lower)

    return app


def settings_of(control: Control, **more: Any) -> Any:
    """Return the settings under which a control's manager and store are the project's."""
    return override_settings(
        COATCHECK={"STORE": control.store, "MANAGER": control.manager, **more},
        MIDDLEWARE=["coatcheck.adapters.django.SessionMiddleware", "tests.adapters.probe_django.routed"],
    )
