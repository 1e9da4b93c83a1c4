"""Reading the entries of a JSON file one by one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data import json_stream
from unmask.data.json_stream import entries
from unmask.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def expected(content: dict[str, Any]) -> list[tuple[str, Any]]:
    """The entries, from the whole value."""
    pairs: list[tuple[str, Any]] = []
    for key, value in content.items():
        pairs += [(key, one) for one in value] if isinstance(value, list) else [(key, value)]
    return pairs


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text(max_size=4), VALUES, max_size=4),
    st.integers(1, 30),
    st.sampled_from([None, 1]),
)
def test_entries_are_those_of_the_whole_file_for_any_window(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, Any],
    chunk: int,
    indent: int | None,
) -> None:
    file = tmp_path_factory.mktemp("json") / "a.json"
    file.write_text(json.dumps(content, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert list(entries(file)) == expected(content)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert list(entries(tmp_path / "a.json")) == [("a", 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", r"expected \{, got its end"),
        (b"[1]", r"expected \{, got \["),
        (b'{"a": [1, 2', r"not copied in full"),
        (b'{"a": [{"b": 1}, {"b" 2}]}', r"delimiter at character 23"),
        (b'{"a": [1 2]}', r"expected , or \], got 2"),
        (b'{"a": "\xff"}', r"not text in UTF-8"),
        (b'{"a": ' + b"[" * 100_000, r"nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"is not valid JSON"),
        (b'{"a": 1} x', None),
        (b'{"a" 1}', r"expected :, got 1"),
    ],
)
def test_damaged_files_are_named_with_the_place(
    tmp_path: Path, text: bytes, words: str | None
) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(text)
    if words is None:
        assert list(entries(file)) == [("a", 1)]
        return
    with pytest.raises(DataError, match=words) as raised:
        list(entries(file))
    assert str(file) in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file"):
        list(entries(tmp_path / "none.json"))


def test_an_entry_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 64)
    monkeypatch.setattr(json_stream, "_LARGEST", 1000)
    (tmp_path / "a.json").write_text(json.dumps({"a": ["x" * 5000]}))
    with pytest.raises(DataError, match="an entry has more than 1,000 characters"):
        list(entries(tmp_path / "a.json"))
