"""The promises as tests that you can run too: store contract, adapter journey, probe application, a clock to wind.

`StoreContract` (testing.contract) and `AdapterJourney` (testing.journey) need pytest; what is exported here does not.
"""

from .clock import Clock
from .flaky import AsyncFlakyStore, FlakyStore, Gate, Trouble
from .probe import Probe
from .serving import Control, Served, asgi_probe, wsgi_probe
from .signing import async_sign_in, async_sign_in_cookies, sign_in, sign_in_cookies

__all__ = [
    "AsyncFlakyStore",
    "Clock",
    "Control",
    "FlakyStore",
    "Gate",
    "Probe",
    "Served",
    "Trouble",
    "asgi_probe",
    "async_sign_in",
    "async_sign_in_cookies",
    "sign_in",
    "sign_in_cookies",
    "wsgi_probe",
]
