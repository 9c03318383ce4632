"""The views of the test project: Django's own ways with a session, sync and async."""

from collections.abc import Callable, Iterator

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth import get_user, get_user_model, login, logout, update_session_auth_hash
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse

from coatcheck.adapters.django import refusal_response, session_of
from coatcheck.core.errors import Refusal

try:
    from django.contrib.auth import alogin, alogout
except ImportError:  # Django 4.2
    alogin, alogout = sync_to_async(login), sync_to_async(logout)


def log_in(request: HttpRequest) -> HttpResponse:
    login(request, get_user_model().objects.get(username=request.GET.get("user", "ann")))
    return HttpResponse(request.session.session_key)


async def alog_in(request: HttpRequest) -> HttpResponse:
    await alogin(request, await get_user_model().objects.aget(username=request.GET.get("user", "ann")))
    return HttpResponse(request.session.session_key)


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("out", headers={"Expires": "Thu, 01 Jan 2099 00:00:00 GMT"} if "expires" in request.GET else {})


async def alog_out(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse("out")


def who(request: HttpRequest) -> HttpResponse:
    if "password" in request.GET:
        request.user.set_password("another")
        request.user.save()
        update_session_auth_hash(request, request.user)
    return JsonResponse({"user": str(request.user), "subject": session_of(request).subject, **_data(request)})


async def awho(request: HttpRequest) -> HttpResponse:
    user = await sync_to_async(get_user)(request)
    return JsonResponse({"user": str(user), "subject": session_of(request).subject, **_data(request)})


def _data(request: HttpRequest) -> dict[str, object]:
    return {key: value for key, value in request.session.items() if not key.startswith("_")}


def count(request: HttpRequest) -> HttpResponse:
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))


async def acount(request: HttpRequest) -> HttpResponse:
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))


def fails(request: HttpRequest) -> HttpResponse:
    if "out" in request.GET:
        logout(request)
    request.session["n"] = 99
    raise ValueError


def message(request: HttpRequest) -> HttpResponse:
    messages.info(request, "kept for later")
    return HttpResponse("ok")


def messages_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(" ".join(str(one) for one in messages.get_messages(request)))


def saved(request: HttpRequest) -> HttpResponse:
    request.session.save()
    headers = {name: value for name, value in request.GET.items() if name != "status"}
    status = int(request.GET.get("status", "200"))
    return HttpResponse(request.session.session_key, status=status, headers=headers)


def restarted(request: HttpRequest) -> HttpResponse:
    request.session.delete()
    request.session["again"] = 1
    return HttpResponse("ok")


def unkeepable(request: HttpRequest) -> HttpResponse:
    logout(request)
    request.session["bad"] = object()
    return HttpResponse("ok")


CLOSED: list[str] = []


def closing(request: HttpRequest) -> HttpResponse:
    request.session["x"] = 1
    response = HttpResponse("ok")
    response._resource_closers.append(lambda: CLOSED.append("closed"))
    return response


def replaced(request: HttpRequest) -> HttpResponse:
    request.session = request.session.__class__(request.session.session_key)
    request.session["replaced"] = True
    return HttpResponse("ok")


def saved_twice(request: HttpRequest) -> HttpResponse:
    for number in range(2):
        request.session["n"] = number
        request.session.save()
    return HttpResponse(request.session.session_key)


def swapped(request: HttpRequest) -> HttpResponse:
    logout(request)
    request.session = request.session.__class__()
    request.session["swapped"] = True
    return HttpResponse("ok")


def expiry(request: HttpRequest) -> HttpResponse:
    request.session["x"] = 1
    request.session.set_expiry(int(request.GET["seconds"]))
    return HttpResponse("ok")


def stream(request: HttpRequest) -> HttpResponseBase:
    request.session["early"] = 1

    def chunks() -> Iterator[bytes]:
        yield b"one "
        request.session["late"] = 1
        yield b"two"

    return StreamingHttpResponse(chunks())


def private(request: HttpRequest) -> HttpResponse:
    return HttpResponse(session_of(request).require_login())


def guarded(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Let nobody in who is not logged in: a middleware."""

    def guard(request: HttpRequest) -> HttpResponse:
        try:
            session_of(request).require_login()
        except Refusal as refusal:
            return refusal_response(refusal)
        return get_response(request)

    return guard
