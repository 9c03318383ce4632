"""Django's sessions, without Django: the same signatures, checked by itsdangerous.

db and cached_db lie in a table, signed_cookies in the cookie, both with the time at which they were signed. `cache` is
pickled by every cache of Django's: there the application hands over the cache itself (`DjangoCache`).
What Django's own login needs (`_auth_user_id`, `_auth_user_backend`, `_auth_user_hash`) stays in the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

from ..core.errors import ConfigError, DataError, StoreError
from ..core.legacy import AS_SET, Old, OldCookie, Shown, Source, Subject
from ..core.model import Instant
from .reading import Secrets, Signatures, mapping, unpacked
from .shelved import Shelved
from .shelves import Table, named

AGE = 14 * 86400.0
SUBJECT = "_auth_user_id"
_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class DjangoCookie(Source):
    """The sessions of `django.contrib.sessions.backends.signed_cookies`."""

    library = "django-cookie"

    def __init__(
        self,
        secret_keys: Secrets,
        *,
        until: datetime,
        subject: Subject = SUBJECT,
        cookie: str = "sessionid",
        age: float = AGE,
        browser_only: bool = False,
        attributes: OldCookie = AS_SET,
    ) -> None:
        """Take SECRET_KEY (and SECRET_KEY_FALLBACKS), SESSION_COOKIE_NAME, SESSION_COOKIE_AGE.

        `browser_only`: SESSION_EXPIRE_AT_BROWSER_CLOSE.
        """
        super().__init__(cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=age)
        self._signed = _Signed(secret_keys, b"django.contrib.sessions.backends.signed_cookies")
        self._browser_only = browser_only

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return the session in a signed value."""
        found = self._signed.read(value)
        if found is None:
            return None
        data, issued_at, secret = found
        ends_at = issued_at + (self._lifetime or AGE)
        if now > ends_at:
            return None
        return Shown(secret, Old(data, issued_at, ends_at, _persistent(data, browser_only=self._browser_only)))


class DjangoDatabase(Shelved):
    """The sessions of Django's `db` and `cached_db`: the table `django_session`."""

    library = "django-db"

    def __init__(  # noqa: PLR0913 - each says what the old settings said
        self,
        url: str,
        secret_keys: Secrets,
        *,
        until: datetime,
        subject: Subject = SUBJECT,
        cookie: str = "sessionid",
        table: str = "django_session",
        browser_only: bool = False,
        attributes: OldCookie = AS_SET,
        moved: bool = False,
    ) -> None:
        """Take the database (sqlite, postgresql, mysql), SECRET_KEY (and fallbacks), SESSION_COOKIE_NAME.

        `browser_only`: SESSION_EXPIRE_AT_BROWSER_CLOSE. With cached_db, the copy in the cache stays there to its end.
        """
        super().__init__(
            Table(url, table, key="session_key", data="session_data", ends="expire_date"),
            cookie=cookie,
            subject=subject,
            until=until,
            attributes=attributes,
            lifetime=None,
            moved=moved,
        )
        self._signed = _Signed(secret_keys, b"django.contrib.sessions.SessionStore")
        self._browser_only = browser_only

    def fetch(self, key: str, now: Instant) -> Old | None:
        """Return a session whose row Django signed."""
        kept = self._shelf.get(key)
        found = None if kept is None or kept.left is None else self._signed.read(kept.raw)
        if kept is None or kept.left is None or found is None:
            return None
        data, issued_at, _ = found
        return Old(data, issued_at, now + kept.left, _persistent(data, browser_only=self._browser_only))


class Cache(Protocol):
    """What we ask of one of Django's caches."""

    def get(self, key: str) -> Any:
        """Return a value, or None."""
        ...

    def delete(self, key: str) -> Any:
        """Delete a value."""
        ...


