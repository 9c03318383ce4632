"""Django's own ways with a session: its session class, login, messages, test client, transactions, checks."""

import contextlib
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coatcheck.testing.flaky import FlakyStore

from .django_site import ready

ready()

from asgiref.sync import sync_to_async  # noqa: E402
from django.conf import settings  # noqa: E402
from django.contrib.auth import SESSION_KEY, get_user_model  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.base import UpdateError  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.signals import got_request_exception  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.test import AsyncClient, Client, TestCase, TransactionTestCase, override_settings  # noqa: E402
from django.views.debug import ExceptionReporter  # noqa: E402

from coatcheck import MemoryStore, Registry  # noqa: E402
from coatcheck.adapters.django import SessionStore  # noqa: E402
from coatcheck.adapters.django.checks import check_settings  # noqa: E402
from coatcheck.adapters.django.models import StoredSession  # noqa: E402
from coatcheck.adapters.django.site import site  # noqa: E402
from coatcheck.core.errors import ConfigError, DataError  # noqa: E402

from .django_site.views import CLOSED  # noqa: E402

COOKIE = "__Host-session"


def setUpModule() -> None:
    call_command("migrate", verbosity=0)


def registry() -> Registry:
    return Registry(site().store, site().manager.realm)


def handle_of(token: str) -> str:
    return token.split(".")[1]


