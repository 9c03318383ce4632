"""The API beside the shop (shop.py): another framework, another process, the same sessions."""

from typing import Annotated

from fastapi import Depends, FastAPI

from coatcheck import Session
from coatcheck.adapters.fastapi import RequireLogin, SessionMiddleware

app = FastAPI()
app.add_middleware(SessionMiddleware, store="sqlite:///sessions.db", allow_insecure_http=True)

LoggedIn = Annotated[Session, Depends(RequireLogin())]


@app.post("/items/{item}")
async def add(item: str, session: LoggedIn) -> list[str]:
    session.setdefault("items", []).append(item)
    return list(session["items"])
