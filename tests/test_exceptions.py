"""The tree of errors: one root, four groups, attributes that say what the message says."""

from __future__ import annotations

import inspect
import pickle

import pytest

from aurora_engine import exceptions as ex

CLASSES = [value for value in vars(ex).values() if inspect.isclass(value) and issubclass(value, ex.AuroraError)]
GROUPS = (ex.Retryable, ex.OutcomeUnknown, ex.UsageError, ex.EnvironmentFault)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_belongs_to_one_group_and_says_what_it_is(cls: type[ex.AuroraError]) -> None:
    assert cls.__doc__
    if cls is not ex.AuroraError:
        assert sum(issubclass(cls, group) for group in GROUPS) == 1


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_details_are_attributes_and_survive_pickling(cls: type[ex.AuroraError]) -> None:
    names = [name for base in cls.__mro__ for name in inspect.get_annotations(base) if name != "details"]
    error = cls("what happened", **{name: name for name in names})
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        assert str(one) == one.message == "what happened"
        assert [getattr(one, name) for name in names] == names
        assert one.details == dict.fromkeys(names) | {name: name for name in names}


def test_an_attribute_that_is_not_known_is_none() -> None:
    error = ex.QuorumLost("two of six copies left")
    assert error.missing is None
    assert error.details == {}


def test_errors_are_also_what_python_would_raise() -> None:
    assert issubclass(ex.TypeMismatch, TypeError)
    assert issubclass(ex.ValueOutOfRange, ValueError)
    assert issubclass(ex.UnknownTable, LookupError)
    assert issubclass(ex.AsyncMisuse, RuntimeError)
