"""Every member of every union keeps the contract: JSON, a finite loss, exact resumption."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import problems
from rules import members
from rules.members import MEMBERS, UNIONS
from runs import tiny
from torch import nn
from torch.nn import functional as F

from unmask.annotations import Objects
from unmask.contracts import Batch, Size, StepReport
from unmask.masks import PatchMask
from unmask.objectives import MAE
from unmask.randomness import seeded
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.spec import from_json, kinds, to_json
from unmask.targets import DalleCodes, TokenizerCodes
from unmask.tasks import Detect, MultiLabel, Segment
from unmask.training import checkpoint
from unmask.training.checkpoint import COMPANIONS
from unmask.training.loop import Planned, train
from unmask.training.optimizers import AdamW

SIZE = tiny.RECIPE.image_size


@pytest.mark.parametrize("union", UNIONS)
def test_every_registered_kind_is_tried_here(union: str) -> None:
    """A new kind needs a line in members.py; then all the sweeps below run over it."""
    registered = kinds(UNIONS[union])
    assert registered
    assert {name: type(member) for name, member in MEMBERS[union].items()} == registered


@pytest.mark.parametrize(("union", "kind"), members.pairs())
def test_goes_to_json_and_back(union: str, kind: str) -> None:
    member = MEMBERS[union][kind]
    text = json.dumps(to_json(member))
    assert from_json(type(member), json.loads(text)) == member


@pytest.fixture(autouse=True)
def _fit_to_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fitted to is the matter of test_fitting.py; here a few hundred images do."""
    monkeypatch.setattr("unmask.runs.target._MOST_IMAGES", 256)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("members") / "images")


def run_with(images: Path, **parts: Any) -> Run:
    return tiny.make_run(images, recipe=replace(tiny.RECIPE, **parts))


def run_of(images: Path, objective: str, target: str, masking: str) -> Run:
    """A run of one combination of kinds."""
    spec = aimed_at(images, objective, target)
    return run_with(images, objective=replace(spec, masking=MEMBERS["masking"][masking]))


def aimed_at(images: Path, objective: str, target: str) -> Any:
    """An objective of a kind with a target of a kind; a tokenizer is written where it is asked for."""
    wanted = MEMBERS["target"][target]
    if isinstance(wanted, TokenizerCodes):
        where = tiny.write_tokenizer(images.parent / wanted.path, images, wanted.tokenizer)
        wanted = replace(wanted, path=str(where))
    if isinstance(wanted, DalleCodes):
        where = tiny.write_dalle(images.parent / wanted.path, wanted)
        wanted = replace(wanted, path=str(where))
    return replace(MEMBERS["objective"][objective], target=wanted)


PARTS = ["encoder", "views", "sizes", "optimizer"]


@pytest.mark.parametrize(
    ("part", "kind"), [(part, kind) for part in PARTS for kind in MEMBERS[part]]
)
def test_every_part_of_a_recipe_trains_and_is_named_in_the_spec(
    images: Path, tmp_path: Path, part: str, kind: str
) -> None:
    run = run_with(images, **{part: MEMBERS[part][kind]}, **members.suited(kind))
    folder = RunFolder(tmp_path / "run")
    folder.create(run)
    assert json.loads(folder.spec.read_text())["job"]["recipe"][part]["kind"] == kind
    assert Run.read(folder, "pretrain") == run
    for progress in tiny.go_on(folder):
        for line in progress.lines:
            assert torch.tensor(line["loss"]).isfinite()


@pytest.mark.parametrize(("encoding", "decoder"), members.encodings())
def test_every_decoder_guesses_every_hidden_patch(
    images: Path, encoding: str, decoder: str
) -> None:
    run = run_with(images, objective=encoded_by(encoding, decoder))
    assert from_json(Run, json.loads(json.dumps(to_json(run)))) == run
    objective = run.build()
    loss = objective(members.batch_of(0), torch.Generator().manual_seed(0))
    assert loss.total.isfinite()
    loss.total.backward()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", MEMBERS["masking"])
@pytest.mark.parametrize("grid", [Size(4, 4), Size(6, 10), Size(14, 14)])
def test_every_masking_hides_the_same_count_in_every_image(kind: str, grid: Size) -> None:
    mask = MEMBERS["masking"][kind].sample(7, grid, torch.Generator().manual_seed(1))
    counts = mask.removed.sum(1)
    assert 0 < counts[0] < grid.height * grid.width
    assert (counts == counts[0]).all()
    both = torch.cat([mask.kept_index, mask.removed_index], dim=1).sort(dim=1).values
    assert (both == torch.arange(grid.height * grid.width)).all()
    assert mask.removed.gather(1, mask.removed_index).all()
    assert not mask.removed.gather(1, mask.kept_index).any()


