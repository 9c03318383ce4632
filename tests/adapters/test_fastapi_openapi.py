"""Row 58 for FastAPI: the OpenAPI document names the cookie that the installed middleware uses (F33)."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from coatcheck import MemoryStore, Session
from coatcheck.adapters.fastapi import CurrentSession, RequireLogin, SessionMiddleware


@pytest.mark.parametrize(
    ("base", "settings", "name"),
    [
        ("https://testserver", {}, "__Host-coat"),
        ("https://testserver", {"name": "__Host-shop"}, "__Host-shop"),
        ("http://localhost", {"allow_insecure_http": True}, "coat-insecure"),
    ],
)
def test_the_document_has_the_live_name(base: str, settings: dict[str, Any], name: str) -> None:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, store=MemoryStore(), **settings)

    @app.get("/me")
    def me(session: Annotated[Session, Depends(RequireLogin())]) -> str | None:
        return session.subject

    @app.get("/open")
    def anyone(session: CurrentSession) -> None:
        """Need no login."""

    document = TestClient(app, base_url=base).get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"session": {"type": "apiKey", "in": "cookie", "name": name}}
    assert document["paths"]["/me"]["get"]["security"] == [{"session": []}]
    assert "security" not in document["paths"]["/open"]["get"]
