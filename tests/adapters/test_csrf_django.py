"""Django's own CSRF check beside ours: which of the two refuses, and a token that lies in our session (F18)."""

from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware, rotate_token
from django.template import engines
from django.test import Client, override_settings
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from coatcheck import MemoryStore
from coatcheck.adapters.django import session_of
from coatcheck.adapters.django.checks import check_settings
from coatcheck.adapters.django.site import site
from coatcheck.core.errors import ConfigError

from .django_site import ready

ready()

OURS = "coatcheck.adapters.django.SessionMiddleware"
DJANGOS = "django.middleware.csrf.CsrfViewMiddleware"
CROSS = {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "https://evil.test"}
SAME = {"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "https://testserver"}


class Stricter(CsrfViewMiddleware):
    """A project's own kind of it."""


def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string("{% csrf_token %}").render({}, request))


def own_form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string("{% load coatcheck %}{% csrf_field %}").render({}, request))


def log_in(request: HttpRequest) -> HttpResponse:
    session_of(request).login("alice")
    rotate_token(request)  # as Django's login() does
    return HttpResponse("in")


def save(request: HttpRequest) -> HttpResponse:
    request.session["saved"] = True
    return HttpResponse("saved")


@csrf_exempt
def hook(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("heard")


def without_a_request(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string("{% load coatcheck %}{% csrf_field %}").render({}))


urlpatterns = [path(f"{view.__name__}/", view) for view in (form, own_form, log_in, save, hook, without_a_request)]


def project(middleware: list[str], **more: Any) -> Any:
    """Return the settings of a project."""
    coatcheck = {"STORE": MemoryStore(), **more.pop("coatcheck", {})}
    return override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware, COATCHECK=coatcheck, **more)


class Https(Client):
    """A browser over https whose forms Django checks."""

    def __init__(self) -> None:
        super().__init__(enforce_csrf_checks=True)

    def request(self, **request: Any) -> Any:
        return super().request(**{**request, "wsgi.url_scheme": "https", "SERVER_PORT": "443"})


def token_in(page: Any) -> str:
    text: str = page.content.decode()
    return text.rpartition('value="')[2].partition('"')[0]


@pytest.mark.parametrize(
    ("middleware", "coatcheck", "expected"),
    [
        ([OURS, DJANGOS], {}, "report"),
        ([OURS, f"{__name__}.Stricter"], {}, "report"),
        ([OURS], {}, "refuse"),
        ([OURS, "no.such.Middleware"], {}, "refuse"),
        ([OURS, DJANGOS], {"CSRF": "refuse"}, "refuse"),
        ([OURS], {"CSRF": "report"}, "report"),
    ],
)
def test_ours_refuses_where_djangos_is_not_at_work(middleware: list[str], coatcheck: Any, expected: str) -> None:
    """F18: one of the two does; a project that dropped Django's is not left without."""
    with project(middleware, coatcheck=coatcheck):
        assert site().manager.settings.csrf == expected


def test_a_project_that_nothing_guards_is_told() -> None:
    def found() -> list[CheckMessage]:
        return [one for one in check_settings() if one.id == "coatcheck.W003"]

    with project([OURS], coatcheck={"CSRF": "report"}):
        assert len(found()) == 1
    for middleware, coatcheck in (([OURS], {}), ([OURS, DJANGOS], {}), ([OURS, DJANGOS], {"CSRF": "off"})):
        with project(middleware, coatcheck=coatcheck):
            assert found() == []


def test_without_djangos_other_sites_are_refused_and_ours_are_not() -> None:
    with project([OURS]):
        assert Https().post("/save/", **CROSS).status_code == 403
        assert Https().post("/save/", **SAME).content == b"saved"
        assert Https().post("/hook/", **CROSS).status_code == 403, "csrf_exempt is Django's word"
    with project([OURS], coatcheck={"CSRF_EXEMPT": ["/hook/"]}):
        assert Https().post("/hook/", **CROSS).content == b"heard"


def test_with_djangos_an_exempt_view_is_exempt_and_others_need_its_token() -> None:
    """F18: ours only reports."""
    with project([OURS, DJANGOS]):
        assert Https().post("/hook/", **CROSS).content == b"heard"
        browser = Https()
        token = token_in(browser.get("/form/"))
        assert browser.post("/save/", **SAME).status_code == 403
        assert browser.post("/save/", {"csrfmiddlewaretoken": token}, **CROSS).status_code == 403
        assert browser.post("/save/", {"csrfmiddlewaretoken": token}, **SAME).content == b"saved"
        assert site().manager.noise.totals["csrf_denied"] == 2


def test_djangos_token_may_lie_in_our_session_and_then_belongs_to_it() -> None:
    """CSRF_USE_SESSIONS: no cookie of its own; another session's token is refused; a login changes it (D64)."""
    with project([OURS, DJANGOS], CSRF_USE_SESSIONS=True):
        browser, stranger = Https(), Https()
        token, foreign = token_in(browser.get("/form/")), token_in(stranger.get("/form/"))
        assert list(browser.cookies) == ["__Host-session"]
        assert browser.post("/save/", {"csrfmiddlewaretoken": foreign}, **SAME).status_code == 403
        assert browser.post("/save/", {"csrfmiddlewaretoken": token}, **SAME).content == b"saved"
        assert browser.post("/log_in/", {"csrfmiddlewaretoken": token}, **SAME).content == b"in"
        assert browser.post("/save/", {"csrfmiddlewaretoken": token}, **SAME).status_code == 403
        fresh = token_in(browser.get("/form/"))
        assert browser.post("/save/", {"csrfmiddlewaretoken": fresh}, **SAME).content == b"saved"


def test_a_login_needs_evidence_where_djangos_check_is_not_at_work() -> None:
    """D59 (M4): a request that says nothing of its site logs nobody in, but by the session's token."""
    with project([OURS]):
        browser = Https()
        token = token_in(browser.get("/own_form/"))
        assert browser.post("/log_in/", {"csrf_token": token}).status_code == 403, "nobody read the form"
        assert browser.post("/log_in/", HTTP_X_CSRF_TOKEN=token).content == b"in"


def test_a_template_without_a_request_is_told_what_it_lacks() -> None:
    with project([OURS]), pytest.raises(ConfigError, match=r"context_processors"):
        Https().get("/without_a_request/")