@pytest.mark.parametrize("kind", MEMBERS["masking"])
def test_every_masking_gives_hidden_patches_in_random_order(kind: str) -> None:
    """So that the first of them are a fair part: each, when hidden, is among them as often as any other."""
    grid, random = Size(8, 8), torch.Generator().manual_seed(3)
    mask = MEMBERS["masking"][kind].sample(3000, grid, random)
    first = mask.removed_index[:, : mask.removed_index.shape[1] // 3]
    hidden = mask.removed.sum(0)
    chosen = torch.bincount(first.flatten(), minlength=64)
    share = first.shape[1] / mask.removed_index.shape[1]
    often = hidden > 100
    spread = (share * (1 - share) / hidden[often]).sqrt()
    assert ((chosen[often] / hidden[often] - share).abs() < 5 * spread).all()


@pytest.mark.parametrize("blocks", MEMBERS["blocks"])
@pytest.mark.parametrize("masking", MEMBERS["masking"])
def test_hidden_pixels_cannot_reach_any_encoder(blocks: str, masking: str) -> None:
    encoder = members.tiny_encoder(blocks)
    images = members.batch_of(0).images
    mask = MEMBERS["masking"][masking].sample(
        len(images), encoder.mask_grid(SIZE), torch.Generator().manual_seed(2)
    )
    hidden = hidden_pixels(mask, encoder.patch_size)
    of_rows = images[mask.image]
    changed = torch.where(hidden, 255 - of_rows, of_rows)
    assert not changed.equal(of_rows)
    every = range(len(encoder.blocks))
    alone = mask._replace(image=torch.arange(len(mask.image)))  # each row has an image of its own
    ours = encoder.encode_visible(images, mask, every)
    theirs = encoder.encode_visible(changed, alone, every)
    for one, other in zip((*ours[:2], *ours.taps), (*theirs[:2], *theirs.taps), strict=True):
        assert one.equal(other)
    token = torch.ones(1, 1, encoder.embed_dim)
    ours = encoder.encode_replaced(images, mask, token, every)
    theirs = encoder.encode_replaced(changed, alone, token, every)
    for one, other in zip((*ours[:2], *ours.taps), (*theirs[:2], *theirs.taps), strict=True):
        assert one.equal(other)


def hidden_pixels(mask: PatchMask, patch_size: int) -> torch.Tensor:
    """Which pixels are hidden, [m 1 h w]."""
    rows = mask.removed.reshape(-1, 1, SIZE.height // patch_size, SIZE.width // patch_size)
    return rows.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)


@pytest.mark.parametrize(
    ("objective", "target", "masking"), members.some_fast(members.masked_objectives())
)
def test_every_masked_objective_resumes_bit_for_bit(
    images: Path, tmp_path: Path, objective: str, target: str, masking: str
) -> None:
    check_resumption(run_of(images, objective, target, masking), tmp_path)


@pytest.mark.parametrize(
    ("objective", "target"), members.first_fast(members.next_patch_objectives())
)
def test_every_next_patch_objective_resumes_bit_for_bit(
    images: Path, tmp_path: Path, objective: str, target: str
) -> None:
    run = run_with(images, objective=aimed_at(images, objective, target))
    check_resumption(run, tmp_path)


@pytest.mark.parametrize(("objective", "masking"), members.first_fast(members.latent_objectives()))
def test_every_latent_objective_resumes_bit_for_bit(
    images: Path, tmp_path: Path, objective: str, masking: str
) -> None:
    """With its teacher."""
    spec = replace(MEMBERS["objective"][objective], masking=MEMBERS["masking"][masking])
    check_resumption(run_with(images, objective=spec), tmp_path)
    assert COMPANIONS in tiny.newest(RunFolder(tmp_path / "whole")).info.checksums


@pytest.mark.parametrize(("encoding", "decoder"), members.encodings())
def test_every_encoding_resumes_bit_for_bit(
    images: Path, tmp_path: Path, encoding: str, decoder: str
) -> None:
    check_resumption(run_with(images, objective=encoded_by(encoding, decoder)), tmp_path)


@pytest.mark.parametrize("blocks", MEMBERS["blocks"])
def test_every_kind_of_block_resumes_bit_for_bit(images: Path, tmp_path: Path, blocks: str) -> None:
    encoder = replace(MEMBERS["encoder"]["vit"], blocks=MEMBERS["blocks"][blocks])
    check_resumption(run_with(images, encoder=encoder), tmp_path)


def test_every_encoding_and_decoder_is_in_some_combination() -> None:
    pairs = members.encodings()
    assert {encoding for encoding, _ in pairs} == MEMBERS["encoding"].keys()
    assert {decoder for _, decoder in pairs} == MEMBERS["decoder"].keys()


def encoded_by(encoding: str, decoder: str) -> MAE:
    """The tiny MAE with another encoding and decoder."""
    return replace(
        MEMBERS["objective"]["mae"],
        encoding=MEMBERS["encoding"][encoding],
        decoder=MEMBERS["decoder"][decoder],
    )


@pytest.mark.parametrize(
    "clipping",
    [n if n == "each" else pytest.param(n, marks=pytest.mark.slow) for n in MEMBERS["clipping"]],
)
@pytest.mark.parametrize("objective", members.comparing_objectives())
def test_every_comparing_objective_resumes_bit_for_bit(
    images: Path, tmp_path: Path, objective: str, clipping: str
) -> None:
    """With its teacher, and an optimizer whose weight decay changes."""
    optimizer = AdamW(last_weight_decay=0.4, clipping=MEMBERS["clipping"][clipping])
    spec = MEMBERS["objective"][objective]
    run = run_with(images, objective=spec, optimizer=optimizer, **members.suited(objective))
    check_resumption(run, tmp_path)
    saved = tiny.newest(RunFolder(tmp_path / "whole"))
    assert COMPANIONS in saved.info.checksums
    assert not saved.read("model").keys() & saved.read(COMPANIONS).keys()


def check_resumption(run: Run, tmp_path: Path) -> None:
    """6 steps are 3, a save, a load and 3: weights, optimizer and log."""
    assert run.steps == 6
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    whole.create(run)
    halves.create(run)
    tiny.finish(whole)
    for _ in range(3):
        tiny.one_step(halves)
    tiny.finish(halves)
    assert len({line["loss"] for line in tiny.timeless(whole)}) == 6
    tiny.assert_same_end(whole, halves)


TASKS = [
    (kind, head, optimizer)
    for kind in MEMBERS["task"]
    for head in members.heads_of(kind)
    for optimizer in MEMBERS["optimizer"]
]


@pytest.mark.parametrize("kind", TASKS, ids="-".join)
def test_every_task_resumes_bit_for_bit(tmp_path: Path, kind: tuple[str, str, str]) -> None:
    whole, optimizer = new_task(kind)
    losses = [report.loss.item() for report in steps_of(whole, optimizer, 0, 6)]
    assert torch.tensor(losses).isfinite().all()
    assert len(set(losses)) > 3  # a head that starts near zero learns slowly under LARS

    first, its_optimizer = new_task(kind)
    early = [report.loss.item() for report in steps_of(first, its_optimizer, 0, 3)]
    parts = {
        "model": first.state_dict(),
        "training/optimizer": checkpoint.optimizer_tensors(its_optimizer, first),
    }
    checkpoint.Saving(tmp_path, parts, step=3, images_seen=12, spec_hash="", metadata={}).finish()

    second, new_optimizer = new_task(kind, seed=1)
    found, _ = checkpoint.newest(tmp_path)
    assert found is not None
    second.load_state_dict(found.read("model"))
    checkpoint.restore_optimizer(new_optimizer, second, found.read("training/optimizer"))
    late = [report.loss.item() for report in steps_of(second, new_optimizer, 3, 6)]

    assert early + late == losses
    tiny.assert_same_tensors(second.state_dict(), whole.state_dict())
    tiny.assert_same_tensors(
        checkpoint.optimizer_tensors(new_optimizer, second),
        checkpoint.optimizer_tensors(optimizer, whole),
    )


def new_task(kind: tuple[str, str, str], seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    task, head, optimizer = kind
    spec, chosen = MEMBERS["task"][task], members.heads_of(task)[head]
    spec = spec if chosen is None else replace(spec, head=chosen)
    with seeded("weights", seed):
        names = problems.classes(members.CLASSES).names
        more = {"masks": True} if head == "masks" else {}
        module = spec.build(members.tiny_encoder(), spec.needs(names=names, **more))
    return module.train(), MEMBERS["optimizer"][optimizer].build(module)


def steps_of(
    task: Any, optimizer: torch.optim.Optimizer, first: int, last: int
) -> Iterator[StepReport]:
    """Steps of the loop that all trainables share."""

    def batches() -> Iterator[Batch]:
        for step in range(first, last):
            batch = members.batch_of(step)
            if isinstance(task.task, MultiLabel):  # the classes of an image, as 0 and 1
                several = F.one_hot(batch.annotations, members.CLASSES).float()
                batch = batch._replace(annotations=several)
            if isinstance(task.task, Segment):  # the class of each pixel, by its first channel
                batch = batch._replace(annotations=batch.images[:, 0].long() % members.CLASSES)
            if isinstance(task.task, Detect):  # one object in each image
                boxes, mask = (
                    torch.tensor([[1.0, 2, 6, 7]]),
                    torch.zeros(1, *SIZE, dtype=torch.bool),
                )
                mask[:, 2:7, 1:6] = True
                masks = mask if task.masks else None
                objects = tuple(Objects(boxes, one[None], masks) for one in batch.annotations)
                batch = batch._replace(annotations=objects)
            yield batch

    return train(
        task,
        batches(),
        optimizer,
        Planned(last, lambda step: 0.01 / (1 + step)),
        first_step=first,
        seed=0,
        device=torch.device("cpu"),
        precision="float32",
        micro_batch=2,
    )
