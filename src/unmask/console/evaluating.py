"""What `unmask evaluate` is asked: its flags, and the questions that they make."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unmask.console.hardware import Threads
from unmask.console.judging import EvaluationRequest
from unmask.console.on_map import Known
from unmask.console.place_scores import PlacesRequest
from unmask.errors import SettingsError
from unmask.evaluation.frozen import Control
from unmask.evaluation.protocols import Question
from unmask.spec import within
from unmask.training.hardware import find_device

SEEDS = 3
"""Draws, if a number is not given."""

Named = Literal[
    "knn", "logistic", "linear", "attentive", "partial", "finetune", "ladder", "capi-knn", "capi-logistic",
]  # fmt: skip
"""The protocols for whole images, and those for class maps."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask evaluate`."""

    run: tyro.conf.Positional[str | None] = None
    """A run, or weights of unmask, a published MAE, timm or transformers."""

    data: tyro.conf.Positional[str | None] = None
    """Labelled images: class folders (in train/ and test/ or val/), pictures with class maps, or digits."""

    protocol: Named = "knn"
    """On frozen features: knn (cosine, k = 20, temperature 0.07), logistic (on scaled features), linear
    (the paper's probe), attentive (a learned query over patch tokens). Trained: partial (the last block),
    finetune (everything), ladder (0, half, 1, 2, 4, ... all blocks). Of pictures with class maps, on frozen patch
    features: knn, linear, capi-knn, capi-logistic."""

    labels: str = "all"
    """Labels of each class to learn from: numbers, percentages, or all, such as 1,5,10%,all."""

    seeds: int = SEEDS
    """Repetitions with other random draws of labels and weights; one if a protocol draws nothing."""

    control: Control = "auto"
    """Baselines: auto (for frozen features, the same encoder with random weights, and raw pixels), random (random
    weights), scratch (all blocks trained from random weights), both, or none. scratch takes as many steps as
    fine-tuning."""

    vectors: Literal["default", "plain"] = "default"
    """For knn: default also scores centred and PCA-whitened vectors, fitted on the training images, and
    stores the fit with the run; plain scores vectors as they are."""

    augment: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For linear and attentive: other crops and flips pass the frozen encoder at every step, as in the
    paper, instead of fixed features. Slow."""

    corrupt: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Score fine-tuned runs, or encoders by knn, on test pictures with noise, blur, weather and compression: fifteen
    corruptions at five severities."""

    encoders: str | None = None
    """Several encoders, A,B,C, in place of one or beside it: a table of method against model size."""

    recipe: str | None = None
    """Recipe of trained protocols, or FILE.py:NAME, which runs that file; chosen if not given."""

    epochs: float | None = None
    """Epochs of trained protocols; the recipe's if not given."""

    out: str | None = None
    """Where to write the figures as JSON, and a picture beside it; in the run's folder `evaluations` if not
    given, or in one here for other weights."""

    data_kind: str | None = None
    """Format of DATA (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    ignore: str | None = None
    """Values of class maps that are neither learned nor scored, such as 0,255; 255 if not given."""

    labels_file: str | None = None
    """A CSV, Parquet or JSON lines file with a column file_name and the classes of each image (a name, a
    number, a;b, or a column of 0 and 1 for each class), in place of class folders; as in finetune if not
    given."""

    queries: str | None = None
    """For PLACES, the vectors of a map, in place of a run: a CSV of pictures with file_name, and latitude and longitude
    or x and y on the map; heading, ground_size and height are used if they are there."""

    ground_size: float | None = None
    """With --queries: width of the pictures on the ground, in metres."""

    fov: float | None = None
    """With --queries: field of view across the pictures' width, in degrees, for those with a height."""

    headings: Literal["auto", "none"] = "auto"
    """With --queries: none tries all directions, whatever the file says."""

    seed: int = 0
    """Seed of the split, where the data have none; the first of the draws."""

    device: str = "auto"
    """cpu, cuda (or gpu), cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print scores as JSON."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "epochs", "ground_size")
        within(self, "(0, 180)", "fov")
        within(self, "[1, inf)", "seeds", "threads")


WITH_QUERIES = ("ground_size", "fov", "headings")
_OF_PLACES = (
    *WITH_QUERIES,
    "run",
    "data",
    "queries",
    "control",
    "out",
    "device",
    "threads",
    "json",
)


def refuse(args: Arguments, why: str, is_wrong: Callable[[str], bool]) -> None:
    """Raises SettingsError if a flag is given that would change nothing."""
    if flag := given(args, is_wrong):
        raise SettingsError(f"{flag} {why}; leave it out, or see --help")


def given(args: Arguments, is_asked: Callable[[str], bool]) -> str | None:
    """The first of some flags that is not as it is by default."""
    for field in fields(args):
        if is_asked(field.name) and getattr(args, field.name) != field.default:
            return f"--{field.name.replace('_', '-')}"
    return None


def places_request(args: Arguments) -> PlacesRequest:
    """What the flags ask of the vectors of a map."""
    if args.run is None or args.data is not None:
        raise SettingsError(
            "--queries needs the vectors of a map alone: `unmask evaluate PLACES --queries QUERIES.csv`"
        )
    refuse(args, "has no meaning with --queries", lambda name: name not in _OF_PLACES)
    if args.control not in ("auto", "none"):
        raise SettingsError(
            f"--control {args.control} has no meaning with --queries; auto scores an untrained encoder, raw pixels and chance, none "
            "scores chance alone"
        )
    if args.ground_size is not None and args.fov is not None:
        raise SettingsError(
            "--ground-size says how wide the pictures are, and so does --fov; leave out one of the two"
        )
    return PlacesRequest(
        places=args.run,
        queries=str(args.queries),
        known=Known(args.ground_size, None, args.fov),
        headings=args.headings == "auto",
        controls=args.control != "none",
        device=str(find_device(args.device)),
        out=args.out,
        json=args.json,
    )


def request_of(args: Arguments, data: str) -> EvaluationRequest:
    """What the flags ask for."""
    protocol = args.protocol
    if protocol == "capi-knn" or protocol == "capi-logistic":
        raise SettingsError(
            f"--protocol {protocol} is for pictures with class maps, and {data} has none; for whole images take knn"
        )
    question = Question(
        protocol=protocol,
        labels=tuple(args.labels.split(",")),
        seeds=args.seeds,
        seed=args.seed,
        control=args.control,
        vectors=args.vectors,
    )
    return EvaluationRequest(
        question=question,
        data=data,
        recipe=args.recipe,
        epochs=args.epochs,
        augment=args.augment,
        data_kind=args.data_kind,
        labels_file=args.labels_file,
        device=args.device,
    )


def words_of(args: Arguments) -> tuple[list[str], str]:
    """The encoders, and the images."""
    words = [word for word in (args.run, args.data) if word is not None]
    several = [name.strip() for name in (args.encoders or "").split(",") if name.strip()]
    if len(words) + min(1, len(several)) < 2:
        raise SettingsError(
            "which encoder, and which images? `unmask evaluate runs/NAME FOLDER`, or `unmask evaluate FOLDER "
            "--encoders runs/A,runs/B`; FOLDER holds a folder for each class"
        )
    paths = [*words[:-1], *several]
    if len(set(paths)) < len(paths):
        raise SettingsError(f"an encoder is named twice: {', '.join(paths)}")
    return paths, words[-1]


def name_of(args: Arguments, data: str) -> str:
    """What the files of an answer are called: by all that changes the question."""
    words = [
        "corrupted" if args.corrupt else args.protocol,
        Path(data).resolve().name if data != "digits" else data,
    ]
    if args.augment:
        words.append("augmented")
    if args.labels != "all":
        words.append(args.labels.replace(",", "-").replace("%", "pct"))
    if args.control != "auto":
        words.append(args.control)
    if args.vectors != "default":
        words.append(args.vectors)
    if args.recipe:
        words.append(Path(args.recipe.rpartition(":")[2]).name)
    if args.epochs:
        words.append(f"{args.epochs:g}ep")
    return "-".join(words)
