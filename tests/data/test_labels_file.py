"""Labels from a file: every form in which they may stand, which image they are of, and what is wrong with a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from runs import tiny

from unmask.annotations import ClassLabels, MultiLabels
from unmask.contracts import ImageSource
from unmask.data import Digits, Folder, LabelsFile, Parquet, Tiff, labels_file_table
from unmask.data.kinds import find_source
from unmask.data.labelled import open_labelled
from unmask.data.labels_file import read_labels
from unmask.errors import DataError, SettingsError


def labels(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """00.png to 03.png."""
    return tiny.write_images(tmp_path / "photos", 4)


def opened(photos: Path, file: Path) -> ImageSource:
    return LabelsFile(data=Folder(path=str(photos)), labels=str(file)).open()


ONE = ClassLabels(names=("cat", "owl"))
SEVERAL = MultiLabels(names=("cat", "owl"))

FORMS = [
    # one class each: words, one-element lists, one-hot
    ("label\n00.png,owl\n01.png,cat\n02.png,owl\n03.png,\n", ONE, [1, 0, 1, -1]),
    ('label\n00.png,"[""owl""]"\n01.png,cat\n02.png,owl\n03.png,\n', ONE, [1, 0, 1, -1]),
    ("animal\n00.png,owl\n01.png,cat\n02.png,owl\n03.png,\n", ONE, [1, 0, 1, -1]),
    ("cat,owl\n00.png,0,1\n01.png,1,0\n02.png,0,1\n03.png,,\n", ONE, [1, 0, 1, -1]),
    ("note,label\n00.png,7,owl\n01.png,8,cat\n02.png,,owl\n03.png,,\n", ONE, [1, 0, 1, -1]),
    # any number of classes
    (
        "label\n00.png,owl;cat\n01.png,cat\n02.png,owl\n03.png,\n",
        SEVERAL,
        [[1, 1], [1, 0], [0, 1], [-1, -1]],
    ),
    (
        'label\n00.png,"[""owl"", ""cat""]"\n01.png,[]\n02.png,"[""owl""]"\n03.png,\n',
        SEVERAL,
        [[1, 1], [0, 0], [0, 1], [-1, -1]],
    ),
    (
        "cat,owl\n00.png,1,1\n01.png,0,0\n02.png,0,true\n03.png,,\n",
        SEVERAL,
        [[1, 1], [0, 0], [0, 1], [-1, -1]],
    ),
]


@pytest.mark.parametrize(("text", "kind", "values"), FORMS)
def test_every_form_of_csv(tmp_path: Path, photos: Path, text: str, kind: Any, values: Any) -> None:
    source = opened(photos, labels(tmp_path, f"file_name,{text}"))
    assert source.annotations == kind
    assert source.labels().tolist() == values
    assert source.labels().dtype == np.int64
    first, last = source[0].annotation, source[3].annotation
    assert torch.equal(first, torch.tensor(values[0], dtype=first.dtype))
    assert (last == -1).all()
    assert source.notes == ()


PARQUETS = [
    ({"label": [10, 9, None, 10]}, ClassLabels(names=("9", "10")), [1, 0, -1, 1]),
    ({"label": ["owl", "cat", None, "owl"]}, ONE, [1, 0, -1, 1]),
    ({"label": [["owl"], ["cat"], None, ["owl"]]}, ONE, [1, 0, -1, 1]),
    ({"label": [["owl", "cat"], [], None, ["owl"]]}, SEVERAL, [[1, 1], [0, 0], [-1, -1], [0, 1]]),
    ({"cat": [1, 0, None, 0], "owl": [1, 0, None, 1]}, SEVERAL, [[1, 1], [0, 0], [-1, -1], [0, 1]]),
    ({"cat": [True, False, None, False], "owl": [0.0, 1.0, None, 1.0]}, ONE, [0, 1, -1, 1]),
]


@pytest.mark.parametrize(("columns", "kind", "values"), PARQUETS)
def test_every_form_of_parquet(
    tmp_path: Path, photos: Path, columns: dict[str, Any], kind: Any, values: Any
) -> None:
    table = pa.table({"file_name": [f"0{n}.png" for n in range(4)], **columns})
    pq.write_table(table, tmp_path / "labels.parquet")
    source = opened(photos, tmp_path / "labels.parquet")
    assert source.annotations == kind
    assert source.labels().tolist() == values


def test_numbers_are_in_order_of_their_values(tmp_path: Path) -> None:
    file = labels(tmp_path, "file_name,label\na,10\nb,9\nc,100\n")
    names, found = read_labels(file)
    assert names == ["a", "b", "c"]
    assert found.kind.names == ("9", "10", "100")
    assert found.values.tolist() == [1, 0, 2]


def test_rows_and_images_without_each_other_are_counted(tmp_path: Path, photos: Path) -> None:
    file = labels(tmp_path, "file_name,label\n9.png,cat\n./02.png,owl\n00.png,cat\n8.png,owl\n")
    source = opened(photos, file)
    assert source.labels().tolist() == [0, -1, 1, -1]
    assert source.notes == (
        "labels.csv: 2 rows match no image, the first is 9.png",
        "labels.csv: 2 images have no row, the first is 01.png",
    )


def test_rows_of_the_other_split_are_none_too_many(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        tiny.write_images(tmp_path / "data" / split, count)
    file = labels(tmp_path, "file_name,label\n00.png,a\n01.png,b\n02.png,a\n")
    spec = LabelsFile(data=Folder(path=str(tmp_path / "data")), labels=str(file))
    assert spec.splits() == ("train", "test")
    assert spec.open("train").labels().tolist() == [0, 1, 0]
    assert spec.open("test").labels().tolist() == [0, 1]
    assert spec.open("test").notes == ()


def test_other_labels_are_other_data(tmp_path: Path, photos: Path) -> None:
    """So that a run is not resumed on them, and features kept with them are not taken."""
    one = opened(photos, labels(tmp_path, "file_name,label\n00.png,a\n01.png,b\n", "1.csv"))
    same = opened(photos, labels(tmp_path, "file_name,label\n01.png,b\n00.png,a\n", "2.csv"))
    other = opened(photos, labels(tmp_path, "file_name,label\n00.png,a\n01.png,a\n", "3.csv"))
    renamed = opened(photos, labels(tmp_path, "file_name,label\n00.png,a\n01.png,c\n", "4.csv"))
    assert one.fingerprint == same.fingerprint
    assert one.state == same.state
    prints = {
        source.fingerprint for source in (one, other, renamed, Folder(path=str(photos)).open())
    }
    assert len(prints) == 4


def test_images_of_bands_and_of_tables(tmp_path: Path) -> None:
    (tmp_path / "bands").mkdir()
    for number in range(2):
        np.save(tmp_path / "bands" / f"{number}.npy", np.zeros((5, 9, 8), np.float32))
    file = labels(tmp_path, "file_name,label\n0.npy,a\n1.npy,b\n")
    bands = LabelsFile(data=Tiff(path=str(tmp_path / "bands")), labels=str(file)).open()
    assert (bands.labels().tolist(), bands.channels) == ([0, 1], 5)
    picture = tmp_path / "x.png"
    Image.new("RGB", (4, 4)).save(picture)
    table = pa.table({"image": [picture.read_bytes()] * 2, "label": [0, 1]})
    pq.write_table(table, tmp_path / "x.parquet")
    file = labels(tmp_path, "file_name,label\nx.parquet:0,b\nx.parquet:1,a;b\n")
    rows = LabelsFile(data=Parquet(path=str(tmp_path / "x.parquet")), labels=str(file)).open()
    assert rows.labels().tolist() == [[0, 1], [1, 1]]


def test_images_without_a_label_are_neither_learned_from_nor_tested_on(tmp_path: Path) -> None:
    """A file need not name every image."""
    photos = tiny.write_images(tmp_path / "photos", 24)
    rows = [f"{n:02}.png,{'cat' if n % 2 else 'owl'}" for n in range(20)]
    file = labels(tmp_path, "\n".join(["file_name,label", *rows, "20.png,"]) + "\n")
    spec = LabelsFile(data=Folder(path=str(photos)), labels=str(file))
    found = open_labelled(spec, 0)
    assert found.split.endswith("; 4 images without labels are skipped")
    assert found.train.labels().tolist().count(0) == 8
    assert found.test.labels().tolist().count(0) == 2
    assert found.train.notes == ("labels.csv: 3 images have no row, the first is 21.png",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\n00.png,a\n", r"has no column file_name, only name, label; name the column"),
        ("file_name;label\n00.png;a\n", r"only file_name;label; .* separate columns with commas"),
        ("file_name\n00.png\n", "has no column except file_name; add a column label"),
        ("file_name,label\n00.png,a\n00.png,b\n", r"has 00\.png in rows 2 and 3; .* cat;dog"),
        ("file_name,label\n00.png,a,b\n", r"cannot be read as CSV .*put values with commas in quotes"),
        ('file_name,label\n00.png,"[1, "\n', r'row 2 of .* has .\[1, . as label; .* not a JSON list'),
        ("file_name,a,b\n00.png,1,0\n01.png,1,2\n", r"row 3 of .* has '2' in column b; .* 0 or 1\. .* name it label"),
        ("file_name,a,b\n00.png,1,\n", r"row 2 of .* has '' in column b"),
        ("", "has no column file_name, because it is empty; write one"),
        ("file_name,label,label\n00.png,a,b\n", "has two columns label; rename or remove one"),
        ('file_name,label\n00.png,"[cat, owl]"\n', "is not a JSON list of classes"),
        ('file_name,label\n00.png,"[0.5]"\n', "0.5 is not a class, because it is not a whole number"),
        ("file_name,label\n00.png," + "x" * 200_000, r"has 'x{59}\.\.\. as label; a text of 200,000 characters"),
        ("file_name,label\n00.png,\n", "has no labels: every row is empty"),
        ("file_name,label\n7.png,a\n", r"the first row has 7\.png, but the first image is 00\.png; write paths"),
    ],
)  # fmt: skip
def test_a_wrong_file(tmp_path: Path, photos: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(photos, labels(tmp_path, text))


def test_words_mean_what_they_mean_elsewhere(tmp_path: Path) -> None:
    """Also in lists; what is in brackets need not be a list."""
    cells = ['"[true, null]"', "[unk]", '"[null]"', "[3.0]", "3", "3;true"]
    file = labels(
        tmp_path, "\n".join(["file_name,label", *(f"{n},{c}" for n, c in enumerate(cells))])
    )
    _, found = read_labels(file)
    assert found.kind.names == ("3", "[unk]", "true")
    assert found.values.tolist() == [
        *([0, 0, 1], [0, 1, 0], [-1] * 3, [1, 0, 0], [1, 0, 0], [1, 0, 1]),
    ]


@pytest.mark.parametrize(
    ("header", "row", "name"),
    [
        ("Label,owl", "cat,0", "cat"),
        ("LABEL,target", "cat,owl", "owl"),  # one in lower case comes first
        ("target,category", "owl,cat", "cat"),
        ("label,,", "cat,,", "cat"),  # as spreadsheets write empty columns
        ("label,note", "cat," + "x" * 200_000, "cat"),
    ],
)
def test_the_column_of_classes(tmp_path: Path, header: str, row: str, name: str) -> None:
    _, found = read_labels(labels(tmp_path, f"\nfile_name,{header}\n00.png,{row}\n"))
    assert found.kind.names == (name,)


class TestParquet:
    def write(self, folder: Path, **columns: Any) -> Path:
        pq.write_table(pa.table({"file_name": [b"a", b"b"], **columns}), folder / "x.PARQUET")
        return folder / "x.PARQUET"

    def test_nan_and_bytes_in_columns_of_classes(self, tmp_path: Path) -> None:
        missing = float("nan")
        file = self.write(tmp_path, cat=[1.0, missing], owl=pa.array([b"0", None]))
        names, found = read_labels(file)
        assert names == ["a", "b"]
        assert found.kind.names == ("cat", "owl")
        assert found.values.tolist() == [0, -1]

    def test_bytes_with_several_classes(self, tmp_path: Path) -> None:
        _, found = read_labels(self.write(tmp_path, label=[b"cat;owl", b"owl"]))
        assert found.values.tolist() == [[1, 1], [0, 1]]

    def test_only_the_columns_of_names_and_classes_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beside them may be images of many gigabytes."""
        read: list[str] = []
        whole = labels_file_table.column_values
        monkeypatch.setattr(
            labels_file_table,
            "column_values",
            lambda path, column: (read.append(column), whole(path, column))[1],
        )
        file = self.write(tmp_path, image=[{"bytes": b"x", "path": ""}] * 2, label=["cat", "owl"])
        assert read_labels(file)[1].values.tolist() == [0, 1]
        assert read == ["file_name", "label"]

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"label": [b"x" * 2**21, b"y"]}, r"row 2 of .* has 2,097,152 bytes in column label"),
            ({"label": [{"id": 1}] * 2}, "has values of type struct<id: int64> in column label"),
            ({"a": [1, 2], "b": [1, 0]}, "row 3 of .* has 2 in column a; .* 0 or 1"),
            ({"a": [1, 0], "b": [0.5, 1]}, r"row 2 of .* has 0\.5 in column b; .* 0 or 1"),
        ],
    )
    def test_a_wrong_column(self, tmp_path: Path, columns: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError, match=said):
            read_labels(self.write(tmp_path, **columns))

    def test_too_much_from_few_bytes(self, tmp_path: Path) -> None:
        lists = pa.array([["a"] * 200_000, ["a"]])
        with pytest.raises(DataError, match=r"column label cannot be labels: x\.PARQUET holds too"):
            read_labels(self.write(tmp_path, label=lists))

    def test_two_columns_of_one_name(self, tmp_path: Path) -> None:
        names = ["file_name", "label", "label"]
        pq.write_table(pa.Table.from_arrays([["a"], ["b"], ["c"]], names), tmp_path / "x.parquet")
        with pytest.raises(DataError, match="has two columns label; rename or remove one"):
            read_labels(tmp_path / "x.parquet")


def test_no_file(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv does not exist; .* with a column file_name"):
        opened(photos, tmp_path / "labels.csv")


def test_the_flag(tmp_path: Path, photos: Path) -> None:
    file = labels(tmp_path, "file_name,label\n00.png,a\n01.png,b\n")
    spec = find_source(str(photos), labels_file=str(file))
    assert spec == LabelsFile(data=Folder(path=str(photos)), labels=str(file))
    assert spec.path == str(photos)
    assert find_source("digits") == Digits()
    with pytest.raises(SettingsError, match="digits have labels already"):
        find_source("digits", labels_file=str(file))
