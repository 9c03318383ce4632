"""The session's CSRF token in each framework's own templates, and read back by its own form parser (CSR-06).

Each application here is what docs/csrf.md tells people to write: a template that asks the session for the markup, and a
handler whose first line is `require_csrf` with the field that its framework parsed. The body is still the handler's.
"""

import asyncio
import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Annotated, Any

import aiohttp_jinja2
import flask
import jinja2
import pytest
import quart
import sanic
import tornado.template
from aiohttp import web
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path
from fastapi import FastAPI, Form, UploadFile
from litestar import Litestar, get, post
from litestar import Request as LitestarRequest
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Template
from litestar.template.config import TemplateConfig
from pyramid.config import Configurator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from tornado.web import Application, RequestHandler

from coatcheck import MemoryStore, SessionManager
from coatcheck.adapters import aiohttp as ours_aiohttp
from coatcheck.adapters import django as ours_django
from coatcheck.adapters import fastapi as ours_fastapi
from coatcheck.adapters import flask as ours_flask
from coatcheck.adapters import litestar as ours_litestar
from coatcheck.adapters import pyramid as ours_pyramid
from coatcheck.adapters import quart as ours_quart
from coatcheck.adapters import sanic as ours_sanic
from coatcheck.adapters import starlette as ours_starlette
from coatcheck.adapters import tornado as ours_tornado
from coatcheck.testing import Clock, Control
from coatcheck.testing.browser import Browser, Driver
from coatcheck.testing.drivers import AsgiDriver, WsgiDriver

from . import probe_django
from .loopback import LoopbackDriver
from .probe_aiohttp import AiohttpServer
from .probe_tornado import Told, TornadoServer
from .sanic_server import SanicServer

PAGE = """<!doctype html><head>{{ S.csrf_meta() }}</head><body {{ S.csrf_htmx() }}>
<form method="post" action="/save">{{ S.csrf_field() }}<input name="note" value="hello">{{ "<b>" }}</form>"""


def page(session: str) -> str:
    """Return the template, asking the name by which a framework shows the session to it."""
    return PAGE.replace("S.", f"{session}.")


TEMPLATES = {
    "page.html": page("request.session"),
    "session.html": page("session"),
    "ctx.html": page("request.ctx.session"),
}
LOADER = jinja2.DictLoader(TEMPLATES)
ENVIRONMENT = jinja2.Environment(loader=LOADER, autoescape=True)


