"""Errors that users can mend."""

import pytest

from unmask import errors
from unmask.errors import did_you_mean


@pytest.mark.parametrize(
    "kind",
    [
        errors.DataError,
        errors.SettingsError,
        errors.RunError,
        errors.ResourceError,
        errors.DivergedError,
    ],
)
def test_one_base_for_all(kind: type[Exception]) -> None:
    with pytest.raises(errors.UnmaskError, match="say"):
        raise kind("say")


def test_the_docstring_draws_every_kind() -> None:
    kinds = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.UnmaskError)
    ]
    assert len(kinds) == 6
    for name in kinds:
        assert errors.__doc__ is not None
        assert name in errors.__doc__


def test_wrong_settings_are_value_errors() -> None:
    assert issubclass(errors.SettingsError, ValueError)
    assert not issubclass(errors.DataError, ValueError)


def test_did_you_mean() -> None:
    names = ["mae-l16", "mae-b16"]
    assert did_you_mean("mae-b61", names) == "did you mean 'mae-b16'? Known: mae-b16, mae-l16"
    assert did_you_mean("qqq", names) == "Known: mae-b16, mae-l16"
    assert did_you_mean("anything", []) == "Known: "