class Engine(TestCase):
    """SessionBase's surface, over the "django" store."""

    def setUp(self) -> None:
        self.session = SessionStore()

    def test_a_new_session_is_empty_unlooked_at_and_has_no_key(self) -> None:
        assert (self.session.modified, self.session.accessed) == (False, False)
        assert self.session.session_key is None
        assert self.session.is_empty()
        assert self.session.get("cat") is None
        assert (self.session.modified, self.session.accessed) == (False, True)

    def test_reading_is_access_and_writing_is_change(self) -> None:
        session = self.session
        session["cat"] = "dog"
        assert (session.modified, session.accessed) == (True, True)
        for look in (
            session.keys,
            session.values,
            session.items,
            lambda: session.has_key("cat"),
            lambda: "cat" in session,
        ):
            session.modified = session.accessed = False
            look()
            assert (session.modified, session.accessed) == (False, True)
        assert list(session.items()) == [("cat", "dog")]

    def test_pop_setdefault_update_and_clear(self) -> None:
        session = self.session
        session["some key"] = "exists"
        session.modified = False
        assert session.pop("some key") == "exists"
        assert session.modified
        assert session.get("some key") is None
        session.modified = False
        assert session.pop("missing", "default") == "default"
        assert session.pop("missing", default="named") == "named"
        assert not session.modified
        with pytest.raises(KeyError):
            session.pop("missing")
        assert session.setdefault("foo", "bar") == "bar"
        assert session.setdefault("foo", "baz") == "bar"
        session.update({"update key": 1})
        assert session["update key"] == 1
        session.accessed = session.modified = False
        session.clear()
        assert list(session.items()) == []
        assert (session.modified, session.accessed) == (True, True)

    def test_a_deleted_key_is_gone(self) -> None:
        self.session["k"] = 1
        del self.session["k"]
        assert "k" not in self.session
        with pytest.raises(KeyError):
            del self.session["k"]

    def test_save_makes_a_key_that_exists_and_a_nested_change_counts(self) -> None:
        self.session["list"] = [1]
        self.session.save()
        key = self.session.session_key
        assert self.session.exists(key)
        again = SessionStore(key)
        again["list"].append(2)
        again.save()
        assert again.session_key == key
        assert SessionStore(key)["list"] == [1, 2]
        assert SessionStore(key).load() == {"list": [1, 2]}

    def test_an_empty_session_gets_a_record_when_it_is_saved_or_created(self) -> None:
        self.session.save()
        assert self.session.exists(self.session.session_key)
        other = SessionStore()
        other.create()
        assert other.exists(other.session_key)
        first = other.session_key
        other["x"] = 1
        other.create()
        assert other.session_key not in (None, first)

    def test_delete_ends_this_or_another(self) -> None:
        self.session.save()
        key = self.session.session_key
        SessionStore().delete(key)
        assert not self.session.exists(key)
        self.session.delete("nonsense")
        self.session.delete()
        assert self.session.session_key is None

    def test_flush_ends_the_session_and_forgets_the_data(self) -> None:
        self.session["foo"] = "bar"
        self.session.save()
        key = self.session.session_key
        self.session.flush()
        assert not self.session.exists(key)
        assert self.session.session_key is None
        assert (self.session.modified, self.session.accessed) == (True, True)
        assert self.session.get("foo") is None
        self.session.save()
        assert self.session.session_key not in (None, key)

    def test_cycle_key_keeps_the_data_under_another_key(self) -> None:
        self.session["a"] = "b"
        self.session.save()
        key = self.session.session_key
        self.session.cycle_key()
        assert not self.session.exists(key)
        assert self.session.session_key != key
        assert dict(self.session.items()) == {"a": "b"}
        assert SessionStore(self.session.session_key)["a"] == "b"

    def test_cycle_key_of_a_new_session_makes_one(self) -> None:
        self.session.cycle_key()
        assert self.session.exists(self.session.session_key)

    def test_cycling_again_without_a_use_in_between_works(self) -> None:
        self.session["a"] = 1
        self.session.save()
        for _ in range(3):
            self.session.cycle_key()
        assert SessionStore(self.session.session_key)["a"] == 1

    def test_nobodys_key_becomes_a_new_one_when_saved(self) -> None:
        self.session["x"] = 1
        self.session.save()
        key = self.session.session_key
        assert key is not None
        forged = key[:-1] + ("A" if key[-1] != "A" else "B")
        for nobodys in ("1", "", "1234567", "12345678", handle_of(key), forged, "ä"):
            assert not self.session.exists(nobodys)
            session = SessionStore(nobodys)
            assert session.get("x") is None
            session.save()
            assert session.session_key not in (None, nobodys, key)
        assert not self.session.exists(None)

    def test_looking_at_an_unknown_key_stores_nothing(self) -> None:
        before = StoredSession.objects.count()
        session = SessionStore("someunknownkey")
        session.load()
        assert session.session_key is None
        assert StoredSession.objects.count() == before

    def test_session_key_is_read_only(self) -> None:
        with pytest.raises(AttributeError):
            self.session.session_key = "x"  # type: ignore[misc]

    def test_a_session_that_was_ended_elsewhere_is_not_revived(self) -> None:
        self.session["x"] = 1
        self.session.save()
        key = self.session.session_key
        SessionStore(key).delete()
        self.session["x"] = 2
        with pytest.raises(UpdateError):
            self.session.save()
        assert not self.session.exists(key)

    def test_encode_and_decode_are_djangos(self) -> None:
        assert self.session.decode(self.session.encode({"a": [1]})) == {"a": [1]}
        assert self.session.decode("garbage") == {}

    def test_a_value_that_cannot_be_kept_is_named(self) -> None:
        self.session["bad"] = object()
        with pytest.raises(DataError, match="bad"):
            self.session.save()

    def test_the_test_cookie(self) -> None:
        self.session.set_test_cookie()
        assert self.session.test_cookie_worked()
        self.session.delete_test_cookie()
        assert not self.session.test_cookie_worked()

    def test_expiry_without_a_wish_is_the_settings(self) -> None:
        session = self.session
        assert session.get_expiry_age() == 1209600
        session.set_expiry(0)
        assert session.get_expiry_age() == 1209600
        assert session.get_expire_at_browser_close()
        session.set_expiry(None)
        assert session.get_expiry_age() == 1209600
        assert not session.get_expire_at_browser_close()

    def test_expiry_in_seconds_by_date_and_by_delta(self) -> None:
        session, now = self.session, datetime.now(UTC)
        session.set_expiry(10)
        assert session.get_expiry_date(modification=now) == now + timedelta(seconds=10)
        assert session.get_expiry_age(modification=now) == 10
        session.set_expiry(now + timedelta(seconds=20))
        assert session.get_expiry_age(modification=now) == 20
        session.set_expiry(timedelta(seconds=30))
        assert session.get_expiry_age() in (29, 30)
        assert session.get_expiry_age(expiry=None) == 1209600

    def test_the_record_agrees_with_the_wish(self) -> None:
        def record(wish: Any) -> Any:
            session = SessionStore()
            session["x"] = 1
            session.set_expiry(wish)
            session.save()
            return site().store.load(session.handle or "")

        assert (record(60).idle_for, record(60).persistent) == (60.0, True)
        assert record(0).persistent is False
        long = record(30 * 86400)
        assert long.expires_at - long.created_at == pytest.approx(30 * 86400, abs=2)
        assert long.idle_for == pytest.approx(30 * 86400, abs=2)
        dated = record(datetime.now(UTC) + timedelta(days=20))
        assert dated.expires_at - dated.created_at == pytest.approx(20 * 86400, abs=2)
        naive = record(datetime.now() + timedelta(days=2))  # noqa: DTZ005 - some write it so
        assert naive.expires_at - naive.created_at == pytest.approx(2 * 86400, abs=86400)
        assert record(400 * 86400).expires_at - record(60).created_at < 31 * 86400

    def test_a_session_that_is_over_does_not_open(self) -> None:
        self.session["x"] = 1
        self.session.set_expiry(-10)
        self.session.save()
        assert not self.session.exists(self.session.session_key)
        SessionStore.clear_expired()
        call_command("clearsessions")
        assert StoredSession.objects.get(pk=self.session.handle).ended_at is not None

    def test_who_is_logged_in_is_not_data(self) -> None:
        self.session.save()
        self.session.inner["_auth_user_id"] = "1"
        assert "_auth_user_id" not in self.session
        with pytest.raises(KeyError):
            self.session["_auth_user_id"]
        self.session[SESSION_KEY] = "1"
        assert (self.session.inner.subject, self.session[SESSION_KEY]) == ("1", "1")

    def test_without_djangos_login_key_nobody_is_logged_in_and_the_data_stays(self) -> None:
        self.session["cart"] = [1]
        self.session[SESSION_KEY] = "1"
        self.session.save()
        key = self.session.session_key
        del self.session[SESSION_KEY]
        assert self.session.inner.subject is None
        self.session.save()
        assert self.session["cart"] == [1]
        assert not self.session.exists(key)
        self.session[SESSION_KEY] = "1"
        self.session.clear()
        assert self.session.inner.subject is None

    def test_no_secret_in_its_repr(self) -> None:
        self.session.save()
        key = self.session.session_key or "?"
        assert key.split(".")[2] not in repr(self.session.inner) + repr(self.session) + repr(self.session.inner.visit)


