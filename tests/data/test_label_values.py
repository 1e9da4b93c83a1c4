"""A label means the same in every reader and of every type, and what is not a class is named."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.test_shards import png, write_tar

from unmask.annotations import ClassLabels, MultiLabels, Unlabelled
from unmask.data import Parquet, Shards, shards, tar_index
from unmask.data.image_files import EncodedImages
from unmask.data.label_values import label_word, numbered_labels
from unmask.data.labelled import open_labelled
from unmask.data.labels import as_word, several_labels, word_labels
from unmask.data.labels_file import read_labels
from unmask.errors import DataError

NUMBERS = ClassLabels(names=("3", "10")), [0, 1, -1, 0]
WORDS = ClassLabels(names=("cat", "owl")), [1, 0, -1, 1]
SEVERAL = MultiLabels(names=("3", "10")), [[1, 1], [0, 0], [-1, -1], [0, 1]]
SEVERAL_WORDS = MultiLabels(names=("cat", "owl")), [[1, 1], [0, 0], [-1, -1], [0, 1]]

TEXTS: list[Any] = [
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
    *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.binary())),
]
INTEGERS: list[Any] = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
]
FLOATS: list[Any] = [pa.float16(), pa.float32(), pa.float64()]


def array(values: list[Any], kind: Any) -> Any:
    if pa.types.is_dictionary(kind):
        return array(values, kind.value_type).dictionary_encode().cast(kind)
    if kind in (pa.binary_view(), pa.binary(), pa.large_binary()):
        values = [value if value is None else value.encode() for value in values]
    return pa.array(values, kind)


def parquet(folder: Path, labels: Any, name: str = "label") -> Path:
    rows = len(labels)
    images = [png(10 * row) for row in range(rows)]
    names = [f"x.parquet:{row}" for row in range(rows)]
    table = pa.table({"image": images, "file_name": names, name: labels})
    pq.write_table(table, folder / "x.parquet")
    return folder / "x.parquet"


COLUMNS = [
    *((array([3, 10, None, 3], kind), NUMBERS) for kind in INTEGERS),
    *((pa.array([3.0, 10.0, None, 3.0]).cast(kind), NUMBERS) for kind in FLOATS),
    (pa.array([3.0, 10.0, float("nan"), 3.0]), NUMBERS),
    (pa.array([Decimal(3), Decimal(10), None, Decimal(3)], pa.decimal128(5, 0)), NUMBERS),
    (pa.array([Decimal(3), Decimal(10), None, Decimal(3)], pa.decimal256(8, 2)), NUMBERS),
    (pa.array([3, 10, None, 3]).dictionary_encode(), NUMBERS),
    *((array(["3", "10", "", "3"], kind), NUMBERS) for kind in TEXTS),
    *((array(["3.0", "10", "nan", " 3\n"], kind), NUMBERS) for kind in TEXTS),
    *((array(["owl", "cat", None, "owl"], kind), WORDS) for kind in TEXTS),
    (pa.array([True, False, None, True]), (ClassLabels(names=("false", "true")), [1, 0, -1, 1])),
    (pa.array([-1, 10, None, 9]), (ClassLabels(names=("-1", "9", "10")), [0, 2, -1, 1])),
]
LISTS = [
    *(
        (pa.array([[10, 3], [], None, [10]], kind(item)), SEVERAL)
        for kind in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
        for item in (pa.int8(), pa.uint64(), pa.float32())
    ),
    *(
        (pa.array([["owl", "cat"], [], None, ["owl"]], kind(item)), SEVERAL_WORDS)
        for kind in (pa.list_, pa.large_list)
        for item in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))
    ),
    (pa.array([["10", "3"], [], [None], ["10.0", None]]), SEVERAL),
    (pa.array(["[10, 3]", "[]", "", "[10]"]), SEVERAL),
]


def kinds(columns: list[Any]) -> list[str]:
    return [f"{i}-{column.type}" for i, (column, _) in enumerate(columns)]


@pytest.mark.parametrize(("column", "expected"), COLUMNS + LISTS, ids=kinds(COLUMNS + LISTS))
def test_of_a_column(tmp_path: Path, column: Any, expected: Any) -> None:
    """In Parquet with the images, and in a labels file."""
    file = parquet(tmp_path, column)
    source = Parquet(path=str(file)).open()
    assert (source.annotations, source.labels().tolist()) == expected
    assert source.notes == ()
    pq.write_table(pq.read_table(file).drop_columns(["image"]), file)
    _, labels = read_labels(file)
    assert (labels.kind, labels.values.tolist()) == expected


def test_of_a_list_of_a_fixed_size(tmp_path: Path) -> None:
    column = pa.array([[3, 10], [3, 3], None, [10, 3]], pa.list_(pa.int32(), 2))
    source = Parquet(path=str(parquet(tmp_path, column))).open()
    assert source.annotations == MultiLabels(names=("3", "10"))
    assert source.labels().tolist() == [[1, 1], [1, 0], [-1, -1], [1, 1]]


def tar(folder: Path, members: list[tuple[str, bytes] | None]) -> EncodedImages:
    """A shard of one image per member; None is an image without a member beside it."""
    files: list[tuple[str, bytes]] = []
    for number, member in enumerate(members):
        files.append((f"{number}.png", png(10 * number)))
        if member is not None:
            files.append((f"{number}{member[0]}", member[1]))
    source = Shards(path=str(write_tar(folder / "x.tar", files))).open()
    assert isinstance(source, EncodedImages)
    return source


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([b"3", b"10", b"", b"3\n"], NUMBERS),
        ([b"3.0", b"10.0", b"nan", b" 3"], NUMBERS),
        ([b"owl", b"cat", b" \n", b"owl"], WORDS),
        ([b"[10, 3]", b"[]", b"", b"[10]"], SEVERAL),
    ],
)
def test_of_cls(tmp_path: Path, texts: list[bytes], expected: Any) -> None:
    for members in ([(".cls", text) for text in texts], [*((".cls", t) for t in texts[:2]), None]):
        source = tar(tmp_path, members + [(".cls", texts[3])] * (len(members) < 4))
        assert (source.annotations, source.labels().tolist()) == expected
        assert source.notes == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["3", "10", "null", "3.0"], NUMBERS),
        (['"3"', "10.0", "NaN", "3"], NUMBERS),
        (['"owl"', '"cat"', '""', '" owl "'], WORDS),
        (["true", "false", "null", "true"], (ClassLabels(names=("false", "true")), [1, 0, -1, 1])),
        (["[10, 3]", "[]", "[null]", "[10.0, null]"], SEVERAL),
        (['["owl", "cat"]', "[]", "null", '"owl"'], SEVERAL_WORDS),
    ],
)
def test_of_json(tmp_path: Path, values: list[str], expected: Any) -> None:
    members: list[Any] = [(".json", f'{{"label": {value}}}'.encode()) for value in values]
    for _ in range(2):  # the second time from the stored index
        source = tar(tmp_path, members)
        assert (source.annotations, source.labels().tolist()) == expected
        assert source.notes == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.5, "0.5 is not a class, because it is not a whole number"),
        (Decimal("0.5"), "not a whole number"),
        (float("inf"), "inf is not a class"),
        ({"id": 1}, r"\{'id': 1\} \(dict\) is not a class"),
        ([[1]], r"\[1\] \(list\) is not a class"),
        (datetime.date(2020, 1, 1), r"\(date\) is not a class"),
        (b"\xff\xd8", "because it is not text"),
        ("9" * 5000, "a text of 5,000 characters is not the name of a class"),
        (10**300, "a number of more than 64 bits is not a class"),
    ],
)
def test_not_a_class(value: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        label_word(value)


def test_values_of_numpy_and_odd_characters() -> None:
    assert (
        label_word(np.float32(3)) == label_word(np.uint8(3)) == label_word(Decimal("3.00")) == "3"
    )
    assert label_word(np.array([1, 2])) == as_word([1, 2])
    assert label_word("\ud800") == "\\ud800"
    assert label_word("a\x1fb") == "a b"
    assert label_word("[a word]") == "[a word]"
    assert label_word("[" * 900 + "]") == "[" * 900 + "]"


def test_a_number_and_its_text_are_one_class() -> None:
    labels = word_labels(["3", "3.0", "03", "nan"], {"3": "owl"})
    assert labels is not None
    assert labels.kind == ClassLabels(names=("03", "owl"))
    assert labels.values.tolist() == [1, 1, 0, -1]
    words = word_labels(["3", "3.0", "v3.0"], {})
    assert words is not None
    assert words.kind.names == ("3", "3.0", "v3.0")


def test_too_many_classes_for_a_table() -> None:
    names = [str(number) for number in range(50_000)]
    with pytest.raises(DataError, match="50,000 classes of 50,000 images are too many for labels"):
        several_labels([[name] for name in names], names, names)


class TestNumberedClasses:
    def test_numbers_names_and_unknown(self) -> None:
        labels = numbered_labels(["1", "cat", "-1", ""], ["cat", "owl"], False, "x")
        assert labels.values.tolist() == [1, 0, -1, -1]
        several = [as_word(["0", "-1"]), as_word([]), as_word(["-1"]), "", "1"]
        lists = numbered_labels(several, ["cat", "owl"], True, "x").values.tolist()
        assert lists == [[1, 0], [0, 0], [-1, -1], [-1, -1], [0, 1]]

    def test_negative_numbers_are_not_known(self) -> None:
        """-100 is what torch's losses ignore; a text can be a name."""
        words = ["1", "-1", "-2", "-100"]
        assert numbered_labels(words, ["cat", "owl"], False, "x").values.tolist() == [1, -1, -1, -1]
        for text, expected in ((False, [-1, 1]), (True, [0, 1])):
            labels = numbered_labels(["-5", "1"], ["-5", "owl"], False, "x", text=text)
            assert labels.values.tolist() == expected

    def test_names_that_are_numbers(self) -> None:
        """A text is a name, a number is a place in the list of names."""
        for text, expected in ((False, [0, 1]), (True, [1, 0])):
            labels = numbered_labels(["0", "1"], ["1", "0"], False, "x", text=text)
            assert labels.values.tolist() == expected

    @pytest.mark.parametrize("word", ["2", "dog"])
    def test_without_a_name(self, word: str) -> None:
        with pytest.raises(DataError, match=f"label {word} of x has no class name: there are 2"):
            numbered_labels(["0", word], ["cat", "owl"], False, "x")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([[[1]], [[2]]]), r"column label of type list<.*> is not read as classes"),
        (pa.array([{"id": 1}, {"id": 2}]), r"column label of type struct<id: int64> is not read"),
        (pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int8())), "of type map<string, int8"),
        (
            pa.array([1, 2], pa.date32()),
            r"column label of type date32\[day\] is not read as classes",
        ),
        (
            pa.array([0.5, 1.0]),
            r"column label is not read as classes: 0\.5 is .*\(row 0 of x\.parq",
        ),
        (
            pa.array([b"\xff", b"a"]),
            r"column label is not read as classes: b'\\xff' is not a class",
        ),
        (pa.array(["a" * 2000, "b"]), "a text of 2,000 characters is not the name of a class"),
    ],
)
def test_a_column_that_is_not_read_is_named(tmp_path: Path, column: Any, said: str) -> None:
    """When images are listed, and again by what needs labels."""
    data = Parquet(path=str(parquet(tmp_path, column)))
    source = data.open()
    assert source.annotations == Unlabelled()
    assert len(source.notes) == 1
    for message in (said, "labelled images of at least two classes"):
        with pytest.raises(DataError, match=message):
            open_labelled(data, 0)


