"""One login, two applications: the shop (Flask) logs people in; the API beside it (api.py, FastAPI) knows them.

pip install "coatcheck[flask,fastapi]" uvicorn, then in one folder, on one host:
  flask --app shop run --port 5000
  uvicorn api:app --port 8000
"""

from flask import Flask, redirect

from coatcheck.adapters.flask import Coatcheck, session

app = Flask(__name__)
# what both must agree on: the store, the cookie's name (both leave it), the host, and the timeouts
Coatcheck(app, store="sqlite:///sessions.db", allow_insecure_http=True)


@app.get("/")
def home():
    return f"{session.subject or 'nobody'} has {session.get('items', [])}"


@app.post("/login")
def login():
    session.login("alice")  # after you checked the password
    return redirect("/", 303)


@app.post("/logout")
def logout():
    session.logout()
    return redirect("/", 303)
