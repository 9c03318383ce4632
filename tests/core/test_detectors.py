"""What a request shows that its login did not: signals, and what follows from them (ABU-04; security.md H5, H6)."""

import time
from typing import Any

import pytest
from msgspec.structs import replace

from coatcheck import Action, ConfigError, Policy, SessionManager, Verdict
from coatcheck.core import agents, facts
from coatcheck.core.model import Client, Event, Record, Request, Signal
from coatcheck.detection import (
    AgentChanged,
    HintsContradict,
    NetworkChanged,
    OnSignals,
    PlatformChanged,
    RegisteredElsewhere,
    Sight,
    standard,
)

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
CHROME = f"{WINDOWS} {KIT} Chrome/142.0.0.0 Safari/537.36"
CHROME_NEWER = CHROME.replace("142", "143")
CHROME_OLDER = CHROME.replace("142", "120")
EDGE = f"{CHROME} Edg/142.0.0.0"
CHROME_MAC = CHROME.replace(WINDOWS, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)")
CHROME_PHONE = f"Mozilla/5.0 (Linux; Android 10; K) {KIT} Chrome/142.0.0.0 Mobile Safari/537.36"
CHROME_PHONE_AS_DESKTOP = f"Mozilla/5.0 (X11; Linux x86_64) {KIT} Chrome/142.0.0.0 Safari/537.36"
FIREFOX = f"{WINDOWS[:-1]}; rv:140.0) Gecko/20100101 Firefox/140.0"
FIREFOX_UBUNTU = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
FIREFOX_LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "{} Mobile/15E148 Safari/604.1"
)
SAFARI_PHONE, CHROME_IPHONE = IPHONE.format("Version/18.5"), IPHONE.format("CriOS/142.0.0.0")
CURL = "curl/8.5.0"


def record(agent: str | None = CHROME, address: str | None = "192.0.2.7", **more: Any) -> Record:
    return Record(
        **{
            "realm": "shop",
            "handle": "h" * 18,
            "family_proof": b"f" * 32,
            "turn_proof": b"t" * 32,
            "used_at": 0.0,
            "handed_at": 0.0,
            "created_at": 0.0,
            "seen_at": 0.0,
            "idle_for": None,
            "expires_at": 1e9,
            "subject": "alice",
            "client": Client(address, agent),
            **more,
        }
    )


