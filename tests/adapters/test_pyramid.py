"""What is Pyramid's own: ISession, its security and CSRF policies, subrequests, exception views, flash, WebTest."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyramid.authorization import Allow, Authenticated
from pyramid.config import Configurator
from pyramid.csrf import get_csrf_token
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.interfaces import ISession
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from pyramid.security import forget, remember
from webtest import TestApp
from zope.interface.verify import verifyObject

from coatcheck import ConfigError, MemoryStore, Refusal, SessionManager
from coatcheck.adapters import wsgi
from coatcheck.adapters.pyramid import PyramidSession, SecurityPolicy, exchange_of, session_of
from coatcheck.core.model import Query, Record
from coatcheck.testing import Clock, FlakyStore, sign_in

HTTPS = {"wsgi.url_scheme": "https", "HTTP_HOST": "testserver", "HTTP_SEC_FETCH_SITE": "same-origin"}


def login(request: Any) -> Any:
    raise HTTPSeeOther("/me", headers=remember(request, "alice"))


def logout(request: Any) -> Any:
    return HTTPSeeOther("/me", headers=forget(request))


def me(request: Any) -> Response:
    return Response(str(request.authenticated_userid))


def write(request: Any) -> Response:
    request.session["k"] = "v"
    return Response("written")


def data(request: Any) -> Response:
    return Response(repr(request.session.copy()))


def configured(store: Any, **settings: Any) -> Configurator:
    """Return a configuration with a few pages; settings are ours, but for those with a dot in their name."""
    plain = {name if "." in name else f"coatcheck.{name}": value for name, value in settings.items()}
    config = Configurator(settings={"coatcheck.store": store, **plain})
    config.include("coatcheck.adapters.pyramid")
    for view in (login, logout, me, write, data):
        page(config, view)
    return config


def page(config: Configurator, view: Any, **how: Any) -> None:
    config.add_route(view.__name__, f"/{view.__name__}")
    config.add_view(view, route_name=view.__name__, **how)


def client_of(config: Configurator) -> TestApp:
    return TestApp(config.make_wsgi_app(), extra_environ=HTTPS)


def give(client: TestApp, name: str, value: str) -> None:
    """Have a client send a cookie as it is: its own `set_cookie` puts the value in quotation marks."""
    client.reset()
    client.extra_environ = {**HTTPS, "HTTP_COOKIE": f"{name}={value}"}


def records(store: Any) -> list[Record]:
    return list(store.find(Query(live=False)).items)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


# -- logging in and out ------------------------------------------------------------------------------------------------


def test_remember_logs_in_although_its_answer_is_raised(store: MemoryStore) -> None:
    client = client_of(configured(store))
    answer = client.post("/login", status=303)
    assert len(answer.headers.getall("Set-Cookie")) == 1
    assert answer.follow().text == "alice"
    assert [record.subject for record in records(store)] == ["alice"]


def test_forget_logs_out(store: MemoryStore) -> None:
    client = client_of(configured(store))
    client.post("/login")
    cookie = client.cookies["__Host-coat"]
    assert client.post("/logout").follow().text == "None"
    give(client, "__Host-coat", cookie)
    assert client.get("/me").text == "None"


def test_the_documented_snippet_of_webtest_works(store: MemoryStore) -> None:
    client = TestApp(configured(store).make_wsgi_app(), extra_environ={"wsgi.url_scheme": "https"})
    client.extra_environ["HTTP_COOKIE"] = "=".join(sign_in(store, "alice", data={"cart": [7]}))
    assert client.get("/me").text == "alice"
    assert client.get("/data").text == "{'cart': [7]}"


def test_permissions_are_judged_by_acls(store: MemoryStore) -> None:
    class Root:
        def __init__(self, request: Any) -> None:
            self.__acl__ = [(Allow, Authenticated, "view"), (Allow, "alice", "edit")]

    def view(request: Any) -> Response:
        return Response("seen")

    def edit(request: Any) -> Response:
        return Response("edited")

    config = configured(store)
    config.set_root_factory(Root)
    page(config, view, permission="view")
    page(config, edit, permission="edit")
    client = client_of(config)
    assert client.get("/view", status=403).status_code == 403
    give(client, *sign_in(store, "bob"))
    assert client.get("/view").text == "seen"
    client.get("/edit", status=403)
    give(client, *sign_in(store, "alice"))
    assert client.get("/edit").text == "edited"


def test_the_applications_own_security_policy_goes_before_ours(store: MemoryStore) -> None:
    class Own(SecurityPolicy):
        def authenticated_userid(self, request: Any) -> str | None:
            return "nobody but me"

    given = Configurator(settings={"coatcheck.store": store}, security_policy=Own())
    given.include("coatcheck.adapters.pyramid")
    page(given, me)
    assert client_of(given).get("/me").text == "nobody but me"
    config = configured(store)
    config.set_security_policy(Own())
    assert client_of(config).get("/me").text == "nobody but me"


# -- ISession ----------------------------------------------------------------------------------------------------------


def test_request_session_is_an_isession_and_ours(store: MemoryStore) -> None:
    def look(request: Any) -> Response:
        session = request.session
        assert verifyObject(ISession, session)
        assert session is session_of(request)
        assert exchange_of(request).store is store
        return Response(f"{session.new} {session.created}")

    clock = Clock()
    store = MemoryStore(clock=clock)
    config = configured(store, manager=SessionManager(clock=clock))
    page(config, look)
    client = client_of(config)
    assert client.get("/look").text == f"True {int(clock())}"
    began = int(clock())
    client.get("/write")
    clock.wind(60)
    assert client.get("/look").text == f"False {began}"


def test_an_invalidated_session_is_followed_by_a_new_one(store: MemoryStore) -> None:
    def restart(request: Any) -> Response:
        request.session.invalidate()
        assert request.session.new
        assert request.session.created == int(clock())
        assert not request.session
        request.session["fresh"] = 1
        return Response("")

    clock = Clock()
    store = MemoryStore(clock=clock)
    config = configured(store, manager=SessionManager(clock=clock))
    page(config, restart)
    client = client_of(config)
    client.post("/login")
    client.get("/write")
    clock.wind(60)
    client.get("/restart")
    assert client.get("/data").text == "{'fresh': 1}"
    assert client.get("/me").text == "None"


def test_a_change_inside_of_a_value_counts(store: MemoryStore) -> None:
    def nested(request: Any) -> Response:
        request.session.setdefault("list", []).append(1)
        request.session.changed()
        return Response("")

    config = configured(store)
    page(config, nested)
    client = client_of(config)
    client.get("/nested")
    client.get("/nested")
    assert client.get("/data").text == "{'list': [1, 1]}"


def test_flash_messages_are_shown_once(store: MemoryStore) -> None:
    def say(request: Any) -> Response:
        request.session.flash("a")
        request.session.flash("a", allow_duplicate=False)
        request.session.flash("a")
        request.session.flash("no", queue="error")
        return Response("")

    def peek(request: Any) -> Response:
        return Response(repr(request.session.peek_flash()))

    def show(request: Any) -> Response:
        return Response(repr([request.session.pop_flash(), request.session.pop_flash("error")]))

    config = configured(store)
    for view in (say, peek, show):
        page(config, view)
    client = client_of(config)
    client.get("/say")
    assert client.get("/peek").text == "['a', 'a']"
    client.get("/write")
    client.post("/login")
    assert client.get("/data").text == "{'_f_': ['a', 'a'], '_f_error': ['no']}"
    assert client.get("/show").text == "[['a', 'a'], ['no']]"
    assert client.get("/show").text == "[[], []]"


def test_nothing_of_another_user_is_flashed(store: MemoryStore) -> None:
    def switch(request: Any) -> Response:
        request.session.flash("for alice")
        request.session.login("bob")
        return Response("")

    config = configured(store)
    page(config, switch)
    client = client_of(config)
    client.post("/login")
    client.get("/switch")
    assert client.get("/me").text == "bob"
    assert client.get("/data").text == "{}"


# -- CSRF --------------------------------------------------------------------------------------------------------------


def guarded(store: MemoryStore, **settings: Any) -> TestApp:
    """Return a client of an application with Pyramid's own CSRF check on."""

    def form(request: Any) -> Response:
        assert request.session.get_csrf_token() != request.session.new_csrf_token()
        return Response(get_csrf_token(request))

    def hook(request: Any) -> Response:
        return Response("hooked")

    config = configured(store, **settings)
    config.set_default_csrf_options(require_csrf=True, check_origin=False)
    page(config, form)
    page(config, hook, require_csrf=False)
    return client_of(config)


