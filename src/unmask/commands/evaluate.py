"""`unmask evaluate ENCODER DATA --protocol knn`: how good an encoder is, by one of seven protocols."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from unmask.console.arguments import parse
from unmask.console.comparison import comparison_tables, say_comparison, write_comparison
from unmask.console.evaluating import (
    SEEDS,
    WITH_QUERIES,
    Arguments,
    given,
    name_of,
    places_request,
    refuse,
    request_of,
    words_of,
)
from unmask.console.hardware import use_threads
from unmask.console.judged import Evaluation, Judged
from unmask.console.judging import EvaluationRequest, all_judged
from unmask.console.judging_dense import evaluate_dense, finish_dense, say_dense_verdicts
from unmask.console.output import check_writable, console, notes
from unmask.console.place_scores import evaluate_places
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
from unmask.evaluation.protocols import Protocol, Question
from unmask.recipes import Transfer
from unmask.report.again import write_again
from unmask.runs.batches import Images
from unmask.runs.folder import RunFolder


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "evaluate")
    use_threads(args.threads)
    if args.queries is not None:
        if args.corrupt:
            raise SettingsError(
                "--corrupt is for pictures with classes; leave it out, or leave out --queries"
            )
        return evaluate_places(places_request(args))
    refuse(args, "needs --queries QUERIES.csv", lambda name: name in WITH_QUERIES)
    paths, data = words_of(args)
    path = Path(args.out) if args.out else place_of_scores(paths, name_of(args, data))
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
    judged = all_judged(paths, request_of(args, data))
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
    if flag := given(args, lambda name: name in unused):
        raise SettingsError(
            f"--corrupt scores fine-tuned runs as they are, and encoders by knn with all labels; leave out {flag}"
        )
    written = evaluate_corrupted(paths, request_of(args, data), command, path, as_json=args.json)
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
    seeds: int = SEEDS,
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
