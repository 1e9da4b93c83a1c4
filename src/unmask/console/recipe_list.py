"""`unmask help recipes`: one line for each recipe, grouped by use."""

from typing import Any

from unmask.console.flag_table import recipes_for, table

_USES = {
    "pretrain": "pretraining",
    "finetune": "fine-tuning, from scratch, probes",
    "tokenizer": "tokenizers",
}
_SCALES = {"photographs": 14, "small images": 3, "digits": 1}
"""What images a recipe is for, by the smallest patch."""


def recipe_list() -> str:
    """All recipes: name, image and patch size, epochs and source."""
    lines = ["recipes (pixels / patch, epochs, source): unmask COMMAND --recipe NAME"]
    for command, use in _USES.items():
        groups: dict[str, list[str]] = {scale: [] for scale in _SCALES}
        for name, entry in recipes_for(command).items():
            scale = next(scale for scale, patch in _SCALES.items() if _patch(entry) >= patch)
            groups[scale].append(_line(name, entry))
        for scale, rows in groups.items():
            if rows:
                lines += ["", f"{use} on {scale} (unmask {command}):", *rows]
    lines += ["", "`unmask COMMAND --recipe NAME --help` shows the numbers of a recipe."]
    return "\n".join(lines)


def _patch(entry: dict[str, Any]) -> int:
    values = entry["values"]
    default = table()["specs"]["ViT"]["patch_size"]["default"]
    return values.get("encoder", values).get("patch_size", default)


def _line(name: str, entry: dict[str, Any]) -> str:
    values = entry["values"]
    size = "x".join(map(str, dict.fromkeys(values["image_size"])))
    width = 13 if entry["for"] == "pretrain" else 18
    line = f"  {name:{width}} {size:>3}/{_patch(entry):<2} {values['epochs']:4g} epochs  {entry['source']}"
    return line if len(line) <= 80 else f"{line[:76].rstrip()} ..."
