"""Pictures that an encoder was trained on are known by any path; what cannot be compared is said."""

import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from commands.said import plain
from reference.dense import write_outlined
from runs import tiny

from unmask.console.learned_queries import refuse_learned, say_unknown_start
from unmask.data import AnySource, Coco, Digits, Folder, GroundMap, Shards
from unmask.data.kinds import find_source
from unmask.errors import SettingsError
from unmask.runs.model import Model


def shards(photos: Path, root: Path) -> Shards:
    with tarfile.open(root / "photos.tar", "w") as archive:
        for file in sorted(photos.glob("*")):
            archive.add(file, file.name)
    source = find_source(str(root / "photos.tar"))
    assert isinstance(source, Shards)
    return source


def test_photographs_that_were_learned_are_refused(tmp_path: Path) -> None:
    """Of a folder or of an annotation file, through links too; also if another run came later."""
    photos = tiny.write_images(tmp_path / "photos")
    write_outlined(tmp_path / "objects")
    for source, query in (
        (Folder(path=str(photos)), photos / "00.png"),
        (
            Coco(path=str(tmp_path / "objects/annotations/instances_train.json")),
            tmp_path / "objects/images/train/0.png",
        ),
    ):
        link, beside = tmp_path / f"{source.path[-5:]}.png", query.parent / "notes.txt"
        link.symlink_to(query)
        beside.write_text("no picture")
        for path in (query, link, query.parent / ".." / query.parent.name / query.name):
            with pytest.raises(SettingsError, match="has learned from 1 of the queries, such as"):
                refuse_learned([Digits(), source], [beside, path])
        refuse_learned([source], [beside])


@pytest.mark.parametrize("kind", ["shards", "gone", "map gone"])
def test_what_cannot_be_compared_is_said(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tiny.write_images(tmp_path / "photos")
    source: AnySource = Folder(path=str(tmp_path / "gone"))
    if kind == "shards":
        source = shards(photos, tmp_path)
    if kind == "map gone":
        source = GroundMap(path=str(tmp_path / "gone"))
    refuse_learned([source], sorted(photos.iterdir()))
    said = plain(capsys.readouterr().err)
    assert f"trained on {source.path}; whether queries were among these images is not known" in said
    refuse_learned([Digits()], sorted(photos.iterdir()))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (None, "which images weights.pth has learned from is not known"),
        (SimpleNamespace(init="hf:a/b", learned_before=()), "the encoder started from hf:a/b"),
        (SimpleNamespace(init="runs/a", learned_before=(Digits(),)), ""),
        (SimpleNamespace(init=None, learned_before=()), ""),
    ],
)
def test_starts_of_which_nothing_is_known_are_said(
    run: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Mock(spec=Model)
    model.run, model.about = run, "weights.pth"
    say_unknown_start(model)
    noted = plain(capsys.readouterr().err)
    assert said in noted
    assert bool(noted) == bool(said)