def starlette_app(control: Control) -> Driver:
    templates = Jinja2Templates(env=ENVIRONMENT)

    async def form(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html")

    async def save(request: Request) -> Response:
        fields = await request.form()
        ours_starlette.session_of(request).require_csrf(fields.get("csrf_token"))
        if "file" in fields:
            return PlainTextResponse(await fields["file"].read())
        return PlainTextResponse(fields["note"])

    app = Starlette(routes=[Route("/form", form), Route("/save", save, methods=["POST"])])
    app.add_middleware(ours_starlette.SessionMiddleware, store=control.store, manager=control.manager)
    return AsgiDriver(app)


def fastapi_app(control: Control) -> Driver:
    templates = Jinja2Templates(env=ENVIRONMENT)
    app = FastAPI()
    app.add_middleware(ours_fastapi.SessionMiddleware, store=control.store, manager=control.manager)

    @app.get("/form")
    def form(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html")

    @app.post("/save")
    async def save(
        session: ours_fastapi.CurrentSession,
        csrf_token: Annotated[str | None, Form()] = None,
        note: Annotated[str, Form()] = "",
        file: UploadFile | None = None,
    ) -> PlainTextResponse:
        session.require_csrf(csrf_token)
        return PlainTextResponse(note if file is None else await file.read())

    return AsgiDriver(app)


def flask_app(control: Control) -> Driver:
    app = flask.Flask(__name__)
    app.jinja_loader = LOADER  # type: ignore[assignment]
    ours_flask.Coatcheck(app, store=control.store, manager=control.manager)
    app.add_url_rule("/form", "form", lambda: flask.render_template("session.html"))

    @app.post("/save")
    def save() -> Any:
        ours_flask.session.require_csrf(flask.request.form.get("csrf_token"))
        return flask.request.files["file"].read() if flask.request.files else flask.request.form["note"]

    return WsgiDriver(app)


def quart_app(control: Control) -> Driver:
    app = quart.Quart(__name__)
    app.jinja_loader = LOADER  # type: ignore[assignment]
    ours_quart.Coatcheck(app, store=control.store, manager=control.manager)

    @app.get("/form")
    async def form() -> str:
        return await quart.render_template("session.html")

    @app.post("/save")
    async def save() -> Any:
        fields = await quart.request.form
        ours_quart.session.require_csrf(fields.get("csrf_token"))
        files = await quart.request.files
        return files["file"].read() if files else fields["note"]

    return AsgiDriver(app)


def litestar_app(control: Control) -> Driver:
    @get("/form")
    async def form() -> Template:
        return Template("page.html")

    @post("/save", status_code=200, media_type="text/plain")
    async def save(request: LitestarRequest[Any, Any, Any]) -> bytes:
        fields = await request.form()
        ours_litestar.session_of(request).require_csrf(fields.get("csrf_token"))
        return await fields["file"].read() if "file" in fields else fields["note"].encode()

    app = Litestar(
        [form, save],
        plugins=[ours_litestar.CoatcheckPlugin(store=control.store, manager=control.manager)],
        template_config=TemplateConfig(instance=JinjaTemplateEngine.from_environment(ENVIRONMENT)),
        openapi_config=None,
        logging_config=None,
    )

    async def start() -> None:
        async with app.lifespan():
            pass

    asyncio.run(start())
    return AsgiDriver(app)


def aiohttp_app(control: Control) -> Driver:
    async def shown(request: web.Request) -> dict[str, Any]:
        return {"session": ours_aiohttp.session_of(request)}

    @aiohttp_jinja2.template("session.html")
    async def form(_request: web.Request) -> dict[str, Any]:
        return {}

    async def save(request: web.Request) -> web.Response:
        fields = await request.post()
        ours_aiohttp.session_of(request).require_csrf(fields.get("csrf_token"))
        found = fields.get("file", fields.get("note"))
        return web.Response(body=found.file.read() if isinstance(found, web.FileField) else str(found).encode())

    app = web.Application()
    app.add_routes([web.get("/form", form), web.post("/save", save)])
    aiohttp_jinja2.setup(app, loader=LOADER, context_processors=[shown])
    ours_aiohttp.setup(app, store=control.store, manager=control.manager)
    return LoopbackDriver(AiohttpServer(app))


def tornado_app(control: Control) -> Driver:
    raw = page("handler.session").replace("{{ handler", "{% raw handler").replace(") }}", ") %}")
    loader = tornado.template.DictLoader({"page.html": raw})

    class Form(Told, RequestHandler):
        def get(self) -> None:
            self.render("page.html")

    class Save(Told, RequestHandler):
        def post(self) -> None:
            self.session.require_csrf(self.get_body_argument("csrf_token", None))
            files = self.request.files
            self.write(files["file"][0].body if files else self.get_body_argument("note"))

    app = Application([("/form", Form), ("/save", Save)], template_loader=loader)
    ours_tornado.setup(app, store=control.store, manager=control.manager)
    return LoopbackDriver(TornadoServer(app))


def sanic_app(control: Control) -> Driver:
    app: Any = sanic.Sanic("forms")
    ours_sanic.Coatcheck(app, store=control.store, manager=control.manager)

    @app.get("/form")
    async def form(request: sanic.Request) -> sanic.HTTPResponse:
        return sanic.html(ENVIRONMENT.get_template("ctx.html").render(request=request))

    @app.post("/save")
    async def save(request: sanic.Request) -> sanic.HTTPResponse:
        fields = request.form or {}
        ours_sanic.session_of(request).require_csrf(fields.get("csrf_token"))
        return sanic.raw(request.files["file"][0].body if request.files else fields.get("note").encode())

    return SanicServer(app)


def pyramid_app(control: Control) -> Driver:
    def form(_request: Any) -> dict[str, Any]:
        return {}

    def save(request: Any) -> Any:
        ours_pyramid.session_of(request).require_csrf(request.POST.get("csrf_token"))
        found = request.POST.get("file", request.POST.get("note"))
        request.response.body = found.file.read() if hasattr(found, "file") else found.encode()
        return request.response

    settings = {"coatcheck.store": control.store, "coatcheck.manager": control.manager}
    with Configurator(settings=settings) as config:
        config.include("pyramid_jinja2")
        config.include("coatcheck.adapters.pyramid")
        config.add_route("form", "/form")
        config.add_route("save", "/save")
        config.add_view(form, route_name="form", renderer="page.jinja2")
        config.add_view(save, route_name="save", request_method="POST")
        config.commit()
        config.get_jinja2_environment().loader = jinja2.FunctionLoader(lambda _name: TEMPLATES["page.html"])
        return WsgiDriver(config.make_wsgi_app())


DJANGO = """{% load coatcheck %}<!doctype html><head>{% csrf_meta %}</head><body {% csrf_htmx %}>
<form method="post" action="/save">{% csrf_field %}<input name="note" value="hello">{{ angle }}</form>"""


def django_form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(DJANGO).render({"angle": "<b>"}, request))


def django_save(request: HttpRequest) -> HttpResponse:
    ours_django.session_of(request).require_csrf(request.POST.get("csrf_token"))
    return HttpResponse(request.FILES["file"].read() if request.FILES else request.POST["note"])


async def django_aform(request: HttpRequest) -> HttpResponse:
    return django_form(request)


async def django_asave(request: HttpRequest) -> HttpResponse:
    return django_save(request)


class DjangoUrls:
    urlpatterns = (path("form", django_form), path("save", django_save))


class AsyncDjangoUrls:
    urlpatterns = (path("form", django_aform), path("save", django_asave))


APPS: dict[str, Callable[[Control], Driver]] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "flask": flask_app,
    "quart": quart_app,
    "litestar": litestar_app,
    "aiohttp": aiohttp_app,
    "tornado": tornado_app,
    "sanic": sanic_app,
    "pyramid": pyramid_app,
    "django": lambda control: WsgiDriver(probe_django.wsgi_probe(control, DjangoUrls)),
    "django awaited": lambda control: AsgiDriver(probe_django.asgi_probe(control, AsyncDjangoUrls)),
}