class DjangoCache(Source):
    """The sessions of Django's `cache`, read by Django's own cache object: `caches[SESSION_CACHE_ALIAS]`.

    Django pickles what it keeps in caches, and unpickles it as it always did; nothing here does. When a session was
    written it does not tell, so each counts as old as it can be.
    """

    library = "django-cache"
    prefix = "django.contrib.sessions.cache"

    def __init__(
        self,
        cache: Cache,
        *,
        until: datetime,
        subject: Subject = SUBJECT,
        cookie: str = "sessionid",
        age: float = AGE,
        browser_only: bool = False,
        attributes: OldCookie = AS_SET,
        moved: bool = False,
    ) -> None:
        """Take the cache, SESSION_COOKIE_NAME, SESSION_COOKIE_AGE."""
        super().__init__(cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=age, moved=moved)
        self._cache = cache
        self._browser_only = browser_only

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return the key."""
        key = named(value)
        return None if key is None else self.of_key(key)

    def fetch(self, key: str, now: Instant) -> Old | None:
        """Return a session, as the cache gives it."""
        try:
            data = self._cache.get(self.prefix + key)
        except Exception as error:
            message = f"the old application's cache does not answer ({type(error).__name__})"
            raise StoreError(message) from error
        if data is None:
            return None
        if not isinstance(data, dict):
            message = f"a session in Django's cache is a dict (found {type(data).__name__})"
            raise DataError(message, found=type(data).__qualname__)
        age = self._lifetime or AGE
        return Old(dict(data), now - age, now + age, _persistent(data, browser_only=self._browser_only))

    def listed(self) -> Iterator[str]:
        """Yield the keys of all that lies in the cache, where its backend can list them: Redis, or local memory."""
        listed = _listed(self._cache, self.prefix)
        if listed is None:
            message = (
                f"a Django cache of the kind {type(self._cache).__name__} lists no keys; leave the source in `legacy`, "
                f"and each session is taken over when its browser comes"
            )
            raise ConfigError(message)
        for name in listed:
            text = name.decode() if isinstance(name, bytes) else str(name)
            _, found, key = text.partition(self.prefix)
            if found and key:
                yield key

    def forget(self, key: str) -> None:
        """Delete a session."""
        try:
            self._cache.delete(self.prefix + key)
        except Exception as error:
            message = f"the old application's cache does not answer ({type(error).__name__})"
            raise StoreError(message) from error


def _listed(cache: Any, prefix: str) -> Iterable[Any] | None:
    """Return the names in a cache of Django's that contain a prefix, and more; None: it does not tell."""
    try:
        if hasattr(cache, "iter_keys"):  # django-redis
            names: Iterable[Any] = cache.iter_keys(f"{prefix}*")
            return names
        inner = getattr(cache, "_cache", None)
        if inner is not None and hasattr(inner, "get_client"):  # Django's own Redis
            scanned: Iterable[Any] = inner.get_client(None, write=False).scan_iter(cache.make_key(f"{prefix}*"))
            return scanned
    except Exception as error:
        message = f"the old application's cache does not answer ({type(error).__name__})"
        raise StoreError(message) from error
    return list(inner) if isinstance(inner, dict) else None


class _Signed:
    """What `django.core.signing.dumps` wrote."""

    def __init__(self, secrets: Secrets, salt: bytes) -> None:
        self._signatures = Signatures(secrets, salt=salt, derivation="django-concat", digest=sha256, separator=b":")

    def read(self, value: bytes) -> tuple[dict[str, Any], Instant, bytes] | None:
        """Return the data, when it was signed, and the secret by which the token is known."""
        checked = self._signatures.checked(value)
        if checked is None:
            return None
        payload, _, stamp = checked[0].rpartition(b":")
        raw = unpacked(payload)
        data = None if raw is None else mapping(raw)
        issued_at = _number(stamp)
        return None if data is None or issued_at is None else (data, issued_at, checked[1])


def _number(digits: bytes) -> Instant | None:
    """Return the number that base 62 spells."""
    if not 0 < len(digits) <= 10 or digits.translate(None, _DIGITS):
        return None
    number = 0
    for digit in digits:
        number = number * 62 + _DIGITS.index(digit)
    return float(number)


def _persistent(data: dict[str, Any], *, browser_only: bool) -> bool:
    """Tell whether the cookie outlives its browser: `set_expiry(0)` says no, another expiry yes."""
    expiry = data.get("_session_expiry")
    return not browser_only if expiry is None else expiry != 0