class AwaitedEngine(TransactionTestCase):
    """The same surface, awaited."""

    async def test_the_whole_round(self) -> None:
        session = SessionStore()
        await session.aset("a", 1)
        assert await session.aget("a") == 1
        await session.aupdate({"b": 2})
        assert await session.ahas_key("b")
        assert list(await session.akeys()) == ["a", "b"]
        assert list(await session.avalues()) == [1, 2]
        assert list(await session.aitems()) == [("a", 1), ("b", 2)]
        assert await session.asetdefault("c", 3) == 3
        assert await session.apop("c") == 3
        await session.aset_expiry(60)
        await session.asave()
        key = session.session_key
        assert await session.aexists(key)
        assert (await SessionStore(key).aload())["b"] == 2
        assert await SessionStore(key).aget("b") == 2
        await session.acycle_key()
        assert session.session_key != key
        await session.aflush()
        await session.acreate()
        await session.adelete()
        assert session.session_key is None
        await SessionStore.aclear_expired()


class InTransactions:
    """What is the same whether the test runs in a transaction or not."""

    client: Client

    def setUp(self) -> None:
        self.user = get_user_model().objects.create_user("ann", password="secret")
        self.other = get_user_model().objects.create_user("bob", password="secret")

    def who(self, client: Client | None = None) -> dict[str, Any]:
        shown: dict[str, Any] = (client or self.client).get("/who/", secure=True).json()
        return shown

    def test_login_rotates_keeps_the_anonymous_data_and_is_listed(self) -> None:
        self.client.get("/count/")
        before = self.client.cookies[COOKIE].value
        final = self.client.get("/login/").content.decode()
        assert self.client.cookies[COOKIE].value == final != before
        assert self.who() == {"user": "ann", "subject": str(self.user.pk), "n": 1}
        assert not SessionStore().exists(before)
        assert [one.handle for one in registry().find(str(self.user.pk)).items] == [handle_of(final)]
        registry().revoke_all(str(self.user.pk))
        assert self.who()["user"] == "AnonymousUser"

    def test_alogin_and_alogout(self) -> None:
        self.client.get("/acount/")
        final = self.client.get("/alogin/").content.decode()
        assert self.client.cookies[COOKIE].value == final
        assert self.client.get("/awho/").json() == {"user": "ann", "subject": str(self.user.pk), "n": 1}
        token = self.client.cookies[COOKIE].value
        self.client.get("/alogout/")
        assert not SessionStore().exists(token)

    def test_logout_ends_the_session(self) -> None:
        self.client.get("/login/")
        token = self.client.cookies[COOKIE].value
        assert self.client.get("/logout/").cookies[COOKIE]["max-age"] == 0
        self.client.cookies[COOKIE] = token
        assert self.who()["user"] == "AnonymousUser"

    def test_somebody_elses_login_takes_nothing_along(self) -> None:
        self.client.get("/login/")
        self.client.get("/count/")
        self.client.get("/login/?user=bob")
        assert self.who() == {"user": "bob", "subject": str(self.other.pk)}

    def test_a_view_that_raises_keeps_the_logout_and_drops_the_rest(self) -> None:
        self.client.raise_request_exception = False
        self.client.get("/login/")
        token = self.client.cookies[COOKIE].value
        assert self.client.get("/raise/").status_code == 500
        assert self.who()["user"] == "ann"
        assert "n" not in self.who()
        self.client.get("/raise/?out=1")
        assert not SessionStore().exists(token)

    def test_the_test_clients_own_ways(self) -> None:
        session = self.client.session
        session["n"] = 6
        session.save()
        assert self.client.get("/count/").content == b"7"
        self.client.force_login(self.user)
        assert self.who() == {"user": "ann", "subject": str(self.user.pk), "n": 7}
        self.client.logout()
        assert self.who()["user"] == "AnonymousUser"
        assert self.client.login(username="ann", password="secret")
        assert self.who()["user"] == "ann"
        self.client.force_login(self.other)
        assert self.who() == {"user": "bob", "subject": str(self.other.pk)}

    def test_a_new_password_renews_this_session_and_ends_the_others(self) -> None:
        self.client.get("/login/")
        elsewhere = Client()
        elsewhere.get("/login/")
        before = self.client.cookies[COOKIE].value
        self.client.post("/who/?password=new")
        assert self.client.cookies[COOKIE].value != before
        assert self.who()["user"] == "ann"
        assert not SessionStore().exists(before)
        assert self.who(elsewhere)["user"] == "AnonymousUser"

    def test_a_rotated_secret_key_logs_nobody_out(self) -> None:
        with override_settings(SECRET_KEY="old"):
            self.client.get("/login/")
        token = self.client.cookies[COOKIE].value
        clients = [Client() for _ in range(5)]
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            for client in clients:
                client.cookies[COOKIE] = token
                assert self.who(client)["user"] == "ann"
            client = clients[0]
            assert client.cookies[COOKIE].value != token
            assert self.who(client)["user"] == "ann"
        with override_settings(SECRET_KEY="third"):
            assert self.who(client)["user"] == "AnonymousUser"

    def test_messages_survive_a_redirect_and_a_login_and_are_shown_once(self) -> None:
        with override_settings(MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage"):
            self.client.get("/message/")
            self.client.get("/login/")
            assert self.client.get("/messages/").content == b"kept for later"
            assert self.client.get("/messages/").content == b""

    def test_an_explicit_save_gives_the_key_at_once(self) -> None:
        answer = self.client.get("/saved/")
        assert self.client.cookies[COOKIE].value == answer.content.decode()
        assert answer.headers["Cache-Control"] == "no-store"
        assert SessionStore().exists(answer.content.decode())
        failed = Client().get("/saved/?status=500")
        assert failed.cookies[COOKIE].value == failed.content.decode()

    def test_a_session_that_was_deleted_at_once_may_begin_again(self) -> None:
        self.client.get("/count/")
        token = self.client.cookies[COOKIE].value
        self.client.get("/restarted/")
        assert self.who() == {"user": "AnonymousUser", "subject": None, "again": 1}
        assert not SessionStore().exists(token)

    def test_a_value_that_cannot_be_kept_does_not_undo_a_logout(self) -> None:
        self.client.raise_request_exception = False
        self.client.get("/login/")
        token = self.client.cookies[COOKIE].value
        assert self.client.get("/unkeepable/").status_code == 500
        assert not SessionStore().exists(token)

    def test_another_session_put_on_the_request_is_settled(self) -> None:
        self.client.get("/count/")
        self.client.get("/replaced/")
        assert self.who() == {"user": "AnonymousUser", "subject": None, "n": 1, "replaced": True}

    def test_the_cookie_lasts_as_set_expiry_says(self) -> None:
        assert self.client.get("/expiry/?seconds=0").cookies[COOKIE]["max-age"] == ""
        assert Client().get("/expiry/?seconds=60").cookies[COOKIE]["max-age"] == 1209600
        assert Client().get(f"/expiry/?seconds={86400 * 30}").cookies[COOKIE]["max-age"] >= 86400 * 30 - 2
        with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=True):
            assert Client().get("/count/").cookies[COOKIE]["max-age"] == ""

    def test_the_cookie_is_hardened(self) -> None:
        morsel = self.client.get("/count/").cookies[COOKIE]
        assert (morsel["secure"], morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, True, "Lax", "/")

    def test_a_stream_writes_late(self) -> None:
        assert b"".join(self.client.get("/stream/")) == b"one two"  # type: ignore[arg-type]
        assert self.who() == {"user": "AnonymousUser", "subject": None, "early": 1, "late": 1}

    def test_a_bare_handle_opens_nothing(self) -> None:
        self.client.get("/login/")
        self.client.cookies[COOKIE] = handle_of(self.client.cookies[COOKIE].value)
        assert self.who()["user"] == "AnonymousUser"

    def test_require_login_answers_by_itself(self) -> None:
        answer = self.client.get("/private/")
        assert (answer.status_code, "WWW-Authenticate" in answer.headers) == (401, True)
        self.client.get("/login/")
        assert self.client.get("/private/").content.decode() == str(self.user.pk)

    def test_of_two_saves_the_first_ones_cookie_goes_out(self) -> None:
        answer = self.client.get("/savedtwice/")
        assert self.client.cookies[COOKIE].value == answer.content.decode()
        assert self.client.session["n"] == 1

    def test_a_cache_is_not_told_to_keep_what_hands_out_a_cookie(self) -> None:
        self.client.get("/login/")
        answer = self.client.get("/logout/?expires=1")
        assert "Expires" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"

    def test_a_wish_for_a_browser_session_outlives_the_next_write(self) -> None:
        self.client.get("/expiry/?seconds=0")
        self.client.get("/count/")
        record = site().store.load(handle_of(self.client.cookies[COOKIE].value))
        assert record is not None
        assert record.persistent is False

    def test_a_middleware_that_refuses_returns_the_refusal(self) -> None:
        guarded = [*settings.MIDDLEWARE, "tests.adapters.django_site.views.guarded"]
        with override_settings(MIDDLEWARE=guarded):
            assert Client().get("/who/").status_code == 401
        self.client.get("/login/")
        with override_settings(MIDDLEWARE=guarded):
            assert self.who()["user"] == "ann"

    def test_what_was_asked_of_the_session_before_another_took_its_place_is_done(self) -> None:
        self.client.get("/login/")
        token = self.client.cookies[COOKIE].value
        self.client.get("/swapped/")
        assert not SessionStore().exists(token)
        assert self.client.cookies[COOKIE].value not in ("", token)
        assert self.client.session["swapped"] is True

    def test_neither_a_debug_page_nor_an_error_mail_shows_the_token(self) -> None:
        self.client.get("/login/")
        token = self.client.cookies[COOKIE].value
        shown: list[str] = []

        def report(request: Any, **_: Any) -> None:
            for is_email in (False, True):
                reporter = ExceptionReporter(request, *sys.exc_info(), is_email=is_email)
                shown.extend((reporter.get_traceback_html(), reporter.get_traceback_text()))

        client = Client(raise_request_exception=False)
        client.cookies[COOKIE] = token
        got_request_exception.connect(report)
        try:
            with override_settings(DEBUG=True):
                shown += [client.get(path).content.decode() for path in ("/raise/", "/unkeepable/")]
        finally:
            got_request_exception.disconnect(report)
        assert len(shown) == 10
        secrets = token.split(".")[2:]
        for page in shown:
            assert "Error" in page
            assert not [secret for secret in secrets if secret in page]

    def test_who_does_not_look_gets_no_vary(self) -> None:
        assert "Vary" not in self.client.get("/nowhere/").headers
        assert "Cookie" in self.client.get("/count/").headers["Vary"]

    def test_excluded_paths_have_no_session_and_say_so(self) -> None:
        with override_settings(COATCHECK={"STORE": "django", "EXCLUDE": ["/count"]}):
            with pytest.raises(ConfigError, match="EXCLUDE"):
                Client().get("/count/")
            assert Client().get("/who/").status_code == 200

    def test_the_admin_lists_and_revokes(self) -> None:
        admin = Client()
        admin.force_login(User.objects.create_superuser("root"))
        self.client.get("/login/")
        handle = handle_of(self.client.cookies[COOKIE].value)
        assert handle in admin.get("/admin/coatcheck/storedsession/").content.decode()
        admin.post("/admin/coatcheck/storedsession/", {"action": "revoke", "_selected_action": handle})
        assert self.who()["user"] == "AnonymousUser"
        assert StoredSession.objects.get(pk=handle).ended_because == "operator"
        assert admin.get("/admin/coatcheck/storedsession/add/").status_code == 403

    def test_another_store_by_url_or_object(self) -> None:
        store = MemoryStore()
        with override_settings(COATCHECK={"STORE": store}):
            client = Client()
            assert [client.get("/count/").content for _ in range(2)] == [b"1", b"2"]
            client.get("/login/")
            assert self.who(client)["n"] == 2