def sight(
    agent: str | None = CHROME, address: str | None = "192.0.2.7", *, registers: bool = False, **more: str
) -> Sight:
    headers = tuple((name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in more.items())
    return Sight(Request("GET", "https", "/", headers), Client(address, agent), registers)


CASES = [
    # detector, login, request, signal and points
    (AgentChanged, (CHROME,), (CHROME,), None),
    (AgentChanged, (CHROME,), (CHROME_NEWER,), None),
    (AgentChanged, (CHROME,), (CHROME_OLDER,), ("agent_older", 25)),
    (AgentChanged, (CHROME,), (EDGE,), ("agent", 40)),
    (AgentChanged, (CHROME,), (FIREFOX,), ("agent", 40)),
    (AgentChanged, (CHROME,), (CURL,), ("agent", 40)),
    (AgentChanged, (CHROME,), (None,), ("agent", 40)),
    (AgentChanged, (CHROME,), ("",), ("agent", 40)),
    (AgentChanged, (CHROME,), ("a browser of my own",), ("agent", 40)),
    (AgentChanged, (CHROME_PHONE,), (CHROME_PHONE_AS_DESKTOP,), None),  # the "desktop site" switch
    (AgentChanged, (CHROME_PHONE,), (CHROME_IPHONE,), None),  # the platform's business
    (AgentChanged, (SAFARI_PHONE,), (CHROME_IPHONE,), ("agent", 40)),
    (AgentChanged, (None,), (CHROME,), None),  # nothing to compare with
    (AgentChanged, ("a browser of my own",), (CHROME,), None),
    (PlatformChanged, (CHROME,), (CHROME_OLDER,), None),
    (PlatformChanged, (CHROME,), (FIREFOX,), None),
    (PlatformChanged, (CHROME,), (CHROME_MAC,), ("platform", 40)),
    (PlatformChanged, (SAFARI_PHONE,), (CHROME_PHONE,), ("platform", 40)),
    (PlatformChanged, (FIREFOX_UBUNTU,), (FIREFOX_LINUX,), None),
    (PlatformChanged, (CHROME,), (CURL,), None),  # it does not say
    (PlatformChanged, (None,), (CHROME,), None),
    (NetworkChanged, (None, "192.0.2.7"), (None, "192.0.2.250"), None),
    (NetworkChanged, (None, "192.0.2.7"), (None, "::ffff:192.0.2.9"), None),
    (NetworkChanged, (None, "192.0.2.7"), (None, "192.0.3.7"), ("network", 20)),
    (NetworkChanged, (None, "2001:db8:1:2::1"), (None, "2001:db8:1:ffff::2"), None),
    (NetworkChanged, (None, "2001:db8:1::1"), (None, "2001:db8:2::1"), ("network", 20)),
    (NetworkChanged, (None, "192.0.2.7"), (None, "2001:db8:1::1"), ("network", 10)),
    (NetworkChanged, (None, "2001:db8:1::1"), (None, "192.0.2.7"), ("network", 10)),
    (NetworkChanged, (None, None), (None, "192.0.2.7"), None),
    (NetworkChanged, (None, "192.0.2.7"), (None, None), None),
    (NetworkChanged, (None, "192.0.2.7"), (None, "unix-socket"), None),
]


@pytest.mark.parametrize(("detector", "login", "request_", "expected"), CASES)
def test_a_detector_tells_what_is_strange_from_what_is_not(
    detector: Any, login: tuple[Any, ...], request_: tuple[Any, ...], expected: tuple[str, int] | None
) -> None:
    """ABU-04: another platform or browser is a signal, a newer version and another address of the network are none."""
    found = detector().inspect(record(*login), sight(*request_), 0.0)
    assert (found and (found.name, found.score)) == expected


def test_a_record_without_a_client_gives_no_signal() -> None:
    bare = replace(record(), client=None)
    assert [one.inspect(bare, sight(FIREFOX, "198.51.100.1"), 0.0) for one in standard()] == [None] * 5


@pytest.mark.parametrize(
    ("hint", "agent", "contradicts"),
    [
        ('"Windows"', CHROME, False),
        ('"macOS"', CHROME_MAC, False),
        ('"Linux"', FIREFOX_UBUNTU, False),
        ('"Linux"', CHROME, True),
        ('"macOS"', CHROME, True),
        ('"Android"', SAFARI_PHONE, True),
        ('"Unknown"', CHROME, False),
        ('"Plan 9"', CHROME, False),
        ("", CHROME, False),
        ('"Windows"', CURL, False),
        ('"Windows', CHROME, False),
        ("x" * 100_000, CHROME, False),
    ],
)
def test_hints_that_contradict_the_agent_are_told(hint: str, agent: str, contradicts: bool) -> None:
    found = HintsContradict().inspect(record(agent), sight(agent, sec_ch_ua_platform=hint), 0.0)
    assert (found is not None) == contradicts
    if found is not None:
        assert (found.name, found.score) == ("hints", 30)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ((CHROME, "192.0.2.7"), None),
        ((CHROME, "192.0.2.99"), None),
        ((CHROME, "198.51.100.1"), "a device is to be bound from another network"),
        ((CHROME_NEWER, "192.0.2.7"), "a device is to be bound from another browser"),
        ((FIREFOX, "198.51.100.1"), "a device is to be bound from another browser and network"),
    ],
)
def test_a_device_that_is_bound_from_elsewhere_is_told(shown: tuple[str, str], expected: str | None) -> None:
    """H6: a registration with another address or agent than the login's."""
    detector = RegisteredElsewhere()
    found = detector.inspect(record(), sight(*shown, registers=True), 0.0)
    assert (found and found.reason) == expected
    assert detector.inspect(record(), sight(*shown), 0.0) is None


def test_reasons_are_sentences_for_an_operator() -> None:
    found = [one.inspect(record(), sight(FIREFOX_LINUX, "198.51.100.1"), 0.0) for one in standard()[:4]]
    assert [one and one.reason for one in found] == [
        "the login was with Chrome, this request is with Firefox",
        "the login was on Windows, this request is from Linux",
        None,
        "the login was from 192.0.2.0/24, this request is from 198.51.100.0/24",
    ]
    nothing = AgentChanged().inspect(record(), sight(None), 0.0)
    assert nothing is not None
    assert nothing.reason == "the login was with Chrome, this request is with one that does not say what it is"
    older = AgentChanged().inspect(record(), sight(CHROME_OLDER), 0.0)
    assert older is not None
    assert older.reason == "Chrome went back from version 142 to 120: browsers do not do that by themselves"


def test_a_long_agent_costs_little_and_is_read_once() -> None:
    """An attacker chooses it: only its beginning is parsed, and the same one not again."""
    agents.parsed.cache_clear()
    agents.parsed(CHROME)
    began = time.process_time()
    for number in range(20):
        agents.parsed(f"{number}" + "Mozilla/5.0 (;" * 36)
    assert (time.process_time() - began) / 20 < 0.05
    assert agents.parsed("x" * agents.MOST_PARSED + CHROME) == agents.Agent()
    hits = agents.parsed.cache_info().hits
    agents.parsed(CHROME)
    assert agents.parsed.cache_info().hits == hits + 1
    assert agents.parsed.cache_info().maxsize == 1024


# What follows.

NETWORK, AGENT, PLATFORM = Signal("network", 20, "n"), Signal("agent", 40, "a"), Signal("platform", 40, "p")


