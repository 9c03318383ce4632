"""FastAPI: dependencies that are the session."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, FastAPI

from coatcheck import Session
from coatcheck.adapters.fastapi import CurrentSession, RequireLogin, SessionMiddleware

app = FastAPI()
app.add_middleware(SessionMiddleware, store="sqlite:///sessions.db", origins=["https://shop.example"], csrf="refuse")


@app.post("/login")
async def login(session: CurrentSession) -> dict[str, str | None]:
    """Log in."""
    session.login("alice")
    return {"handle": session.handle}


@app.get("/admin")
async def admin(session: Annotated[Session, Depends(RequireLogin(fresh=True))]) -> str | None:
    """Say who is there, as the store knows it now."""
    return session.subject


@app.get("/me")
async def me(session: Annotated[Session, Depends(RequireLogin(within=timedelta(minutes=10)))]) -> str | None:
    """Say who is there."""
    return session.subject