def test_pyramids_own_check_takes_our_token(store: MemoryStore) -> None:
    client = guarded(store)
    client.get("/write")
    token = client.get("/form").text
    assert client.post("/write", status=400).status_code == 400
    assert client.post("/write", {"csrf_token": token}).text == "written"
    assert client.post("/write", headers={"X-CSRF-Token": token}).text == "written"
    other = guarded(store)
    other.get("/write")
    altered = token[:-1] + ("A" if token[-1] != "A" else "B")
    for wrong in (other.get("/form").text, altered, token[:40], "x"):
        client.post("/write", {"csrf_token": wrong}, status=400)
        client.post("/write", headers={"X-CSRF-Token": wrong}, status=400)


def test_where_pyramid_checks_ours_reports_and_exempt_views_are_exempt(store: MemoryStore) -> None:
    client = guarded(store)
    assert client.post("/hook", headers={"Sec-Fetch-Site": "cross-site"}).text == "hooked"


def test_ours_refuses_where_pyramid_does_not_check_or_when_told_to(store: MemoryStore) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    client_of(configured(store)).post("/write", headers=cross, status=403)
    guarded(store, csrf="refuse").post("/hook", headers=cross, status=403)


# -- subrequests, and other sessions around ----------------------------------------------------------------------------


@pytest.mark.parametrize("use_tweens", [False, True])
@pytest.mark.parametrize("blank", [False, True])
def test_a_subrequest_shares_the_session(store: MemoryStore, use_tweens: bool, blank: bool) -> None:
    def outer(request: Any) -> Response:
        request.session["outer"] = 1
        inner = Request.blank("/write") if blank else request.copy_get()
        inner.path_info = "/write"
        answer = request.invoke_subrequest(inner, use_tweens=use_tweens)
        assert inner.session is request.session
        assert "Set-Cookie" not in answer.headers
        return answer

    config = configured(store)
    page(config, outer)
    client = client_of(config)
    assert len(client.get("/outer").headers.getall("Set-Cookie")) == 1
    assert client.get("/data").text == "{'outer': 1, 'k': 'v'}"
    assert len(records(store)) == 1