def test_labels_of_a_shard_that_are_not_read_are_counted(tmp_path: Path) -> None:
    big = json.dumps({"label": 1, "more": "x" * 70_000}).encode()
    deep = b'{"label": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    members: list[Any] = [
        *((".cls", b"0"), (".cls", b"\xff"), (".cls", b"x" * 70_000), (".cls", b"7" * 5000)),
        *((".json", b'{"label": 0.5}'), (".json", b'{"label": {"id": 1}}'), (".json", b"{")),
        *((".json", big), (".json", deep), (".json", b'{"label": ' + b"9" * 5000 + b"}")),
    ]
    source = tar(tmp_path, members)
    assert source.labels().tolist() == [0] + [-1] * 9
    assert source.notes == (
        "9 labels are not read as classes, the first is 1.cls: b'\\xff' is not a class, because it is not text",
    )


def test_a_count_that_stops_is_no_exact_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_index, "MOST_ODD", 3)
    monkeypatch.setattr(shards, "MOST_ODD", 3)
    source = tar(tmp_path, [(".cls", b"\xff")] * 5)
    assert source.notes[0].startswith(
        "at least 3 labels are not read as classes, the first is 0.cls"
    )


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"labels": pa.array([0, 1]), "kind": pa.array([1, 0])}, ("cat", "owl")),
        ({"kind": pa.array([[0], [0, 1]])}, ("cat", "owl")),
        ({"Label": pa.array(["a", "b"])}, ("a", "b")),
        ({"category": pa.array(["a", "b"]), "target": pa.array(["c", "d"])}, ("c", "d")),
        ({"classes": pa.array(["a", "b"]), "category": pa.array(["c", "d"])}, ("c", "d")),
        ({"Label": pa.array(["a", "b"]), "target": pa.array(["c", "d"])}, ("c", "d")),
        ({"kind": pa.array([[0], [0, 1]]), "label": pa.array(["c", "d"])}, ("c", "d")),
    ],
)
def test_which_column(tmp_path: Path, columns: dict[str, Any], names: tuple[str, ...]) -> None:
    """Marked in the schema under any name, then names in an order that runs depend on, then marked lists."""
    table = pa.table({"image": [png(1), png(2)], **columns})
    marked = {"_type": "ClassLabel", "names": ["cat", "owl"]}
    lists = pa.types.is_list(columns.get("kind", pa.array([1])).type)
    features = {"kind": {"_type": "List", "feature": marked} if lists else marked}
    note = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "x.parquet")
    source = Parquet(path=str(tmp_path)).open()
    assert source.annotations.names == names
    assert len(source.notes) == len(columns) - 1
    if "labels" in columns:
        assert source.notes == ("labels from column kind; labels holds labels too",)


def test_files_whose_types_differ(tmp_path: Path) -> None:
    """int32 beside int64, text beside a dictionary, bytes of two widths: one set of classes."""
    parts = [
        (pa.binary(), pa.array([3], pa.int32())),
        (pa.large_binary(), pa.array([10], pa.int64())),
        (pa.binary_view(), pa.array(["3"]).dictionary_encode()),
    ]
    for number, (kind, label) in enumerate(parts):
        table = pa.table({"image": pa.array([png(10 * number)], kind), "label": label})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    source = Parquet(path=str(tmp_path)).open()
    assert source.annotations.names == ("3", "10")
    assert source.labels().tolist() == [0, 1, 0]
    assert [int(source[row].image[0, 0, 0]) for row in range(3)] == [0, 10, 20]
