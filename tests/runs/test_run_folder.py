"""The spec on disk, and everything that can be wrong with a run's folder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from runs import tiny

from unmask.contracts import Size
from unmask.errors import ResourceError, RunError
from unmask.masking import GridMasking
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.spec import from_json, to_json
from unmask.targets import Pixels


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("folder") / "images")


def test_spec_goes_to_disk_and_back(images: Path, tmp_path: Path) -> None:
    objective = replace(tiny.RECIPE.objective, masking=GridMasking(stride=3), target=Pixels())
    recipe = replace(tiny.RECIPE, objective=objective, image_size=Size(12, 8), epochs=3.0)
    run = tiny.make_run(images, recipe=recipe, seed=2**40, workers=3)
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.create(run)
    assert Run.read(folder, "pretrain") == run
    assert Run.read(folder, "pretrain").hash == run.hash
    assert sorted(path.name for path in folder.root.iterdir()) == ["spec.json", "statistics.json"]


def test_spec_is_plain_json(images: Path, tmp_path: Path) -> None:
    spec = json.loads(tiny.begin(tmp_path / "run", images).spec.read_text())
    assert spec["spec_version"] == 4
    assert spec["data"] == {"kind": "folder", "path": str(images), "by_content": True}
    assert spec["job"]["recipe"]["objective"]["masking"] == {"kind": "random", "ratio": 0.75}
    assert spec["job"]["recipe"]["image_size"] == [8, 8]
    assert spec["hardware"]["threads"] == 1


def test_whole_numbers_for_floats_do_not_change_the_hash(images: Path) -> None:
    run = tiny.make_run(images, recipe=replace(tiny.RECIPE, epochs=2))
    again = from_json(Run, json.loads(json.dumps(to_json(run))))
    assert again == run
    assert again.hash == run.hash


def test_hash_holds_what_may_not_change(images: Path) -> None:
    run = tiny.make_run(images)
    assert tiny.make_run(images, workers=2, threads=3, micro_batch=1).hash == run.hash
    assert tiny.make_run(images, seed=1).hash != run.hash
    assert tiny.make_run(images, recipe=replace(tiny.RECIPE, epochs=3.0)).hash != run.hash


def test_hash_leaves_out_what_may_change(images: Path) -> None:
    run = tiny.make_run(images)
    assert replace(run, save_every_minutes=1.0, max_set_aside=0.5).hash == run.hash


def test_steps_and_rates(images: Path) -> None:
    """12 images, 4 a step, 2 epochs: 6 steps; the rate rises for half an epoch and then falls."""
    run = tiny.make_run(images)
    assert run.steps == 6
    rates = [run.rate(step) for step in range(6)]
    peak = 0.3 * 4 / 256
    assert rates[0] == 0
    assert rates[1] == pytest.approx(peak * (1 / 3) / 0.5)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < rates[2] < peak


def test_folder_with_a_run_is_taken(images: Path, tmp_path: Path) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    with pytest.raises(RunError, match=r"already holds a run; continue it with .*--resume.*--out"):
        folder.create(tiny.make_run(images, seed=1))
    assert Run.read(folder, "pretrain").seed == 0


def test_folder_with_something_else_is_taken(images: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear mum")
    with pytest.raises(RunError, match="exists and is not empty; choose another folder"):
        RunFolder(tmp_path).create(tiny.make_run(images))
    with pytest.raises(RunError, match="exists and is not empty"):
        RunFolder(tmp_path / "letter.txt").create(tiny.make_run(images))
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").create(tiny.make_run(images))


def test_missing_run_names_those_nearby(images: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no file or folder .*run-1; give the folder of a run$"):
        Run.read(RunFolder(tmp_path / "run-1"), "pretrain")
    tiny.begin(tmp_path / "run-2", images)
    with pytest.raises(RunError, match=r"; runs nearby: .*run-2$"):
        Run.read(RunFolder(tmp_path / "run-1"), "pretrain")


def change_spec(folder: RunFolder, **changes: object) -> None:
    spec = json.loads(folder.spec.read_text())
    folder.spec.write_text(json.dumps(spec | changes))


def test_newer_version(images: Path, tmp_path: Path) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    change_spec(folder, spec_version=5, something_new=True)
    with pytest.raises(RunError, match="version 5, and this unmask reads up to 4; install a newer"):
        Run.read(folder, "pretrain")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sede": 1}, "unknown field 'sede' in Run; did you mean 'seed'"),
        ({"seed": "1"}, "Run.seed: expected int, got '1'"),
        ({"data": {"kind": "fodler"}}, "unknown kind 'fodler'; did you mean 'folder'"),
        ({"data": {}}, r"expected an object with a kind \(folder, digits, shards"),
        ({"job": {"kind": "pretrain"}}, "field 'recipe' is missing in"),
        ({"seed": None}, "Run.seed"),
    ],
)
def test_damaged_spec(images: Path, tmp_path: Path, changes: dict[str, object], words: str) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    change_spec(folder, **changes)
    with pytest.raises(RunError, match=f"spec.json cannot be read: .*{words}"):
        Run.read(folder, "pretrain")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "\x00"])
def test_spec_that_is_no_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(RunError, match=r"spec\.json cannot be read"):
        Run.read(RunFolder(tmp_path), "pretrain")


def test_lock_is_free_again_after_its_holder(images: Path, tmp_path: Path) -> None:
    """Against another process it is tried in test_kill.py."""
    folder = tiny.begin(tmp_path / "run", images)
    for _ in range(2):
        with folder.lock():
            assert (folder.root / "lock").read_text().startswith("process ")


def test_foreign_files_among_checkpoints_are_left_alone(images: Path, tmp_path: Path) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    tiny.one_step(folder)
    note = folder.checkpoints / "note.txt"
    note.write_text("mine")
    (folder.checkpoints / "step-old").mkdir()
    tiny.finish(folder, save_every_minutes=0)
    assert note.read_text() == "mine"
    assert (folder.checkpoints / "step-old").is_dir()
    assert tiny.newest(folder).info.step == 6


def test_checkpoint_tells_what_it_is(images: Path, tmp_path: Path) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    tiny.one_step(folder), tiny.one_step(folder)
    found = tiny.newest(folder)
    assert (found.info.format, found.info.step, found.info.images_seen) == (1, 2, 8)
    assert found.info.spec_hash == Run.read(folder, "pretrain").hash
    model, encoder = found.read("model"), found.read("encoder")
    assert encoder.keys() == {k.removeprefix("encoder.") for k in model if k.startswith("encoder.")}
    assert all(encoder[name].equal(model[f"encoder.{name}"]) for name in encoder)
    assert all(":" in name for name in found.read("training/optimizer"))


def test_what_a_kill_while_creating_leaves_is_no_run(images: Path, tmp_path: Path) -> None:
    run = tiny.make_run(images)
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    for name in (".spec.json", "statistics.json"):
        (folder.root / name).write_text("{")
    folder.create(run)
    assert Run.read(folder, "pretrain") == run


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ResourceError,
        match=r"cannot be created .*is not a writable folder.*choose another folder with --out",
    ):
        RunFolder(tmp_path / "file" / "run").check_free()