class InATestCase(InTransactions, TestCase):
    """Each test in a transaction that is rolled back."""


class InATransactionTestCase(InTransactions, TransactionTestCase):
    """No transaction around the test."""


class Transactions(TransactionTestCase):
    """F21: what a transaction around us does."""

    def test_the_session_of_a_view_that_fails_in_its_transaction_is_our_own_affair(self) -> None:
        get_user_model().objects.create_user("ann")
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        try:
            client = Client(raise_request_exception=False)
            client.get("/login/")
            token = client.cookies[COOKIE].value
            assert client.get("/who/").json()["user"] == "ann"
            client.get("/raise/?out=1")
            assert not SessionStore().exists(token)
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = False

    def test_what_is_rolled_back_around_a_save_is_gone(self) -> None:
        session = SessionStore()
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            session.save()
            assert SessionStore().exists(session.session_key)
            raise ZeroDivisionError
        assert not SessionStore().exists(session.session_key)

    def test_a_conflict_inside_a_transaction_leaves_it_whole(self) -> None:
        session = SessionStore()
        session["x"] = 1
        session.save()
        with transaction.atomic():
            SessionStore(session.session_key).delete()
            session["x"] = 2
            with pytest.raises(UpdateError):
                session.save()
            get_user_model().objects.create_user("after")
        assert get_user_model().objects.filter(username="after").exists()

    def test_reads_go_where_the_routers_write(self) -> None:
        class Lagging:
            def db_for_read(self, model: Any, **hints: Any) -> str:
                message = "a replica was asked"
                raise AssertionError(message)

            def db_for_write(self, model: Any, **hints: Any) -> str:
                return "default"

        with override_settings(DATABASE_ROUTERS=[Lagging()]):
            client = Client()
            assert [client.get("/count/").content for _ in range(2)] == [b"1", b"2"]

    def test_parallel_writers_lose_nothing(self) -> None:
        client = Client()
        client.get("/count/")
        token = client.cookies[COOKIE].value

        def write(number: int) -> None:
            session = SessionStore(token)
            session[f"k{number}"] = number
            session.save()
            connection.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(8)))
        assert {f"k{number}" for number in range(8)} <= set(SessionStore(token).keys())


