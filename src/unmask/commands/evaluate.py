"""`unmask evaluate ENCODER DATA --protocol knn`: how good an encoder is, by one of seven protocols."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unmask.console.arguments import parse
from unmask.console.comparison import comparison_tables, say_comparison, write_comparison
from unmask.console.hardware import Threads, use_threads
from unmask.console.judged import Evaluation, Judged
from unmask.console.judging import EvaluationRequest, all_judged
from unmask.console.judging_dense import evaluate_dense, finish_dense, say_dense_verdicts
from unmask.console.on_map import Known
from unmask.console.output import check_writable, console, notes
from unmask.console.place_scores import PlacesRequest, evaluate_places
from unmask.console.robustness import evaluate_corrupted
from unmask.console.scores import (
    place_of_scores,
    say_scores,
    say_verdicts,
    write_fitted,
    write_scores,
)
from unmask.console.wrong_calls import explained
from unmask.data.kinds import as_source, find_source, ignoring, kind_of
from unmask.errors import SettingsError, typed
from unmask.evaluation.frozen import Control
from unmask.evaluation.protocols import (
    Protocol,
    Question,
)
from unmask.recipes import Transfer
from unmask.report.again import write_again
from unmask.runs.batches import Images
from unmask.runs.folder import RunFolder
from unmask.spec import within
from unmask.training.hardware import find_device

_SEEDS = 3

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

    seeds: int = _SEEDS
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


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "evaluate")
    use_threads(args.threads)
    if args.queries is not None:
        if args.corrupt:
            raise SettingsError(
                "--corrupt is for pictures with classes; leave it out, or leave out --queries"
            )
        return evaluate_places(_places_request(args))
    _refuse(args, "needs --queries QUERIES.csv", lambda name: name in _WITH_QUERIES)
    paths, data = _words(args)
    path = Path(args.out) if args.out else place_of_scores(paths, _name(args, data))
    check_writable(path)
    if (args.data_kind or kind_of(data)) == "maps":
        if args.corrupt:
            raise SettingsError(
                f"--corrupt is for pictures with one class each, and {data} has class maps"
            )
        return _dense(args, paths, data, path, typed("evaluate", *arguments))
    if args.ignore is not None:
        ignoring(find_source(data, args.data_kind), args.ignore)  # says what it is for
    if args.corrupt:
        return _corrupted(args, paths, data, path, typed("evaluate", *arguments))
    judged = all_judged(paths, _request(args, data))
    judged = [one._replace(command=typed("evaluate", *arguments)) for one in judged]

    # scores are printed first, in case they cannot be written
    if args.json:
        results = [one.result() for one in judged]
        print(json.dumps({"encoders": results} if len(judged) > 1 else results[0], indent=1))
    else:
        _say(judged)

    written = write_comparison(judged, path) if len(judged) > 1 else write_scores(judged[0], path)
    written += [path for one in judged for path in write_fitted(one)]
    written += _report(paths, path)
    if not args.json:
        for each in written:
            console.print(f"written: {each}")
        say_verdicts(judged)
    return 0


_WITH_QUERIES = ("ground_size", "fov", "headings")
_OF_PLACES = (
    *_WITH_QUERIES,
    "run",
    "data",
    "queries",
    "control",
    "out",
    "device",
    "threads",
    "json",
)


def _refuse(args: Arguments, why: str, is_wrong: Callable[[str], bool]) -> None:
    """Raises SettingsError if a flag is given that would change nothing."""
    if flag := _given(args, is_wrong):
        raise SettingsError(f"{flag} {why}; leave it out, or see --help")


def _given(args: Arguments, is_asked: Callable[[str], bool]) -> str | None:
    """The first of some flags that is not as it is by default."""
    for field in fields(args):
        if is_asked(field.name) and getattr(args, field.name) != field.default:
            return f"--{field.name.replace('_', '-')}"
    return None


def _places_request(args: Arguments) -> PlacesRequest:
    """What the flags ask of the vectors of a map."""
    if args.run is None or args.data is not None:
        raise SettingsError(
            "--queries needs the vectors of a map alone: `unmask evaluate PLACES --queries QUERIES.csv`"
        )
    _refuse(args, "has no meaning with --queries", lambda name: name not in _OF_PLACES)
    if args.control not in ("auto", "none"):
        raise SettingsError(
            f"--control {args.control} has no meaning with --queries; auto scores an untrained encoder, raw pixels and chance, none "
            "scores chance alone"
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


def _dense(args: Arguments, paths: list[str], data: str, path: Path, command: str) -> int:
    """Scores on class maps."""
    every = evaluate_dense(
        paths,
        ignoring(find_source(data, "maps"), args.ignore),
        args.protocol,
        seed=args.seed,
        controls="none" if args.control == "none" else "all",
        device=args.device,
    )
    judged = finish_dense(every, data, command, path, args.json)
    written = [path, *_report(paths, path)]
    if not args.json:
        for each in written:
            console.print(f"written: {each}")
        say_dense_verdicts(judged)
    return 0


def _corrupted(args: Arguments, paths: list[str], data: str, path: Path, command: str) -> int:
    """Scores on corrupted pictures.

    Raises:
        SettingsError: for flags that have nothing to do here.
    """
    unused = ["protocol", "labels", "vectors", "augment", "recipe", "epochs", "seeds"]
    if any(RunFolder(path).made_by("finetune") for path in paths):
        unused += ["control", "seed"]
    elif args.control not in ("auto", "none"):
        unused.append("control")
    if flag := _given(args, lambda name: name in unused):
        raise SettingsError(
            f"--corrupt scores fine-tuned runs as they are, and encoders by knn with all labels; leave out {flag}"
        )
    written = evaluate_corrupted(paths, _request(args, data), command, path, as_json=args.json)
    written += _report(paths, path)
    if not args.json:
        for each in written:
            console.print(f"written: {each}")
    return 0


def _report(paths: list[str], scores: Path) -> list[Path]:
    """The page of the run, written again if the scores lie in its folder."""
    folder = RunFolder(paths[0])
    inside = scores.parent.resolve() == folder.evaluations.resolve()
    return [folder.report] if inside and write_again(folder, notes.note) else []


def _say(judged: list[Judged]) -> None:
    for one in judged:
        say_scores(one)
    if len(judged) > 1:
        say_comparison(comparison_tables(judged))


@explained("unmask.evaluate('runs/photos', 'animals')")
def evaluate(
    encoder: str | Path,
    data: Images,
    *,
    protocol: Protocol = "knn",
    labels: Sequence[str] = ("all",),
    seeds: int = _SEEDS,
    control: Control = "auto",
    vectors: Literal["default", "plain"] = "default",
    labels_file: str | Path | None = None,
    augment: bool = False,
    recipe: str | Transfer | None = None,
    epochs: float | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Evaluation:
    """Score an encoder on labelled images, as `unmask evaluate` does; no file of scores is written.

    Args:
        encoder: a run, or weights of unmask, a published MAE, timm or transformers.
        data: labelled images: a folder of class folders, a pattern, "digits", the spec of a source, a list of (image,
            label) pairs, arrays (images, labels), a map-style torch Dataset of pairs, or a DataLoader of (images, labels),
            uint8 or floats from 0 to 1, which is read once, into memory.
        protocol: on frozen features knn, logistic, linear or attentive; trained partial, finetune or ladder.
        labels: amounts of labels of each class to learn from: numbers, percentages, or all.
        seeds: draws of the labels, and of all that a protocol draws; one where nothing is drawn.
        control: what to score beside the encoder: auto, none, random, scratch or both.
        vectors: of knn: default for whitened vectors besides plain ones, or plain.
        labels_file: a CSV, Parquet or JSON lines file with the classes of each image, in place of class folders.
        augment: whether the linear and the attentive probe see new crops and flips at every step.
        recipe: a recipe of trained protocols, its name, or FILE.py:NAME; chosen from the encoder if not given.
        epochs: of trained protocols; the recipe's if not given.
        seed: of the split, where the data have none; the first of the draws.
        device: where to compute.

    Raises:
        SettingsError: if arguments do not fit together, or the images have no labels of whole images.
        DataError: if the images or the weights cannot be used.
    """
    question = Question(
        protocol=protocol,
        labels=tuple(labels),
        seeds=seeds,
        seed=seed,
        control=control,
        vectors=vectors,
    )
    request = EvaluationRequest(
        question=question,
        data=str(data) if isinstance(data, str | Path) else as_source(data, labels=True),
        recipe=recipe,
        epochs=epochs,
        augment=augment,
        labels_file=None if labels_file is None else str(labels_file),
        device=device,
    )
    (judged,) = all_judged([str(encoder)], request)
    return judged.evaluation


def _request(args: Arguments, data: str) -> EvaluationRequest:
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


def _words(args: Arguments) -> tuple[list[str], str]:
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


def _name(args: Arguments, data: str) -> str:
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
