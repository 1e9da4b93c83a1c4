"""`unmask evaluate` on class maps: frozen patch features under a protocol that is printed beside every score."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.annotations import ClassMaps
from unmask.console.bars import progress_on
from unmask.console.judged import verdict_json
from unmask.console.output import console, loaded, matched, notes, say_left_out, writing
from unmask.console.scores import write_json
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.annotated import found_in
from unmask.data.labelled import open_labelled, with_channels
from unmask.errors import SettingsError, did_you_mean
from unmask.evaluation.dense import DenseRow, dense_rows
from unmask.evaluation.dense_protocols import DENSE_PROTOCOLS
from unmask.evaluation.verdict import Verdict, dense_verdicts
from unmask.spec import to_json


def evaluate_dense(
    encoders: Sequence[str],
    data: AnySource,
    protocol: str,
    *,
    seed: int,
    controls: Literal["all", "none"],
    device: str,
) -> dict[str, list[DenseRow]]:
    """The scores of each encoder and of its controls on class maps; all encoders are opened before any is scored.

    Raises:
        SettingsError: if the protocol is not for class maps, or the data have other annotations.
    """
    if protocol not in DENSE_PROTOCOLS:
        raise SettingsError(
            f"--protocol {protocol} is not for class maps; {did_you_mean(protocol, DENSE_PROTOCOLS)}. To train on them: "
            "`unmask finetune ENCODER DATA`"
        )
    with progress_on(notes):
        models = {encoder: loaded(encoder, device) for encoder in encoders}
        labelled = open_labelled(data, seed, (ClassMaps,))
        say_left_out(labelled.train, notes)
        if (found := found_in(labelled.train)) is not None:
            for line in found.lines():
                notes.print(line)
        images: dict[str, tuple[ImageSource, ImageSource]] = {}
        for encoder, model in models.items():
            channels, trained_on = model.spec.channels, f"{encoder} was trained on"
            train = matched(labelled.train, channels, trained_on)
            images[encoder] = train, with_channels(labelled.test, channels, trained_on)
        return {
            encoder: list(
                dense_rows(
                    DENSE_PROTOCOLS[protocol],
                    model.encoder,
                    model.spec,
                    *images[encoder],
                    seed=seed,
                    controls=controls,
                    device=model.device,
                )
            )
            for encoder, model in models.items()
        }


def say_dense(encoder: str, rows: list[DenseRow]) -> None:
    """Print a table of the scores, and the protocol in words."""
    console.print(f"encoder   {encoder}")
    table = Table("encoder", "features", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("mIoU", "pixels right", "setting"):
        table.add_column(name, justify="right")
    for row in rows:
        score = row.score
        figures = f"{score.mean_iou:.2%}", f"{score.pixel_accuracy:.2%}", row.setting
        table.add_row(row.arm, row.feature, *figures)
    first = rows[0].score
    table.add_row(
        "largest class everywhere", "", f"{first.chance:.2%}", f"{first.majority:.2%}", ""
    )
    console.result(table)
    console.print(f"protocol  {rows[0].stamp}")


def dense_result(
    rows: list[DenseRow], verdicts: list[Verdict], encoder: str, data: str, command: str
) -> dict[str, Any]:
    """The scores as JSON, with the fields that scores on whole images have, and all of each score."""
    first = rows[0].score
    scores = [
        {
            "arm": row.arm,
            "feature": row.feature,
            "accuracy": row.score.value,
            "setting": row.setting,
            "seconds": round(row.seconds, 1),
            **to_json(row.score),
        }
        for row in rows
    ]
    return {
        "command": command,
        "run": encoder,
        "data": data,
        "protocol": rows[0].stamp,
        "measure": first.measure,
        "chance": first.chance,
        "test_images": first.images,
        "scores": scores,
        "verdicts": [verdict_json(one) for one in verdicts],
    }


def finish_dense(
    every: dict[str, list[DenseRow]], data: str, command: str, path: Path, as_json: bool
) -> dict[str, list[Verdict]]:
    """Print and write the scores of one encoder or several; returns what they say."""
    verdicts = {encoder: dense_verdicts(rows) for encoder, rows in every.items()}
    results = [
        dense_result(rows, verdicts[encoder], encoder, data, command)
        for encoder, rows in every.items()
    ]
    result = results[0] if len(results) == 1 else {"encoders": results}
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        for encoder, rows in every.items():
            say_dense(encoder, rows)
    with writing(path):
        write_json(path, result)
    return verdicts


def say_dense_verdicts(judged: dict[str, list[Verdict]]) -> None:
    """Print whether each encoder is better than its controls."""
    for encoder, verdicts in judged.items():
        name = f"{encoder}: " if len(judged) > 1 else ""
        for verdict in verdicts:
            console.result(f"verdict   {name}{verdict.words}")