class OnASecondDatabase(TransactionTestCase):
    """Sessions in a database of their own: named by the setting, or by a router."""

    databases = {"default", "other"}  # noqa: RUF012 - its name and kind are Django's

    def setUp(self) -> None:
        call_command("migrate", "coatcheck", database="other", verbosity=0)
        get_user_model().objects.create_user("ann")

    def journey(self) -> None:
        before = StoredSession.objects.using("default").count()
        client = Client()
        assert [client.get("/count/").content for _ in range(2)] == [b"1", b"2"]
        handle = handle_of(client.get("/login/").content.decode())
        assert client.get("/who/").json()["user"] == "ann"
        assert StoredSession.objects.using("other").filter(pk=handle, ended_at=None).exists()
        assert StoredSession.objects.using("default").count() == before
        StoredSession.objects.using("other").get(pk=handle).revoke()
        assert client.get("/who/").json()["user"] == "AnonymousUser"

    def test_named_by_the_setting(self) -> None:
        with override_settings(COATCHECK={"STORE": "django", "DATABASE": "other"}):
            self.journey()

    def test_named_by_a_router(self) -> None:
        class Apart:
            def db_for_write(self, model: Any, **hints: Any) -> str | None:
                return "other" if model._meta.app_label == "coatcheck" else None

        with override_settings(DATABASE_ROUTERS=[Apart()]):
            self.journey()


