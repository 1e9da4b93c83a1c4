"""Errors that users can mend."""

import pytest

from unmask import errors
from unmask.errors import ResourceError, did_you_mean, first_line, loading_died


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


@pytest.mark.parametrize(
    ("text", "line"),
    [("one\ntwo", "one"), ("\n one\ntwo", "one"), ("", "ValueError"), ("\n ", "ValueError")],
)
def test_the_first_line_of_an_error(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line


def test_wrong_settings_are_value_errors() -> None:
    assert issubclass(errors.SettingsError, ValueError)
    assert not issubclass(errors.DataError, ValueError)


def test_did_you_mean() -> None:
    names = ["mae-l16", "mae-b16"]
    assert did_you_mean("mae-b61", names) == "did you mean 'mae-b16'? Known: mae-b16, mae-l16"
    assert did_you_mean("qqq", names) == "known: mae-b16, mae-l16"
    assert did_you_mean("anything", []) == "known: "


@pytest.mark.parametrize(
    "words",
    [
        "DataLoader worker (pid 7) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
    ],
)
def test_a_loading_process_that_died_is_told_from_torchs_words(words: str) -> None:
    assert isinstance(loading_died(RuntimeError(words)), ResourceError)


def test_an_error_in_a_loading_process_is_not_taken_for_its_death() -> None:
    words = "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback ..."
    assert loading_died(RuntimeError(words)) is None
