"""`unmask compare DATA`: compare ways to pretrain the same encoder on your images."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from unmask.console.arguments import parse
from unmask.console.hardware import MachineFlags
from unmask.console.labels import labelled_source
from unmask.console.studies import (
    checked_budget,
    conduct,
    make_folder,
    measured_costs,
    setting_of,
    with_kept_threads,
)
from unmask.contracts import Size
from unmask.errors import SettingsError, typed
from unmask.spec import within
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
    """Labelled images: a folder of class folders (train/ and test/ are used if present), or digits."""

    methods: str = "mae,dino,moco3,beit,aim,scratch"
    """Methods: mae, dino, moco3, beit, simmim, aim, latent, scratch, and MAE's variants fast, budget, dense,
    partition and muon. All are compared with the first."""

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
    comparison = Comparison(
        methods=_listed(args.methods),
        encoders=_listed(args.encoders),
        labels=_listed(args.labels),
        epochs=args.epochs,
        image_size=None if args.image_size is None else Size.parse(args.image_size),
    )
    study = comparison.study()
    trials = study.trials(TINY.base)
    root = make_folder(args.out)
    batch_size = max(trial.recipe.batch_size for trial in trials.values())
    source = labelled_source(args.data, args.data_kind, args.labels_file)
    machine = with_kept_threads(args.machine, root)
    setting = setting_of(source, args.images, machine, batch_size)
    measured = measured_costs(
        "comparison",
        trainings(trials),
        setting.statistics,
        setting.hardware,
        root,
        rounds=_ROUNDS,
    )
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
            f"{args.tuning_steps:,} steps of fine-tuning, batches of at most {batch_size}. {_CLOSING}",
        ),
    )
    return conduct(plan, setting, budget, typed("compare", *arguments))


def _listed(words: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in words.split(",") if word.strip())
    if not names:
        raise SettingsError(
            f"--methods and --encoders need at least one name each; methods: {', '.join(METHODS)}"
        )
    return names