class OnAnEventLoop(TransactionTestCase):
    """AsyncClient: ASGIHandler, async and sync views, our middleware without a thread switch in the view."""

    async def test_a_journey(self) -> None:
        user = await sync_to_async(get_user_model().objects.create_user)("ann")
        client = AsyncClient()
        assert (await client.get("/acount/")).content == b"1"
        assert (await client.get("/count/")).content == b"2"
        final = (await client.get("/alogin/")).content.decode()
        assert client.cookies[COOKIE].value == final
        expected = {"user": "ann", "subject": str(user.pk), "n": 2}
        assert (await client.get("/awho/")).json() == expected
        assert (await client.get("/who/")).json() == expected
        await client.get("/alogout/")
        assert not await SessionStore().aexists(final)


def test_a_response_that_a_503_replaced_is_closed_all_the_same() -> None:
    store = FlakyStore(MemoryStore())
    store.trouble.fail("commit")
    with override_settings(COATCHECK={"STORE": store}):
        assert Client().get("/closing/").status_code == 503
    assert CLOSED == ["closed"]


OK = {"STORE": "memory://"}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware"]}, "E001"),
        ({"MIDDLEWARE": ["django.middleware.common.CommonMiddleware", "no.such.thing"]}, "E002"),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, "E003"),
        ({"SESSION_SERIALIZER": "django.contrib.sessions.serializers.PickleSerializer"}, "E004"),
        ({"SESSION_COOKIE_SECURE": False}, "SESSION_COOKIE_SECURE is False"),
        ({"SESSION_COOKIE_HTTPONLY": False}, "SESSION_COOKIE_HTTPONLY is False"),
        ({"SESSION_COOKIE_NAME": "sessionid"}, "name it __Host-sessionid"),
        ({"SESSION_COOKIE_DOMAIN": "shop.example"}, "forbids Domain"),
        ({"SESSION_COOKIE_SAMESITE": "None"}, "SameSite=None"),
        ({"SESSION_COOKIE_SAMESITE": False}, "same_site is"),
        ({"SESSION_COOKIE_PATH": "/shop/"}, "needs Path=/"),
        ({"COATCHECK": None}, "settings.COATCHECK is a dict"),
        ({"COATCHECK": {}}, "names no store"),
        ({"COATCHECK": {**OK, "LIMITS": 5}}, "did you mean 'limit'"),
        ({"COATCHECK": {**OK, "ALLOW_INSECURE_HTTP": True}}, "set SESSION_COOKIE_NAME to that"),
        ({"SESSION_SAVE_EVERY_REQUEST": True}, "W001"),
        ({}, "W002"),
    ],
)
def test_the_checks_name_what_is_wrong(changed: dict[str, Any], found: str) -> None:
    with override_settings(**{"COATCHECK": OK, **changed}):
        said = check_settings()
    assert found in "\n".join(f"{one.id} {one.msg}" for one in said)


