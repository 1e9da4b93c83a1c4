"""Every member of every union goes through the commands: pretrain, evaluate and finetune, from the line typed to the last word.

The members are those of members.py, so that a new one is swept without being named here. A run takes several at a
time, one of each union.
"""

import pickle
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from rules import members
from rules.members import MEMBERS, UNIONS
from rules.test_members import aimed_at
from runs import tiny, tiny_transfer

from unmask.data.mixing import UNMIXED
from unmask.data.noise import NOISELESS
from unmask.data.views import AnyCrops
from unmask.recipes import Recipe, Transfer
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.spec import kinds
from unmask.training.logbook import read_log
from unmask.traits import Comparing, Hiding, Masked, Predicting

pytestmark = pytest.mark.usefixtures("small")

QUICK = ["--threads", "1", "--workers", "0"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six colour images."""
    return tiny.write_classes(tmp_path_factory.mktemp("commands") / "animals", count=6)


def in_file(recipe: Recipe | Transfer) -> str:
    """The recipe as `--recipe` takes it."""
    Path("mine.pickle").write_bytes(pickle.dumps(recipe))
    Path("mine.py").write_text(
        "import pickle\nfrom pathlib import Path\n"
        "MINE = pickle.loads(Path(__file__).with_suffix('.pickle').read_bytes())\n"
    )
    return "mine.py:MINE"


def turns(*unions: dict[str, Any]) -> list[tuple[str, ...]]:
    """Kinds, one of each union at a time, until all have had their turn."""
    longest = max(map(len, unions))
    return list(zip(*(islice(cycle(union), longest) for union in unions), strict=True))


def clipped(optimizer: Any, clipping: str) -> Any:
    """The optimizer with this clipping, if it has any."""
    if "clipping" not in {field.name for field in fields(optimizer)}:
        return optimizer
    return replace(optimizer, clipping=MEMBERS["clipping"][clipping])


def single_views() -> dict[str, Any]:
    """The views that need no objective of their own."""
    return {kind: MEMBERS["views"][kind] for kind in kinds(AnyCrops)}


REBUILDING = turns(
    MEMBERS["target"],
    MEMBERS["masking"],
    {" ".join(pair): pair for pair in members.encodings()},
    single_views(),
    MEMBERS["optimizer"],
    MEMBERS["clipping"],
    MEMBERS["blocks"],
)


@pytest.mark.parametrize("chosen", REBUILDING, ids="-".join)
def test_pretrain_with_every_part_of_a_masked_objective(
    unmask: Any, images: Path, chosen: tuple[str, ...]
) -> None:
    target, masking, pair, views, optimizer, clipping, blocks = chosen
    encoding, decoder = pair.split()
    objective = replace(
        aimed_at(images, "mae", target),
        masking=MEMBERS["masking"][masking],
        encoding=MEMBERS["encoding"][encoding],
        decoder=MEMBERS["decoder"][decoder],
    )
    recipe = replace(
        tiny.RECIPE,
        objective=objective,
        encoder=replace(MEMBERS["encoder"]["vit"], blocks=MEMBERS["blocks"][blocks]),
        views=MEMBERS["views"][views],
        optimizer=clipped(MEMBERS["optimizer"][optimizer], clipping),
        epochs=1.0,
    )
    said = unmask("pretrain", images, "--recipe", in_file(recipe), *QUICK, "--out", "run")
    assert "masking " in said
    check("run", recipe)


OTHERS = [kind for kind, member in MEMBERS["objective"].items()]


@pytest.mark.parametrize("kind", OTHERS)
def test_pretrain_and_evaluate_with_every_objective(unmask: Any, images: Path, kind: str) -> None:
    objective = MEMBERS["objective"][kind]
    recipe = replace(tiny.RECIPE, objective=objective, epochs=1.0, **members.suited(kind))
    said = unmask("pretrain", images, "--recipe", in_file(recipe), *QUICK, "--out", "run")
    headings = {Hiding: "masking ", Comparing: "views ", Predicting: "order "}
    heading = next(words for ability, words in headings.items() if isinstance(objective, ability))
    assert heading in said
    assert ("unmask reconstruct" in said) == isinstance(objective, Masked)
    check("run", recipe)
    assert "knn" in unmask("evaluate", "run", images, "--protocol", "knn", "--seeds", "1")
    again = unmask("pretrain", images, "--init", "run", "--recipe", "mine.py:MINE", *QUICK)
    assert "weights " in again


@pytest.mark.parametrize("sizes", MEMBERS["sizes"])
@pytest.mark.parametrize("encoder", MEMBERS["encoder"])
def test_pretrain_with_every_encoder_and_schedule_of_sizes(
    unmask: Any, images: Path, encoder: str, sizes: str
) -> None:
    parts = {"encoder": MEMBERS["encoder"][encoder], "sizes": MEMBERS["sizes"][sizes]}
    recipe = replace(tiny.RECIPE, epochs=2.0, **parts)
    unmask("pretrain", images, "--recipe", in_file(recipe), *QUICK, "--out", "run")
    check("run", recipe)


TUNING = turns(
    MEMBERS["head"],
    single_views(),
    MEMBERS["optimizer"],
    MEMBERS["clipping"],
    MEMBERS["blocks"],
    members.of_whole_images(),
)


@pytest.mark.parametrize("calm", [True, False], ids=["calm", "mixed"])
@pytest.mark.parametrize("chosen", TUNING, ids="-".join)
def test_finetune_with_every_part(
    unmask: Any, images: Path, chosen: tuple[str, ...], calm: bool
) -> None:
    """Calm: neither mixing nor noise nor an average of weights; else all of them."""
    head, views, optimizer, clipping, blocks, task = chosen
    spec = replace(MEMBERS["task"][task], head=MEMBERS["head"][head])
    recipe = replace(
        tiny_transfer.TRANSFER,
        encoder=replace(MEMBERS["encoder"]["vit"], blocks=MEMBERS["blocks"][blocks]),
        task=replace(spec, weight_average=0.0 if calm else 0.5),
        views=MEMBERS["views"][views],
        optimizer=clipped(MEMBERS["optimizer"][optimizer], clipping),
        mixing=UNMIXED if calm else tiny_transfer.TRANSFER.mixing,
        noise=NOISELESS if calm else tiny_transfer.TRANSFER.noise,
        epochs=1.0,
    )
    several = labelled_twice(images) if task == "multi-label" else []
    said = unmask(
        *("finetune", "scratch", images, "--recipe", in_file(recipe), *QUICK, "--out", "run"),
        *several,
    )
    assert ("mAP" if several else "top-1") in said
    log = read_log(RunFolder("run").log)
    assert torch.tensor([line["loss"] for line in log]).isfinite().all()
    assert Run.read(RunFolder("run"), "finetune").recipe.task == recipe.task


def labelled_twice(images: Path) -> list[str]:
    """The flag of a labels file in which every image has its folder's class, and every third another one."""
    rows = ["file_name,label"]
    for number, file in enumerate(sorted(images.rglob("*.png"))):
        more = ";furry" if number % 3 == 0 else ""
        rows.append(f"{file.relative_to(images)},{file.parent.name}{more}")
    Path("labels.csv").write_text("\n".join(rows) + "\n")
    return ["--labels-file", "labels.csv"]


@pytest.mark.parametrize("views", MEMBERS["task views"])
def test_finetune_tests_on_every_view(unmask: Any, images: Path, views: str) -> None:
    recipe = replace(tiny_transfer.TRANSFER, test_views=MEMBERS["task views"][views], epochs=0.5)
    unmask("finetune", "scratch", images, "--recipe", in_file(recipe), *QUICK, "--out", "run")


def check(folder: str, recipe: Recipe) -> None:
    """The run in the folder is of this recipe (but for a shorter warm-up), finished, with finite losses."""
    run = Run.read(RunFolder(folder), "pretrain")
    assert run.recipe.objective == recipe.objective
    assert run.recipe.views == recipe.views
    log = read_log(RunFolder(folder).log)
    assert log[-1]["step"] == run.steps
    assert torch.tensor([line["loss"] for line in log]).isfinite().all()


def test_every_union_of_a_recipe_is_swept() -> None:
    """A union that a recipe gains, or one of its parts, must be given its turn above."""
    swept = {
        "masking", "target", "encoder", "blocks", "encoding", "decoder", "objective", "task", "head", "task views",
        "views", "sizes", "optimizer", "clipping", "map head", "norms",
    }  # fmt: skip
    assert UNIONS.keys() == swept | {"source"}
    known = [set(kinds(union)) for union in UNIONS.values()]
    for recipe in (Recipe, Transfer):
        for union in unions_below(recipe):
            assert any(union <= each for each in known), union


def unions_below(cls: type) -> Iterator[set[str]]:
    """The kinds of every union in the fields of a spec, or of its parts."""
    for hint in get_type_hints(cls, include_extras=True).values():
        found = kinds(hint)
        if found:
            yield set(found)
        for member in [*found.values(), *get_args(hint), hint]:
            if isinstance(member, type) and hasattr(member, "__dataclass_fields__"):
                yield from unions_below(member)