class Reader(HTMLParser):
    """What a browser finds in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, dict[str, str | None]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, dict(attrs))


@pytest.fixture(params=APPS)
def browser(request: pytest.FixtureRequest) -> Any:
    """Return a browser that has opened the form of an application."""
    clock = Clock()
    control = Control(MemoryStore(clock=clock), clock, SessionManager(clock=clock, csrf="off"))
    driver = APPS[request.param](control)
    yield Browser(driver)
    driver.close()


def uploaded(browser: Browser, token: str, content: bytes) -> Any:
    """Post a form with a file, as browsers do."""
    field = f'--cut\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{token}\r\n'.encode()
    file = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n'
    body = field + file + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--cut--\r\n"
    sent = browser.sent("POST", "/save", headers={"content-type": "multipart/form-data; boundary=cut"})
    sent.headers.append(("content-length", str(len(body))))
    sent.body = body
    return browser._driver.start(sent).result()


def test_a_form_carries_the_token_and_its_handler_asks_for_it(browser: Browser) -> None:
    """CSR-06: rendered as markup in templates that escape, read by the framework's parser, file and all."""
    answer = browser.get("/form")
    assert (answer.status, len(answer.cookies)) == (200, 1)
    assert "Cookie" in (answer.header("vary") or "")
    tags = Reader(answer.text).tags
    token = tags["input"]["value"] or ""
    assert tags["input"] == {"type": "hidden", "name": "csrf_token", "value": token}
    assert tags["meta"]["name"] == "csrf-token"
    headers = json.loads(tags["body"]["hx-headers"] or "")
    assert tags["body"]["hx-headers:inherited"] == tags["body"]["hx-headers"]
    assert headers.keys() == {"X-CSRF-Token"}
    assert "&lt;b&gt;" in answer.text, "the template escapes"
    for found in (token, tags["meta"]["content"], headers["X-CSRF-Token"]):
        assert browser.post("/save", {"csrf_token": found, "note": "é&"}, site=None).text == "é&"
    assert browser.post("/save", {"note": "n"}, headers=headers, site=None).text == "n"
    refused = browser.post("/save", {"note": "n"})
    assert (refused.status, refused.json()["error"]) == (403, "csrf")
    assert browser.post("/save", {"note": "n", "csrf_token": token + "x"}).status == 403
    content = bytes(range(256)) * 40
    assert uploaded(browser, token, content).body == content
    assert uploaded(browser, "no", content).status == 403
    assert Browser(browser._driver).post("/save", {"note": "n", "csrf_token": token}).status == 403
