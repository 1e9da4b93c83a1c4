"""Several processes give what one gives, end together, and go on in any number."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.pages import words_of
from reference.dense import write_maps, write_outlined
from runs import ranks, tiny, tiny_dense, tiny_transfer

from unmask.annotations import ClassMaps, ObjectLabels
from unmask.contracts import Size
from unmask.data import GroundMap
from unmask.data.mixing import UNMIXED
from unmask.data.multi_views import MultiCrop, TwoCrops
from unmask.data.noise import NOISELESS
from unmask.data.place_views import TwoLooks
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.geo.overlap import overlapping
from unmask.masking import BlockMasking
from unmask.objectives import DINO, MAE, Latent, MoCo3, Place
from unmask.runs.course import ENDS
from unmask.runs.folder import RunFolder
from unmask.spec import to_json
from unmask.tasks import Detect, Segment
from unmask.tasks.heads import TokenProbe
from unmask.tasks.upernet import UperNet
from unmask.training import loss_scale
from unmask.training.checkpoint import COMPANIONS, LOSS_SCALE
from unmask.training.logbook import read_log
from unmask.training.optimizers import AdamW, ClipEach
from unmask.training.schedules import WarmupCosine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(660),  # on a busy machine, processes that wait for one another are slow
]

STEPS = 6
IMAGES = 12
RECIPE = replace(tiny.RECIPE, batch_size=12, epochs=6.0)
BLOCKS = replace(
    RECIPE,
    objective=MAE(masking=BlockMasking(ratio=0.5), decoder=tiny.RECIPE.objective.decoder),
    epochs=2.0,
)
TRANSFER = replace(tiny_transfer.TRANSFER, batch_size=8, epochs=2.0)
PROBE = replace(
    TRANSFER, task=replace(TRANSFER.task, trained_blocks="0", drop_path=0.0, head=TokenProbe())
)
DENSE = replace(
    TRANSFER,
    views=ScaleJitter(least=0.5),
    test_views=FittedImage(),
    mixing=UNMIXED,
    noise=NOISELESS,
    schedule=WarmupCosine(base_lr=0.03, warmup_epochs=0.25),
    batch_size=4,
    epochs=4.0,
)
SEGMENT = replace(DENSE, task=Segment(head=UperNet(channels=4), drop_path=0.3))
DETECT = replace(
    DENSE,
    encoder=replace(TRANSFER.encoder, depth=2),  # one block is global, the other within windows
    task=Detect(window=3, global_blocks=1, drop_path=0.3, channels=4, sampled=8),
)
DINO_RECIPE = replace(
    RECIPE,
    objective=DINO(
        prototypes=16, hidden_dim=8, bottleneck_dim=4, drop_path=0.3, teacher_momentum=0.9
    ),
    views=MultiCrop(small_count=2, small_size=Size(4, 4)),
    optimizer=AdamW(last_weight_decay=0.4, clipping=ClipEach(norm=1.0)),
    schedule=WarmupCosine(base_lr=0.02, warmup_epochs=0.5),
)
MOCO3_RECIPE = replace(
    RECIPE,
    objective=MoCo3(hidden_dim=8, out_dim=4, momentum=0.9),
    views=TwoCrops(smallest_share=0.3),
    schedule=WarmupCosine(base_lr=0.02, warmup_epochs=0.5),
)
PLACE_RECIPE = replace(
    RECIPE,
    objective=Place(memory=30, hardest=5),
    views=TwoLooks(),
    schedule=WarmupCosine(base_lr=0.02, warmup_epochs=0.5),
)
LATENT_RECIPE = replace(
    RECIPE,
    objective=Latent(
        masks=2,
        target_blocks=1,
        decoder_dim=8,
        decoder_depth=2,
        decoder_groups=2,
        first_momentum=0.9,
    ),
    schedule=WarmupCosine(base_lr=0.02, warmup_epochs=0.5),
)
HUGE = 2.0**22
"""A first scale of the loss whose gradients overflow in float16."""
ROUNDING = 1e-6
"""Losses are near 1 and float32; sums of a batch are made in another order."""


class Done:
    """What the jobs of a plan left: folders, and what each process gave back."""

    def __init__(self, root: Path) -> None:
        self.root, self.jobs = root, []
        self.images = tiny.write_images(root / "images", IMAGES)
        self.classes = tiny.write_classes(root / "classes", count=11)
        self.maps, self.objects = root / "maps", root / "objects"
        write_maps(self.maps)
        write_outlined(self.objects)

    def begun(self, name: str, recipe: Any = RECIPE, **changes: Any) -> str:
        return str(tiny.begin(self.root / name, self.images, recipe=recipe, **changes).root)

    def mapped(self, name: str) -> str:
        """A run on twelve tiles of a map, of which neighbours overlap."""
        path = self.root / "map.png"
        if not path.exists():
            tiny.write_images(self.root / "map", 1, (60, 80))
            (self.root / "map" / "00.png").rename(path)
        corners = (0.00058, 10.0, 0.0, 10.0007)  # about 64 x 78 m
        data = GroundMap(path=str(path), corners=corners, tile_metres=(33.0,))
        run = tiny.make_run(self.images, recipe=PLACE_RECIPE)
        source = data.open()
        assert len(source) == IMAGES
        folder = self.folder(name)
        folder.create(replace(run, data=data, images=IMAGES, fingerprint=source.fingerprint))
        return str(folder.root)

    def tuning(self, name: str, recipe: Any = TRANSFER) -> str:
        dense = {ClassMaps: self.maps, ObjectLabels: self.objects}
        data = dense.get(recipe.task.needs, self.classes)
        return str(tiny_transfer.begin(self.root / name, data, recipe).root)

    def add(
        self, name: str, processes: int, work: str, copied: str | None = None, **arguments: Any
    ) -> None:
        job = {"processes": processes, "work": work, "arguments": arguments, "copied": copied}
        self.jobs.append({**job, "report": str(self.root / f"{name}.json")})

    def run(self) -> None:
        plan, said = self.root / "plan.json", self.root / "said.txt"
        plan.write_text(json.dumps(self.jobs))
        paths = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        with said.open("w") as output:
            ended = subprocess.run(
                [sys.executable, ranks.__file__, plan],
                stdout=output,
                stderr=output,
                env=environment,
                cwd=self.root,
                timeout=600,
            )
        assert ended.returncode == 0, said.read_text()
        assert "Warning" not in said.read_text()

    def found(self, name: str) -> list[Any]:
        return json.loads((self.root / f"{name}.json").read_text())

    def folder(self, name: str) -> RunFolder:
        return RunFolder(self.root / name)

    def going_on(self, name: str, processes: int, **hardware: Any) -> None:
        """A job that goes on with a copy of what an earlier one left."""
        new = f"{name}-on-{processes}"
        arguments = {"root": str(self.root / new), "copied": str(self.root / name), **hardware}
        self.add(new, processes, "trained", **arguments)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """All that is done by several processes, in one go."""
    done = Done(tmp_path_factory.mktemp("ranks"))
    done.add("two", 2, "trained", root=done.begun("two"))
    done.add("parts", 2, "trained", root=done.begun("parts"), micro_batch=4)
    done.add("three", 3, "trained", root=done.begun("three"))
    done.add("blocks", 2, "trained", root=done.begun("blocks", BLOCKS), micro_batch=2)
    done.add("stopped", 2, "trained", root=done.begun("stopped"), told_at=2)
    done.add("shards", 2, "trained", root=done.begun("shards"), told_at=2, shard=True)
    done.add("killed", 2, "trained", root=done.begun("killed"), killed_at=3)
    done.add("tuned", 2, "tuned", root=done.tuning("tuned"))
    done.add("shards-tuned", 2, "tuned", root=done.tuning("shards-tuned"), shard=True)
    done.add("probed", 2, "tuned", root=done.tuning("probed", PROBE))
    done.add("segmented", 2, "segmented")
    for name, recipe in (("maps", SEGMENT), ("objects", DETECT)):
        tuning = f"{name}-tuned"
        done.add(tuning, 2, "tuned", root=done.tuning(tuning, recipe), micro_batch=1)
        done.add(
            f"{tuning}-shards", 2, "tuned", root=done.tuning(f"{tuning}-shards", recipe), shard=True
        )
    done.add("detected", 2, "detected")
    done.add("dino", 2, "trained", root=done.begun("dino", DINO_RECIPE))
    done.add("dino-parts", 3, "trained", root=done.begun("dino-parts", DINO_RECIPE), micro_batch=2)
    done.add("dino-shards", 2, "trained", root=done.begun("dino-shards", DINO_RECIPE), shard=True)
    done.add("moco3", 2, "trained", root=done.begun("moco3", MOCO3_RECIPE))
    done.add(
        "moco3-shards", 3, "trained", root=done.begun("moco3-shards", MOCO3_RECIPE), shard=True
    )
    done.add("place", 2, "trained", root=done.begun("place", PLACE_RECIPE))
    done.add("place-map", 2, "trained", root=done.mapped("place-map"))
    done.add(
        "place-shards", 3, "trained", root=done.begun("place-shards", PLACE_RECIPE), shard=True
    )
    done.add("latent", 3, "trained", root=done.begun("latent", LATENT_RECIPE), micro_batch=2)
    done.add(
        "latent-shards", 2, "trained", root=done.begun("latent-shards", LATENT_RECIPE), shard=True
    )
    half = {"precision": "float16", "first_scale": HUGE}
    done.add("half", 2, "trained", root=done.begun("half"), **half)
    done.add("half-parts", 2, "trained", root=done.begun("half-parts"), micro_batch=4, **half)
    done.add("half-shards", 2, "trained", root=done.begun("half-shards"), shard=True, **half)
    done.add("timed", 2, "trained", root=done.begun("timed", minutes=0.05), told_at=1)
    done.going_on("timed", 2)
    for name, processes in (("stopped", 2), ("stopped", 3), ("killed", 2)):
        done.going_on(name, processes)
    done.going_on("shards", 2, shard=True)
    done.going_on("shards", 3, shard=True)
    tiny.write_images(done.root / "fewer", IMAGES - 1)
    command = ["pretrain", "images", "--recipe", "mae-digits", "--image-size", "8"]
    done.add("differs", 2, "said", arguments=[*command, "--batch-size", "8"], lacking=True)
    done.add("odd", 2, "said", arguments=[*command, "--batch-size", "9"])
    done.add("gone", 2, "said", arguments=[*command, "--batch-size", "6"], killed=True)
    watched = ["--track", "tensorboard", "--batch-size", "6", "--workers", "0", "--epochs", "1"]
    done.add("seen", 2, "said", arguments=[*command, *watched, "--out", "seen-run"], watched=True)
    words = ["finetune", "seen-run", "classes", *watched, "--out", "scored-run"]
    done.add("scored", 2, "said", arguments=words, watched=True)
    done.run()
    return done


@pytest.fixture(scope="module")
def one(done: Done) -> RunFolder:
    return tiny.finished_run(done.root / "one", done.images, recipe=RECIPE)


def losses(folder: RunFolder) -> list[float]:
    return [line["loss"] for line in tiny.timeless(folder)]


@pytest.mark.parametrize("name", ["two", "parts", "three"])
def test_losses_are_those_of_one_process(done: Done, one: RunFolder, name: str) -> None:
    """Same images, crops and masks, hence the same loss; and gradients, or later steps would part."""
    assert done.found(name) == [list(range(1, STEPS + 1))] * len(done.found(name))
    assert len(losses(one)) == STEPS
    assert losses(done.folder(name)) == pytest.approx(losses(one), abs=ROUNDING)
    assert tiny.newest(done.folder(name)).info.images_seen == STEPS * IMAGES


def test_masks_that_are_drawn_image_by_image_are_the_same_too(done: Done) -> None:
    whole = tiny.finished_run(done.root / "whole-blocks", done.images, recipe=BLOCKS)
    assert losses(done.folder("blocks")) == pytest.approx(losses(whole), abs=ROUNDING)


@pytest.mark.parametrize("name", ["dino", "dino-parts", "dino-shards"])
def test_distillation_is_that_of_one_process(done: Done, name: str) -> None:
    """The centre is of all processes' images, and reduced by its owner: nothing else would notice that it is not."""
    whole = tiny.finished_run(done.root / f"whole-{name}", done.images, recipe=DINO_RECIPE)
    assert losses(done.folder(name)) == pytest.approx(losses(whole), abs=10 * ROUNDING)
    ours, theirs = (tiny.newest(run).read(COMPANIONS) for run in (done.folder(name), whole))
    assert ours.keys() == theirs.keys()
    assert bool(theirs["center"].any())
    torch.testing.assert_close(ours["center"], theirs["center"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["moco3", "moco3-shards"])
def test_contrast_is_that_of_one_process(done: Done, name: str) -> None:
    """Keys of all processes, and batch normalisation over them, forwards and backwards."""
    whole = tiny.finished_run(done.root / f"whole-{name}", done.images, recipe=MOCO3_RECIPE)
    assert losses(done.folder(name)) == pytest.approx(losses(whole), abs=20 * ROUNDING)


@pytest.mark.parametrize("name", ["place", "place-shards"])
def test_places_are_compared_with_those_of_all_processes(done: Done, name: str) -> None:
    """Forwards and backwards, with what their looks share, and in a memory in the order of the batch."""
    whole = tiny.finished_run(done.root / f"whole-{name}", done.images, recipe=PLACE_RECIPE)
    assert losses(done.folder(name)) == pytest.approx(losses(whole), abs=20 * ROUNDING)
    ours, theirs = (tiny.newest(run).read(COMPANIONS) for run in (done.folder(name), whole))
    assert int(ours["past.count"]) == int(theirs["past.count"]) == 2 * 12 * STEPS
    torch.testing.assert_close(ours["past.corners"], theirs["past.corners"])
    torch.testing.assert_close(ours["past.vectors"], theirs["past.vectors"], atol=1e-4, rtol=0)


def test_looks_of_overlapping_tiles_are_negatives_in_no_process(done: Done) -> None:
    """What one process leaves out, two leave out too, also where the tiles of a pair are in different ones."""
    whole = RunFolder(done.mapped("whole-place-map"))
    tiny.finish(whole)
    corners = tiny.newest(whole).read(COMPANIONS)["past.corners"]
    assert 0.1 < overlapping(corners, corners).float().mean() < 0.6
    assert losses(done.folder("place-map")) == pytest.approx(losses(whole), abs=20 * ROUNDING)


def test_segmentation_normalises_over_the_images_of_all_processes(done: Done) -> None:
    """Forwards, backwards and in the running averages."""
    module = tiny_dense.build()
    whole = tiny_dense.stepped(module, module, list(range(tiny_dense.IMAGES)))
    for part in done.found("segmented"):
        assert part.keys() == whole.keys()
        for name, sums in part.items():
            assert sums == pytest.approx(whole[name], abs=1e-5, rel=1e-4), name


def test_detection_has_the_gradients_and_the_score_of_one_process(done: Done) -> None:
    """Two images in each process beside four in one; average precision is of all detections together."""
    module, rows = tiny_dense.detector(), list(range(tiny_dense.DETECTED))
    whole = tiny_dense.detected(module, module, rows)
    score = json.loads(json.dumps(to_json(tiny_dense.scored(rows).result())))
    assert 0 < score["box"]["ap"] < 1
    for part in done.found("detected"):
        assert part["score"] == score
        assert part["sums"].keys() == whole.keys()
        for name, sums in part["sums"].items():
            assert sums == pytest.approx(whole[name], abs=1e-5, rel=1e-3), name


@pytest.mark.parametrize("name", ["latent", "latent-shards"])
def test_latent_targets_are_those_of_one_process(done: Done, name: str) -> None:
    """Several masks of each image, and noise, are rows of what is drawn for the whole step."""
    whole = tiny.finished_run(done.root / f"whole-{name}", done.images, recipe=LATENT_RECIPE)
    assert losses(done.folder(name)) == pytest.approx(losses(whole), abs=10 * ROUNDING)


@pytest.mark.parametrize("name", ["half", "half-parts", "half-shards"])
def test_overflow_in_one_process_is_overflow_in_all(
    done: Done, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same skipped steps and scales; with shards, only one process may hold the gradient that overflows."""
    monkeypatch.setattr(loss_scale, "_FIRST", HUGE)
    root = done.root / f"whole-{name}"
    whole = tiny.finished_run(root, done.images, recipe=RECIPE, precision="float16")
    ours, theirs = (tiny.timeless(folder) for folder in (done.folder(name), whole))
    assert 0 < sum(line["skipped"] for line in theirs) < STEPS
    for field in ("skipped", "loss_scale"):
        assert [line[field] for line in ours] == [line[field] for line in theirs]
    assert losses(done.folder(name)) == pytest.approx(losses(whole), abs=2e-3)
    scales = [tiny.newest(folder).read(LOSS_SCALE) for folder in (done.folder(name), whole)]
    tiny.assert_same_tensors(*scales)


def test_all_stop_where_one_is_told_to(done: Done) -> None:
    assert done.found("stopped") == [[1, 2, 3]] * 2
    assert tiny.newest(done.folder("stopped")).info.step == 3


def test_going_on_with_as_many_processes_is_exact(done: Done) -> None:
    assert done.found("stopped-on-2") == [[4, 5, 6]] * 2
    tiny.assert_same_end(done.folder("stopped-on-2"), done.folder("two"))


def test_going_on_with_more_or_fewer_processes_keeps_order_and_masks(
    done: Done, one: RunFolder
) -> None:
    fewer = RunFolder(shutil.copytree(done.root / "stopped", done.root / "fewer-processes"))
    for folder in (tiny.finish(fewer), done.folder("stopped-on-3")):
        assert losses(folder) == pytest.approx(losses(one), abs=ROUNDING)


def test_shards_give_what_whole_models_give(done: Done, one: RunFolder) -> None:
    """And go on exactly in as many shards, equal up to rounding in more, or in one piece."""
    stopped, again = done.folder("shards"), done.folder("shards-on-2")
    saved = tiny.newest(stopped)
    parts = {f"training/optimizer-part-0000{number}-of-00002" for number in range(2)}
    assert set(saved.info.checksums) == {"encoder", "model", *parts}
    whole = tiny.newest(done.folder("stopped"))
    for name in ("model", "training/optimizer"):
        ours, theirs = saved.read(name), whole.read(name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].shape == theirs[key].shape for key in ours)
    fewer = RunFolder(shutil.copytree(stopped.root, done.root / "shards-on-1"))
    for folder in (again, done.folder("shards-on-3"), tiny.finish(fewer)):
        assert losses(folder) == pytest.approx(losses(one), abs=ROUNDING)


def test_a_killed_process_ends_the_others_and_costs_no_checkpoint(
    done: Done, one: RunFolder
) -> None:
    survivor, dead = done.found("killed")
    assert dead is None
    assert "onnection" in survivor["error"]
    assert done.found("killed-on-2") == [list(range(1, STEPS + 1))] * 2
    assert losses(done.folder("killed-on-2")) == pytest.approx(losses(one), abs=ROUNDING)


@pytest.mark.parametrize(
    ("name", "recipe"), [("tuned", TRANSFER), ("shards-tuned", TRANSFER), ("probed", PROBE)]
)
def test_fine_tuning_is_that_of_one_process(done: Done, name: str, recipe: Any) -> None:
    """Pairs to mix, erased boxes and dropped blocks included; the probe's first loss at least."""
    whole = done.tuning(f"whole-{name}", recipe)
    expected = ranks.tuned(whole)
    first, second = done.found(name)
    for key in ("images_per_second", "unreadable"):
        first.pop(key), second.pop(key), expected.pop(key)
    assert first == second
    assert first["images"] == expected["images"] == 4
    found, alone = losses(done.folder(name)), losses(RunFolder(whole))
    if recipe is TRANSFER:
        assert found == pytest.approx(alone, abs=ROUNDING)
        assert first["top1"] == expected["top1"]
    assert found == pytest.approx(alone, abs=0.2)  # batch normalisation is of each process's images


@pytest.mark.parametrize("shards", ["", "-shards"])
@pytest.mark.parametrize(("name", "recipe"), [("maps-tuned", SEGMENT), ("objects-tuned", DETECT)])
def test_dense_fine_tuning_is_that_of_one_process(
    done: Done, name: str, recipe: Any, shards: str
) -> None:
    """In parts of the batch, and sharded; pictures of several sizes, and dropped blocks, included."""
    whole = done.tuning(f"whole-{name}{shards}", recipe)
    expected = ranks.tuned(whole)
    first, second = done.found(f"{name}{shards}")
    for one in (first, second, expected):
        one.pop("images_per_second")
    assert first == second
    assert losses(done.folder(f"{name}{shards}")) == pytest.approx(
        losses(RunFolder(whole)), abs=10 * ROUNDING
    )
    for sums in (first, expected):
        assert sums["images"] == 1
    assert first["sums"] == pytest.approx(expected["sums"], rel=1e-3, abs=1e-3)


def test_all_processes_end_at_the_step_that_the_first_one_decides(done: Done) -> None:
    first, second = done.found("timed-on-2")
    assert first == second
    lines = read_log(done.folder("timed-on-2").log)
    assert [line["step"] for line in lines] == list(range(1, first[-1] + 1))
    assert [line[ENDS] for line in lines if ENDS in line][-1] == first[-1]


def test_other_images_are_refused_and_named(done: Done) -> None:
    first, second = done.found("differs")
    assert (first["status"], second["status"]) == (1, 1)
    assert "unmask: process 1 of 2" in first["said"]
    assert "differ from those of the first process (other names or sizes)" in first["said"]
    assert "Traceback" not in first["said"] + second["said"]
    assert second["said"] == ""


def test_a_batch_that_cannot_be_shared_is_refused(done: Done) -> None:
    first, second = done.found("odd")
    assert (first["status"], second["status"]) == (1, 1)
    assert "a batch of 9 images cannot be shared equally by 2 processes" in first["said"]
    assert "--batch-size 8 or 10" in first["said"]
    assert second["said"] == ""


def test_a_survivor_says_that_the_first_process_is_gone(done: Done) -> None:
    first, second = done.found("gone")
    assert first is None
    assert second["status"] == 1
    assert second["said"].startswith("unmask: process 1 of 2 (on ")
    assert "another process of this run has ended or does not answer" in second["said"]


@pytest.mark.parametrize(
    ("name", "words"), [("seen", "what the encoder sees"), ("scored", "Score: top-1")]
)
def test_the_first_process_alone_reports_and_tracks(done: Done, name: str, words: str) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed (extra: track)",
    )
    first, second = done.found(name)
    assert (first["status"], second["status"]) == (0, 0), first["said"] + second["said"]
    assert second["said"] == ""
    folder = done.folder(f"{name}-run")
    page = folder.report.read_text()
    assert page.rstrip().endswith("</html>")
    lines = read_log(folder.log)
    for part in (f"Finished: all {len(lines)} steps are done", "2 processes", words):
        assert part in words_of(page), part
    (events,) = (folder.root / "tensorboard").iterdir()
    tracked = accumulators.EventAccumulator(str(events)).Reload().Scalars("loss")
    assert tracked[-1].step == lines[-1]["step"]
    assert tracked[-1].value == pytest.approx(lines[-1]["loss"])
    assert len({one.step for one in tracked}) == len(tracked)