def test_the_documented_settings_pass() -> None:
    assert [one.id for one in check_settings() if one.is_serious()] == []
    assert [one.id for one in check_settings()] == ["coatcheck.W002"]


def test_a_partitioned_cookie_says_so_when_it_comes_and_when_it_goes() -> None:
    given = {"STORE": MemoryStore(), "PARTITIONED": True, "SAME_SITE": "None", "COOKIE_REASON": "in a frame"}
    with override_settings(COATCHECK=given):
        client = Client()
        for path in ("/count/", "/logout/"):
            written = client.get(path).cookies[COOKIE].OutputString()
            assert "; SameSite=None; Partitioned" in written
            assert "; Secure" in written


def test_a_guarded_page_leaves_what_django_says_of_frames() -> None:
    guarded = {"STORE": MemoryStore(), "PROOF_PAGES": ["/count/"], "HSTS": "max-age=31536000"}
    with override_settings(COATCHECK=guarded):
        answer = Client().get("/count/", secure=True)
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        with override_settings(SECURE_CSP={"default-src": ["'self'"]}):  # its middleware, around us, writes that then
            answer = Client().get("/count/", secure=True)
        assert "Content-Security-Policy" not in answer.headers
        assert answer.headers["X-Frame-Options"] == "DENY"


def test_a_save_in_the_middle_of_a_request_says_nothing_that_its_answer_may_say_otherwise() -> None:
    guarded = {"STORE": MemoryStore(), "PROOF_PAGES": ["/saved/"], "HSTS": "max-age=31536000"}
    with override_settings(COATCHECK=guarded):
        own = {"Content-Security-Policy": "frame-ancestors 'self'", "Strict-Transport-Security": "max-age=5"}
        answer = Client().get("/saved/", own, secure=True)
        with override_settings(SECURE_CSP={"default-src": ["'self'"]}):
            again = Client().get("/saved/", own, secure=True)
    assert again.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    assert answer.headers["Strict-Transport-Security"] == "max-age=5"
    assert list(answer.cookies) == [COOKIE]


