"""What a GPU reaches, in one command of less than ten minutes, from the source tree and without network:

    PYTHONPATH=src python benchmarks/gpu.py --json gpu.json

Needs torch, torchvision, timm and numpy. Parity of compiled bfloat16 with plain float32 comes first; then the
ceilings, the whole training step (forward, backward, fused AdamW) of ViT-B/16, L/16 and H/14 at several batch
sizes, the same models of transformers and lightly where they are installed, recipes with less arithmetic,
fine-tuning (classes, class maps, objects with masks), and JPEG decoding. Every part has a time limit and prints as it ends; a part that fails says so and
the rest goes on. `--tiny` tries the script itself out, also on a CPU: its figures mean nothing.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import bare  # noqa: F401 - before unmask
from gpu_bed import Bed, Scale, attempt, comparisons, new_bed, table
from gpu_parts import (
    attention,
    ceilings,
    dense,
    finetuning,
    graphs,
    jpeg,
    lightly,
    loading,
    others,
    parity,
    steps,
    transformers,
    waiting,
)


def parts(scale: Scale) -> list[tuple[str, float, Callable[[Bed], None]]]:
    """Name, time limit and function of each, in order; 590 seconds in all.

    Three quarters of a minute for each shape, most of it compiling.
    """
    return [
        ("ceilings", 5, ceilings),
        ("parity", 40, parity),
        ("waiting", 5, waiting),
        ("attention", 25, attention),
        *((f"step {name}", 45 * len(sizes), steps(name)) for name, sizes in scale.batches.items()),
        ("transformers", 75, transformers),
        ("lightly", 60, lightly),
        ("less arithmetic", 65, others),
        ("fine-tuning", 25, finetuning),
        *((name, 25, dense(name, side, images)) for name, side, images in scale.dense),
        ("JPEG", 10, jpeg),
        ("loading", 35, loading),
        ("CUDA graphs", 15, graphs),
    ]  # fmt: skip


def run(bed: Bed, only: list[str] | None) -> None:
    """All parts; one that fails is told and passed over."""
    for name, seconds, part in parts(bed.scale):
        if only and name not in only:
            continue
        seconds *= bed.scale.patience
        print(f"\n{name} (at most {seconds:.0f} s)", flush=True)
        if wrong := attempt(seconds, part, bed):
            bed.say(name, wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument(
        "--tiny", action="store_true", help="only try the script out, also on a CPU"
    )
    parser.add_argument("--only", nargs="+", help="names of parts")
    options = parser.parse_args()
    bed = new_bed(options.tiny)
    try:
        run(bed, options.only)
    except KeyboardInterrupt:
        print("\nstopped; what was found so far:")
    print(f"\n{table(bed.rows)}\n")
    for said in comparisons(bed.rows):
        print(f"unmask is {said}")
    failed = [name for name, value in bed.facts.items() if str(value).startswith("failed")]
    print(f"failed: {', '.join(failed) or 'nothing'}")
    if options.json:
        rows = [asdict(row) for row in bed.rows]
        options.json.write_text(json.dumps({"facts": bed.facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