def test_inside_of_our_wsgi_middleware_the_session_is_its(store: MemoryStore) -> None:
    app = wsgi.SessionMiddleware(configured(MemoryStore()).make_wsgi_app(), store=store)

    client = TestApp(app, extra_environ=HTTPS)
    client.post("/login")
    assert [record.subject for record in records(store)] == ["alice"]
    assert client.get("/me").text == "alice"


def test_with_another_cookie_it_has_a_session_of_its_own(store: MemoryStore) -> None:
    seen: list[Any] = []
    inner = configured(MemoryStore(), name="__Host-staff").make_wsgi_app()

    def around(environ: Any, start_response: Any) -> Any:
        session = wsgi.session_of(environ)
        answer = inner(environ, start_response)
        seen.append(wsgi.session_of(environ) is session)
        return answer

    client = TestApp(wsgi.SessionMiddleware(around, store=store), extra_environ=HTTPS)
    client.post("/login")
    assert seen == [True]
    assert set(client.cookies) == {"__Host-staff"}
    assert records(store) == []


def test_the_face_is_put_on_whatever_session_is_there(store: MemoryStore) -> None:
    def flash(request: Any) -> Response:
        assert isinstance(request.session, PyramidSession)
        request.session.flash("a")
        return Response("")

    config = configured(MemoryStore())
    page(config, flash)
    client = TestApp(wsgi.SessionMiddleware(config.make_wsgi_app(), store=store), extra_environ=HTTPS)
    client.get("/flash")
    assert client.get("/data").text == "{'_f_': ['a']}"


