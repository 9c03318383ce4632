"""The probe as a Pyramid application: one view makes a Call of its request and a response of the Answer."""

from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response

from coatcheck.adapters.pyramid import exchange_of
from coatcheck.testing import Probe
from coatcheck.testing.probe import Answer, Call, run


def call_of(request: Any) -> Call:
    """Return a request as a call."""
    return Call(
        request.method,
        request.script_name + request.path_info,
        dict(request.GET),
        {name.lower(): value for name, value in request.headers.items()},
        request.body,
        request.session,
        exchange_of(request),
    )


def response_of(answer: Answer, request: Any) -> Response:
    """Return an answer as a response; work behind it is a finished callback."""
    response = Response(status=answer.status)
    headers = list(answer.headers)
    if answer.chunks is not None:
        response.app_iter = answer.chunks()
    elif answer.status not in (204, 304):
        response.app_iter = [answer.body]
        headers.append(("Content-Length", str(len(answer.body))))
    response.headerlist = headers
    if answer.after is not None:
        request.add_finished_callback(lambda _: answer.after and answer.after())
    return response


def pyramid_probe(probe: Probe, *, debug: bool = False, **settings: Any) -> Any:
    """Return the probe as a Pyramid application; `debug` adds a tween that makes pages of errors, outside of ours."""

    def page(request: Any) -> Response:
        return response_of(run(probe.answer(call_of(request))), request)

    def well(_request: Any) -> Response:
        return Response("well")

    with Configurator(settings={f"coatcheck.{name}": value for name, value in settings.items()}) as config:
        config.include("coatcheck.adapters.pyramid")
        if debug:
            config.add_view(_page_of_error, context=Exception, exception_only=True)
        config.add_route("health", "/health")
        config.add_route("page", "/{rest:.*}")
        config.add_view(well, route_name="health")
        config.add_view(page, route_name="page")
        return relative(config.make_wsgi_app())


def _page_of_error(error: Exception, request: Any) -> Response:
    return Response(f"{type(error).__name__}: {error}", 500)


def relative(app: Any) -> Any:
    """Undo what WebOb does to every Location at the last moment: the rows compare what the application said."""

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            plain = [(name, _path_of(value) if name.lower() == "location" else value) for name, value in headers]
            return start_response(status, plain, *more)

        return app(environ, start)

    return serve


def _path_of(location: str) -> str:
    return location.removeprefix("https://testserver")