def test_plain_http_on_localhost_has_a_name_of_its_own() -> None:
    plain = {"SESSION_COOKIE_NAME": "session-insecure", "SESSION_COOKIE_SECURE": False}
    with override_settings(**plain, COATCHECK={"STORE": MemoryStore(), "ALLOW_INSECURE_HTTP": True}):
        client = Client()
        assert [client.get("/count/").content for _ in range(2)] == [b"1", b"2"]
        assert list(client.cookies) == ["session-insecure"]


@pytest.mark.parametrize(
    ("changed", "read"),
    [
        ({"COATCHECK": {**OK, "LIMIT": 5}}, lambda now: now.manager.settings.limit == 5),
        (
            {"MIDDLEWARE": [*settings.MIDDLEWARE, "django.middleware.csrf.CsrfViewMiddleware"]},
            lambda now: now.manager.settings.csrf == "report",
        ),
        ({"SESSION_COOKIE_NAME": "__Host-other"}, lambda now: now.manager.cookie.name == "__Host-other"),
        ({"SESSION_COOKIE_AGE": 60}, lambda now: now.manager.clocks.absolute == 60),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, lambda now: now.manager.settings.same_site == "Strict"),
        ({"SESSION_EXPIRE_AT_BROWSER_CLOSE": True}, lambda now: now.persistent is False),
        ({"ALLOWED_HOSTS": ["shop.example"]}, lambda now: now.manager.settings.origins == ["https://shop.example"]),
        (
            {"CSRF_TRUSTED_ORIGINS": ["https://login.example"]},
            lambda now: now.manager.settings.trusted_origins == ["https://login.example"],
        ),
        ({"DATABASE_ROUTERS": []}, lambda now: True),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_a_site_is_what_the_settings_say_now(changed: dict[str, Any], read: Any) -> None:
    before = site()
    assert site() is before
    with override_settings(DEBUG=settings.DEBUG):
        assert site() is before, "a setting that has no meaning for sessions builds nothing"
    with override_settings(**changed):
        during = site()
        assert during is not before
        assert read(during)
    after = site()
    assert after is not during
    assert not read(after) or "DATABASE" in next(iter(changed))


def test_a_client_of_a_test_meets_the_middleware_that_the_test_chose() -> None:
    """What is chosen for one test is forgotten behind it: Django builds its handlers anew, and we the site."""
    tokens = []
    for _ in range(2):
        with override_settings(COATCHECK={"STORE": MemoryStore()}):
            client = Client()
            client.get("/count/")
            tokens.append(client.cookies[COOKIE].value)
            assert [SessionStore().exists(token) for token in tokens] == [*[False] * (len(tokens) - 1), True]
    assert [SessionStore().exists(token) for token in tokens] == [False, False]
    assert Client().get("/count/").content == b"1"


def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "coatcheck", check=True, dry_run=True, verbosity=0)


def test_the_tables_go_and_come_again() -> None:
    call_command("migrate", "coatcheck", "zero", verbosity=0)
    call_command("migrate", "coatcheck", verbosity=0)
    session = SessionStore()
    session.save()
    assert SessionStore().exists(session.session_key)
    StoredSession.objects.all().delete()


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "frameworks" / "django.md"


def written(name: str) -> str:
    """Return a block of the document."""
    return DOCUMENT.read_text().split(f"```{name}\n")[1].split("```")[0]


def test_the_settings_of_the_document_are_sound() -> None:
    project: dict[str, Any] = {
        "INSTALLED_APPS": [],
        "MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware"],
    }
    exec(written("settings.py"), project)
    chosen = {name: value for name, value in project.items() if name.startswith(("SESSION", "COAT", "MIDDLE"))}
    with override_settings(**chosen):
        assert [one.id for one in check_settings()] == ["coatcheck.W002"]
    exec(written("development.py"), project)
    chosen = {name: value for name, value in project.items() if name.startswith(("SESSION", "COAT"))}
    with override_settings(**chosen):
        assert [one.id for one in check_settings()] == ["coatcheck.W002"]


def test_the_test_of_the_document_passes() -> None:
    names: dict[str, Any] = {"__name__": "document"}
    exec(written("tests.py"), names)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["Cart"]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