# -- responses, errors, callbacks --------------------------------------------------------------------------------------


def test_a_body_and_callbacks_may_write_late(store: MemoryStore) -> None:
    def stream(request: Any) -> Response:
        def chunks() -> Iterator[bytes]:
            request.session["streamed"] = 1
            yield b"x"

        def called_back(request: Any, _response: Any) -> None:
            session_of(request)["response"] = 1

        request.add_response_callback(called_back)
        request.add_finished_callback(lambda request: session_of(request).update(finished=1))
        return Response(app_iter=chunks())

    config = configured(store)
    page(config, stream)
    client = client_of(config)
    client.get("/write")
    assert client.get("/stream").text == "x"
    assert client.get("/data").text == "{'k': 'v', 'response': 1, 'finished': 1, 'streamed': 1}"


def test_a_finished_callback_of_a_whole_page_may_write_late(store: MemoryStore) -> None:
    def counted(request: Any) -> Response:
        request.add_finished_callback(lambda request: session_of(request).update(finished=1))
        return Response("whole")

    config = configured(store)
    page(config, counted)
    client = client_of(config)
    client.get("/write")
    client.get("/counted")
    assert client.get("/data").text == "{'k': 'v', 'finished': 1}"


def test_a_stream_is_closed_with_its_session_and_keeps_its_length(store: MemoryStore) -> None:
    closed: list[str] = []

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"abc"])

        def close(self) -> None:
            closed.append("closed")

    def stream(request: Any) -> Response:
        return Response(app_iter=Chunks(), content_length=3)

    flaky = FlakyStore(store)
    config = configured(flaky)
    page(config, stream)
    client = client_of(config)
    answer = client.get("/stream")
    assert (answer.headers["Content-Length"], closed) == ("3", ["closed"])
    give(client, *sign_in(store, "alice"))

    def refused(request: Any) -> Response:
        request.session["k"] = 1
        return Response(app_iter=Chunks())

    page(config, refused)
    client.app = config.make_wsgi_app()
    flaky.trouble.fail("commit")
    assert client.get("/refused", status=503).headers["Retry-After"] == "1"
    assert closed == ["closed", "closed"]


def test_a_renewal_waits_while_a_file_is_not_modified(store: MemoryStore, tmp_path: Path) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    (tmp_path / "file.txt").write_text("0123456789")

    def file(request: Any) -> Response:
        return FileResponse(tmp_path / "file.txt", request)

    manager = SessionManager(clock=clock)
    config = configured(store, manager=manager)
    page(config, file)
    client = client_of(config)
    give(client, *sign_in(store, "alice", manager=manager))
    modified = client.get("/file").headers["Last-Modified"]
    clock.wind(16 * 60)
    answer = client.get("/file", headers={"If-Modified-Since": modified}, status=304)
    assert "Set-Cookie" not in answer.headers
    assert "Set-Cookie" not in client.get("/file", headers={"Range": "bytes=2-4"}, status=206).headers
    assert "Set-Cookie" in client.get("/file").headers


