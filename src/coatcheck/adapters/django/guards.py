"""What keeps strangers out of a view: a decorator, and a mixin for views that are classes.

Django's own `login_required` asks who is there; these also ask how surely we know, and since when.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, TypeVar, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest  # type: ignore[import-untyped]
from django.http.response import HttpResponseBase  # type: ignore[import-untyped]

from .middleware import session_of

View = TypeVar("View", bound=Callable[..., Any])


@overload
def require_login(view: View) -> View: ...
@overload
def require_login(
    *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
) -> Callable[[View], View]: ...
def require_login(
    view: Callable[..., Any] | None = None,
    *,
    within: timedelta | float | None = None,
    level: int | None = None,
    fresh: bool = False,
) -> Any:
    """Guard a view, as `@require_login` or `@require_login(within=...)`: 401, or the way to the login page.

    For a class: `@method_decorator(require_login(within=600), name="dispatch")`, or `RequireLoginMixin`.
    """

    def guard(view: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def awaited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                ask = session_of(request).require_login
                if fresh:  # it may read the store, in Django's thread for such things
                    await sync_to_async(ask)(within=within, level=level, fresh=True)
                else:
                    ask(within=within, level=level)
                return await view(request, *args, **kwargs)

            return awaited

        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            session_of(request).require_login(within=within, level=level, fresh=fresh)
            return view(request, *args, **kwargs)

        return guarded

    return guard if view is None else guard(view)


class RequireLoginMixin:
    """Guards a view that is a class; it stands first among its bases, as Django's LoginRequiredMixin does."""

    login_within: ClassVar[timedelta | float | None] = None
    login_level: ClassVar[int | None] = None
    login_fresh: ClassVar[bool] = False

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """Return the view, guarded."""
        view: Callable[..., HttpResponseBase] = super().as_view(**initkwargs)  # type: ignore[misc]
        return require_login(within=cls.login_within, level=cls.login_level, fresh=cls.login_fresh)(view)