@pytest.mark.parametrize(
    ("policy", "signals", "action"),
    [
        (OnSignals(), (), Action.KEEP),
        (OnSignals(), (NETWORK,), Action.KEEP),
        (OnSignals(), (AGENT,), Action.KEEP),
        (OnSignals(), (AGENT, NETWORK), Action.STEP_UP),
        (OnSignals(), (AGENT, PLATFORM, NETWORK), Action.STEP_UP),
        (OnSignals(renew=20), (NETWORK,), Action.RENEW),
        (OnSignals(renew=21), (NETWORK,), Action.KEEP),
        (OnSignals(renew=20, step_up=60, end=100), (AGENT,), Action.RENEW),
        (OnSignals(renew=20, step_up=60, end=100), (AGENT, NETWORK), Action.STEP_UP),
        (OnSignals(renew=20, step_up=60, end=100), (AGENT, PLATFORM, NETWORK), Action.END),
        (OnSignals(step_up=None), (AGENT, PLATFORM, NETWORK), Action.KEEP),
        (OnSignals(by_name={"agent": "end"}), (AGENT,), Action.END),
        (OnSignals(by_name={"agent": "note"}), (AGENT, NETWORK), Action.KEEP),  # nor does it count
        (OnSignals(by_name={"agent": "note"}), (AGENT, NETWORK, PLATFORM), Action.STEP_UP),
        (OnSignals(by_name={"network": "renew"}), (NETWORK,), Action.RENEW),
        (OnSignals(by_name={"network": "renew"}, step_up=40), (NETWORK, AGENT), Action.STEP_UP),
    ],
)
def test_signals_add_up_and_the_severest_answer_wins(
    policy: OnSignals, signals: tuple[Signal, ...], action: Action
) -> None:
    verdict = policy.judge(record(), signals, 0.0)
    assert verdict.action is action
    assert verdict.because == ("context" if signals else "")
    assert verdict.everything == bool(signals)


def test_reads_may_be_allowed_while_somebody_is_to_authenticate() -> None:
    assert not OnSignals(reads="allow").judge(record(), (AGENT, PLATFORM), 0.0).everything


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OnSignals(step_up=0), "1 to 100 points"),
        (lambda: OnSignals(end=101), "1 to 100 points"),
        (lambda: OnSignals(step_up=True), "1 to 100 points"),
        (lambda: OnSignals(reads="some"), "reads is 'refuse' or 'allow'"),
        (lambda: OnSignals(by_name={"agent": "kill"}), "an answer to a signal is 'note', 'renew', 'step_up', 'end'"),
        (lambda: NetworkChanged(0), "1 to 100 points"),
        (lambda: AgentChanged(101), "1 to 100 points"),
        (lambda: AgentChanged(40, older=-1), "1 to 100 points"),
        (lambda: PlatformChanged(score=True), "1 to 100 points"),
        (lambda: SessionManager(detectors=[NetworkChanged]), "detectors are objects with inspect"),
        (lambda: SessionManager(detectors=[print]), "detectors are objects with inspect"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_without_the_parser_its_detectors_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "find_spec", lambda _: None)
    for detector in (AgentChanged, PlatformChanged, HintsContradict):
        with pytest.raises(ConfigError, match=r"install coatcheck\[detection\]"):
            detector()
    NetworkChanged()


@pytest.mark.parametrize(
    ("action", "severity"), [("note", "info"), ("renew", "info"), ("step_up", "warning"), ("end", "critical")]
)
def test_an_event_is_as_loud_as_what_was_done(action: str, severity: str) -> None:
    event = facts.context_changed(record(), 5.0, Client("198.51.100.1", FIREFOX), (NETWORK, AGENT), action)
    assert facts.severity(event) == severity
    assert event == Event(
        name="session_context_changed",
        at=5.0,
        realm="shop",
        handle="h" * 18,
        subject="alice",
        client=Client("198.51.100.1", FIREFOX),
        detail={
            "kind": "agent+network",
            "score": 60,
            "action": action,
            "reasons": ["n", "a"],
            "known_address": "192.0.2.7",
            "known_agent": CHROME,
        },
    )


def test_a_policy_of_the_applications_own_sees_the_signals() -> None:
    seen: list[tuple[Signal, ...]] = []

    class Own(Policy):
        def judge(self, record: Record, signals: Any, now: float) -> Verdict:
            seen.append(tuple(signals))
            return Verdict()

    manager = SessionManager(detectors=[NetworkChanged()], policies=[Own()])
    assert manager.judge.verdict(record(), 0.0, (NETWORK,)) == Verdict()
    assert seen == [(NETWORK,)]


def test_of_two_policies_that_ask_for_a_step_up_the_one_that_asks_it_of_everything_wins() -> None:
    some, everything = OnSignals(step_up=20, reads="allow"), OnSignals(step_up=20)
    for policies in ([some, everything], [everything, some]):
        manager = SessionManager(detectors=[NetworkChanged()], policies=policies)
        assert manager.judge.verdict(record(), 0.0, (NETWORK,)) == Verdict(Action.STEP_UP, "context", everything=True)