def test_an_exception_view_may_write_and_logs_in(store: MemoryStore) -> None:
    def broken(request: Any) -> Response:
        request.session["before"] = 1
        raise LookupError

    def sorry(error: Exception, request: Any) -> Response:
        request.session.flash("sorry")
        return Response("sorry", 400)

    config = configured(store)
    page(config, broken)
    config.add_exception_view(sorry, context=LookupError)
    client = client_of(config)
    client.get("/broken", status=400)
    assert client.get("/data").text == "{'before': 1, '_f_': ['sorry']}"


def test_a_logout_counts_although_an_error_reaches_the_server(store: MemoryStore) -> None:
    def out(request: Any) -> Response:
        request.session.logout()
        raise LookupError

    config = configured(store)
    page(config, out)
    client = client_of(config)
    client.post("/login")
    with pytest.raises(LookupError):
        client.get("/out")
    assert client.get("/me").text == "None"


def private(request: Any) -> Response:
    return Response(request.session.require_login())


def test_a_refusal_is_an_exception_view_that_the_application_may_replace(store: MemoryStore) -> None:
    config = configured(store)
    page(config, private)
    answer = client_of(config).get("/private", status=401)
    assert answer.json == {"error": "login_required"}
    config.add_exception_view(lambda refusal, request: Response("own", 401), context=Refusal)
    assert client_of(config).get("/private", status=401).text == "own"


def naming_tween(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        response = handler(request)
        response.headers["X-Seen"] = str(response.status_int)
        return response

    return tween


def test_a_refusal_passes_through_the_applications_tweens(store: MemoryStore) -> None:
    config = configured(store)
    page(config, private)
    config.add_tween(f"{__name__}.naming_tween", over="pyramid.tweens.excview_tween_factory", under=OURS)
    assert client_of(config).get("/private", status=401).headers["X-Seen"] == "401"


def strict_tween(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        session_of(request).require_login()
        return handler(request)

    return tween


def test_a_refusal_of_a_tween_is_answered(store: MemoryStore) -> None:
    config = configured(store)
    config.add_tween(f"{__name__}.strict_tween", over="pyramid.tweens.excview_tween_factory", under=OURS)
    assert client_of(config).get("/me", status=401).json == {"error": "login_required"}


OURS = "coatcheck.adapters.pyramid.Tween"


# -- settings ----------------------------------------------------------------------------------------------------------


def test_an_ini_file_spells_every_kind_of_setting(store: MemoryStore) -> None:
    config = configured(
        store,
        name="__Host-shop",
        origins="https://shop.example\n  https://www.shop.example",
        allow_insecure_http="false",
        limit="3",
        timeouts="pci",
        data=f"{__name__}.Basket",
        exclude="/health /static",
    )

    def look(request: Any) -> Response:
        settings = exchange_of(request).manager.settings
        assert list(settings.origins) == ["https://shop.example", "https://www.shop.example"]
        assert (settings.limit, settings.data, settings.timeouts) == (3, Basket, "pci")
        assert settings.allow_insecure_http is False
        return Response(repr(session_of(request, Basket).data))

    page(config, look)
    client = TestApp(config.make_wsgi_app(), extra_environ={**HTTPS, "HTTP_HOST": "shop.example"})
    assert client.get("/look").text == "Basket(items=[])"


@dataclass
class Basket:
    """The type of a session's data."""

    items: list[int] = field(default_factory=list)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"csrf_exmpt": "/hook"}, "did you mean 'csrf_exempt'"),
        ({"allow_insecure_http": "ture"}, "coatcheck.allow_insecure_http is true or false"),
        ({"data": "no.such.module"}, "coatcheck.data names an object"),
        ({"manager": SessionManager(), "name": "x"}, "not both"),
        ({"same_site": "None"}, "reason"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_at_start(store: MemoryStore, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(store, **settings).make_wsgi_app()


def test_an_excluded_path_has_no_session(store: MemoryStore) -> None:
    client = client_of(configured(store, exclude="/data"))
    with pytest.raises(ConfigError, match="there is no session on /data"):
        client.get("/data")
    client.post("/data", headers={"Sec-Fetch-Site": "cross-site"}, status=403)
