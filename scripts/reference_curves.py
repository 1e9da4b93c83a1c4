"""Write src/unmask/doctor/curves.json from the folders of runs, and print how often its rule would accuse them.

    python scripts/reference_curves.py --machine "one thread of a shared virtual CPU" runs/A="CIFAR-10" runs/B="RSSCN7"

Each run is named with its images in words. Then every run is judged by all others, at every twentieth from a quarter on:
such a run is healthy, so a warning is an error of the rule. docs/doctor.md has the figures.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from unmask.doctor.reference import FILE, POINTS, Curve, beside_references, curve_of
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.logbook import read_log


def curve(folder: RunFolder, data: str, machine: str) -> Curve:
    """The curve of a finished run, with its origin."""
    found = curve_of(Run.read(folder), read_log(folder.log))
    if found is None or len(found.loss) < POINTS:
        raise SystemExit(
            f"{folder.root} is not a finished run of a masked autoencoder on normalised pixels"
        )
    command = folder.command_line.read_text(encoding="utf-8").strip()
    return found._replace(data=data, command=command, machine=machine)


def written(curves: list[Curve]) -> str:
    """The file: a curve a line, so that changes can be read."""
    lines = ",\n".join("  " + json.dumps(one._asdict()) for one in curves)
    return f'{{"curves": [\n{lines}\n]}}\n'


def judged(curves: list[Curve]) -> dict[str, Counter[str]]:
    """How often each curve gets each severity from all others, at all places."""
    counts: dict[str, Counter[str]] = {}
    for one in curves:
        others = [other for other in curves if other.data != one.data]
        places = [one._replace(loss=one.loss[:place]) for place in range(1, POINTS + 1)]
        findings = [finding for place in places for finding in beside_references(place, others)]
        counts[f"{one.recipe}, {one.data}"] = Counter(finding.severity for finding in findings)
    return counts


def main() -> None:
    """Write the file and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN=IMAGES")
    parser.add_argument("--machine", required=True, help="in words")
    parser.add_argument("--out", type=Path, default=FILE)
    flags = parser.parse_args()
    named = [one.rpartition("=")[::2] for one in flags.runs]
    curves = [curve(RunFolder(run), data, flags.machine) for run, data in named]
    flags.out.write_text(written(curves), encoding="utf-8")
    for name, counts in judged(curves).items():
        print(f"{name:40} {dict(counts)}")


if __name__ == "__main__":
    main()
