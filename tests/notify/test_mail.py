"""E-mail about events: to the owner or an operator, in plain words, over a real SMTP server."""

import smtplib
import socket
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from coatcheck import ConfigError, Event
from coatcheck.core.model import Client
from coatcheck.notify import Mail, Smtp, words
from coatcheck.notify.delivery import Delivery

OWNERS = {"alice": "alice@home.test"}


class Post:
    """A server's end: what came, and what it answers, one after the other; then it takes everything."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.got: list[tuple[list[str], Message]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address.startswith("nobody"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.got.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=default)))
        return self.answers.pop(0) if self.answers else "250 OK"


@pytest.fixture
def post() -> Iterator[Post]:
    found = Post()
    controller = Controller(
        found,
        "127.0.0.1",
        _free_port(),
        authenticator=lambda server, session, envelope, mechanism, data: AuthResult(
            success=data.password == b"right", handled=False
        ),
        auth_require_tls=False,
    )
    controller.start()
    found.port = controller.port  # type: ignore[attr-defined]
    yield found
    controller.stop()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def server_of(post: Any, **how: Any) -> Smtp:
    return Smtp("127.0.0.1", post.port, tls="unsafe_plain", **how)


def event(name: str = "session_token_reuse", **more: Any) -> Event:
    known = {
        "subject": "alice",
        "handle": "h" * 18,
        "client": Client("198.51.100.9", "Firefox"),
        "detail": {"kind": "late", "known_address": "192.0.2.7", "known_agent": "Chrome"},
    }
    return Event(**{"name": name, "at": 1_700_000_000.0, **known, **more})


def owner_of(event: Event) -> str | None:
    return OWNERS.get(event.subject or "")


def impatient(tries: int = 3) -> Delivery:
    return Delivery(tries, pause=lambda _: None)


def test_the_owner_is_told_what_when_and_from_where(post: Post) -> None:
    """ABU-05: of a suspicious use, with both places."""
    Mail(server_of(post), "security@shop.test", owner_of)(event())
    ((to, message),) = post.got
    assert to == ["alice@home.test"]
    assert message["From"] == "security@shop.test"
    assert message["To"] == "alice@home.test"
    assert message["Subject"] == "An old copy of your session was used"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@shop.test>")
    assert message["Date"]
    assert _text(message) == (
        "An old copy of your session was used.\n"
        "\n"
        "when: 2023-11-14 22:13:20 UTC\n"
        "account: alice\n"
        "from: 198.51.100.9\n"
        "browser: Firefox\n"
        "known from: 192.0.2.7\n"
        "known browser: Chrome\n"
        "kind: late\n"
        "session: hhhhhhhhhhhhhhhhhh\n"
    )


def _text(message: Any) -> str:
    return str(message.get_content()).replace("\r\n", "\n")


def test_what_an_attacker_says_of_himself_cannot_write_the_letter(post: Post) -> None:
    """CWE-93, D68: agents and subjects come from outside."""
    forged = Client(
        "198.51.100.9", "x\r\nBcc: all@shop.test\r\n\r\nPlease send your password to\u202e\x1b[2J" + "y" * 999
    )
    bad = event(subject="alice\nSubject: hello", client=forged, detail={"kind": "late", "reasons": ["a\nb", "c"]})
    mail = Mail(
        server_of(post),
        "security@shop.test",
        "operator@shop.test",
        headline=lambda event: f"Theft of {event.subject}\r\nBcc: all@shop.test",
    )
    mail(bad)
    ((to, message),) = post.got
    assert to == ["operator@shop.test"]
    assert message["Bcc"] is None
    assert message["Subject"] == "Theft of alice Subject: hello Bcc: all@shop.test"
    lines = _text(message).splitlines()
    assert [line.partition(":")[0] for line in lines[2:]] == [
        "when",
        "account",
        "from",
        "browser",
        "reasons",
        "kind",
        "session",
    ]
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 400
    assert "reasons: a\ufffdb; c" in lines


def test_nobody_is_written_to_whose_address_is_not_known(post: Post) -> None:
    mail = Mail(server_of(post), "security@shop.test", owner_of)
    mail(event(subject="mallory"))
    mail(event(subject=None))
    assert post.got == []


def test_only_what_is_worth_it_is_written(post: Post) -> None:
    mail = Mail(server_of(post), "security@shop.test", "operator@shop.test")
    for name in ("session_created", "csrf_denied", "session_use_after_expire"):
        mail(event(name))
    assert [message["Subject"] for _, message in post.got] == ["A session of yours that had ended was used again"]


def test_what_the_server_cannot_take_now_is_tried_again(post: Post) -> None:
    post.answers = ["451 later", "452 later"]
    Mail(server_of(post), "security@shop.test", owner_of, delivery=impatient())(event())
    assert len(post.got) == 3
    assert len({message["Message-ID"] for _, message in post.got}) == 1


def test_what_the_server_refuses_is_not_tried_again(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    post.answers = ["554 spam"]
    Mail(server_of(post), "security@shop.test", owner_of, delivery=impatient())(event())
    assert len(post.got) == 1
    assert "e-mail about session_token_reuse was refused: the server answered 554" in caplog.text
    Mail(server_of(post), "security@shop.test", "nobody@shop.test", delivery=impatient())(event())
    assert len(post.got) == 1
    assert "was refused: 550" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name == "coatcheck"]
    assert ours
    assert "nobody" not in "".join(ours), "an address is nobody's business"


def test_a_server_that_is_away_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    away = Smtp("127.0.0.1", _free_port(), tls="unsafe_plain")
    Mail(away, "security@shop.test", owner_of, delivery=impatient(2))(event())
    assert "e-mail about session_token_reuse was given up after 2 tries" in caplog.text


def test_without_tls_nothing_is_sent_unless_somebody_says_so(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    """The server here offers no STARTTLS: a letter that can only travel readable does not travel."""
    careful = Smtp("127.0.0.1", post.port)  # type: ignore[attr-defined]
    with pytest.raises(smtplib.SMTPNotSupportedError):
        careful.send(EmailMessage())
    Mail(careful, "security@shop.test", owner_of, delivery=impatient(1))(event())
    assert post.got == []
    assert "given up" in caplog.text


def test_a_password_is_given(post: Post) -> None:
    Mail(server_of(post, user="shop", password="right"), "security@shop.test", owner_of)(event())
    assert len(post.got) == 1
    with pytest.raises(smtplib.SMTPAuthenticationError):
        server_of(post, user="shop", password="wrong").send(EmailMessage())
    assert "right" not in repr(server_of(post, user="shop", password="right"))


class Box:
    """A mailer of an application's own."""

    def __init__(self) -> None:
        self.sent: list[EmailMessage] = []

    def send(self, message: EmailMessage) -> None:
        self.sent.append(message)


def test_another_way_of_sending_is_one_method() -> None:
    box = Box()
    Mail(box, "security@shop.test", owner_of, names=["dbsc_bound"], text=lambda event: f"Hello {event.subject}")(
        event("dbsc_bound")
    )
    assert box.sent[0].get_content() == "Hello alice\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mail(Box(), "shop", "a@b.test"), "name@host"),
        (lambda: Mail(Box(), "a@b.test", "x\r\nBcc: y@z.test"), "name@host"),
        (lambda: Mail(Box(), "a@b.test", "a@b.test, c@d.test"), "name@host"),
        (lambda: Mail(Box(), "", "a@b.test"), "name@host"),
        (lambda: Mail(Box(), "a@b.test", "a@b.test", names="dbsc_bound"), "names is a list"),
        (lambda: Smtp("mail.test", user="shop", password="p", tls="unsafe_plain"), "in clear text"),
        (lambda: Smtp("mail.test", tls="none"), "tls is 'starttls', 'implicit' or 'unsafe_plain'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_unsafe_or_no_address_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_every_event_has_a_headline() -> None:
    assert words.headline(event("session_from_the_future")) == "session from the future"
