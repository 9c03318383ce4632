"""One root, a child for each caller who can act, and evidence that survives a trip to another process."""

import copy
import pickle

import pytest

from coatcheck.core import errors
from coatcheck.core.codec import UnknownVersion
from coatcheck.core.errors import CoatcheckError, DataError, Refusal, StoreError
from coatcheck.core.model import Reply


def test_the_tree_has_one_root_and_five_branches():
    assert {child.__name__ for child in CoatcheckError.__subclasses__() if child.__module__ == errors.__name__} == {
        "ConfigError",
        "DataError",
        "SettledError",
        "Refusal",
        "StoreError",
    }
    assert {child.__name__ for child in StoreError.__subclasses__()} >= {"NotApplied", "Unknown", "Unconfirmed"}
    assert issubclass(UnknownVersion, CoatcheckError)


@pytest.mark.parametrize("trip", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_evidence_survives_a_trip(trip):
    refusal = trip(Refusal(Reply(401, (), b"log in"), "nobody is logged in"))
    assert (refusal.reply.status, refusal.reason, str(refusal)) == (401, "nobody is logged in", "nobody is logged in")
    data = trip(DataError("cannot be kept", key="'a'", found="complex"))
    assert (str(data), data.key, data.found) == ("cannot be kept", "'a'", "complex")
