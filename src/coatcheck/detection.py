"""Detection, for applications: what looks at each request of a session, and what follows."""

from .core.detectors import (
    AgentChanged,
    Detector,
    HintsContradict,
    NetworkChanged,
    PlatformChanged,
    RegisteredElsewhere,
    Sight,
    standard,
)
from .core.model import Signal
from .core.policies import OnSignals

__all__ = [
    "AgentChanged",
    "Detector",
    "HintsContradict",
    "NetworkChanged",
    "OnSignals",
    "PlatformChanged",
    "RegisteredElsewhere",
    "Sight",
    "Signal",
    "standard",
]
