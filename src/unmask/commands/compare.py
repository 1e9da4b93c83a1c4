"""`unmask compare DATA`: compare ways to pretrain the same encoder on your images."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from unmask.asked import divided, hub_name
from unmask.console.arguments import parse
from unmask.console.hardware import MachineFlags
from unmask.console.labels import labelled_source
from unmask.console.output import console
from unmask.console.studies import (
    checked_budget,
    conduct,
    make_folder,
    measured_costs,
    setting_of,
    with_kept_threads,
)
from unmask.contracts import Size
from unmask.data.kinds import ignoring
from unmask.errors import SettingsError, typed
from unmask.formats.model import ModelSpec
from unmask.runs.weights import find_weights
from unmask.spec import within
from unmask.study.cost import StepCost
from unmask.study.dense import base_for, check_built, study_for
from unmask.study.methods import METHODS, Comparison, Equal, equalised, of_steps
from unmask.study.plan import Plan
from unmask.study.study import TINY, trainings

_ROUNDS = 5
_CLOSING = (
    "What this shows: which encoder is best for these images and labels after this much pretraining on this machine. Each "
    "method keeps its published settings, except for batch, epochs and warm-up. What it does not show: the result after ten "
    "times as much training, at another size, or with tuned settings. Contrastive methods need large batches and many "
    "epochs, and masked methods keep improving for longest."
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask compare`."""

    data: tyro.conf.Positional[str | None] = None
    """Labelled images: a folder of class folders (train/ and test/ are used if present), pictures with class maps or boxes
    (then the measure is mIoU, box AP or mask AP), or digits."""

    methods: str = "mae,dino,moco3,beit,aim,scratch"
    """Methods: mae, dino, moco3, beit, simmim, aim, latent, scratch, and MAE's variants fast, budget, dense,
    partition and muon; or runs and weights, which are scored as they are. All are compared with the first."""

    encoders: str = "xs4"
    """Encoders: a shape (xs, ti, s, b) and a patch size, such as xs4,ti4 for small images, ti16,s16 for photographs."""

    equal: Equal = "time"
    """What is equal for all methods: epochs, compute (FLOPs), or time on this machine."""

    epochs: float = 10.0
    """Pretraining epochs of the first method."""

    labels: str = "all"
    """Training labels per class, such as 1%,10%,all."""

    images: int | None = None
    """Number of training images, the same share of every class; all if not given."""

    image_size: str | None = None
    """Size of a crop in pixels; set by the recipes if not given."""

    tuning_steps: int = 1000
    """Steps of each fine-tuning."""

    budget: str | None = None
    """Time for all remaining runs, such as 90min or 4h, or a share of the epochs, such as 50%."""

    seeds: int = 3
    """Runs of each method; with one, results are shown without conclusions."""

    out: str = "runs/comparison"
    """Folder of table and runs."""

    data_kind: str | None = None
    """Format of DATA (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    ignore: str | None = None
    """Values of class maps that are neither learned nor scored, such as 0,255; 255 if not given."""

    labels_file: str | None = None
    """A CSV, Parquet or JSON lines file with a column file_name and the class of each image, in place of class
    folders; as in finetune if not given."""

    machine: Annotated[MachineFlags, tyro.conf.arg(name="")] = MachineFlags()
    """How to compute."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "epochs")
        within(self, "[1, inf)", "images", "tuning_steps", "seeds")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "compare")
    if args.data is None:
        raise SettingsError(
            "which images? `unmask compare FOLDER`; FOLDER holds one folder of images per class"
        )
    seeds, budget = range(args.seeds), checked_budget(args.budget)
    methods = _listed(args.methods)
    comparison = Comparison(
        methods=methods,
        encoders=_listed(args.encoders),
        labels=_listed(args.labels),
        epochs=args.epochs,
        image_size=None if args.image_size is None else Size.parse(args.image_size),
        given=_given(methods),
    )
    study = comparison.study()
    trials = study.trials(TINY.base)  # says what is impossible before images are read
    root = make_folder(args.out)
    batch_size = max(trial.recipe.batch_size for trial in trials.values())
    source = labelled_source(args.data, args.data_kind, args.labels_file)
    source = ignoring(source, args.ignore)
    machine = with_kept_threads(args.machine, root)
    setting = setting_of(source, args.images, machine, batch_size)
    train = setting.labelled.train
    study = study_for(study, train.annotations)
    trials = study.trials(base_for(TINY.base, train.annotations, len(train)))
    check_built(trials, setting)
    recipes = trainings(trials)
    measured: dict[str, StepCost] = {}
    if recipes:
        measured = measured_costs(
            "comparison", recipes, setting.statistics, setting.hardware, root, rounds=_ROUNDS
        )
    study = replace(study, timed=bool(recipes))
    trials = equalised(
        study, of_steps(trials, setting.labelled, args.tuning_steps), measured, args.equal
    )
    plan = Plan(
        study=study,
        name="comparison",
        trials=trials,
        costs=measured,
        seeds=seeds,
        root=root,
        words=(
            f"Encoders {args.encoders}; equal {args.equal}: {args.epochs:g} epochs of {comparison.methods[0]}, "
            f"{args.tuning_steps:,} steps of fine-tuning, batches of at most {batch_size}. {_CLOSING}"
            if recipes
            else f"{args.tuning_steps:,} steps of fine-tuning for all.",
        ),
    )
    return conduct(plan, setting, budget, typed("compare", *arguments))


def _given(methods: tuple[str, ...]) -> dict[str, ModelSpec]:
    """The encoders of the runs and weights among the methods, by their paths."""
    paths = [name for name in methods if name not in METHODS and _is_weights(name)]
    given: dict[str, ModelSpec] = {}
    for path in paths:
        weights = find_weights(path)
        for line in (*weights.damaged, *weights.weights.notes):
            console.print(f"{path}: {line}")
        given[path] = weights.weights.spec
    return given


def _is_weights(name: str) -> bool:
    return hub_name(name) is not None or divided(Path(name))[0].exists()


def _listed(words: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in words.split(",") if word.strip())
    if not names:
        raise SettingsError(
            f"--methods and --encoders need at least one name each; methods: {', '.join(METHODS)}"
        )
    return names
