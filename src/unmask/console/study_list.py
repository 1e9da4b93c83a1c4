"""`unmask study --list`: the studies and scales, from the table, so that no torch is needed."""

from unmask.console.flag_table import table
from unmask.console.help_text import WIDTH
from unmask.console.wrapping import wrapped


def study_list() -> str:
    """All studies with their variations, and the scales, as text."""
    studies = table()["studies"]
    width = max(map(len, studies))
    lines = ["studies (unmask study NAME DATA):"]
    for name, study in studies.items():
        source = (
            study["source"].partition(";")[0].partition(" (")[0]
        )  # without notes on its figures
        lines.append(f"  {name:{width}}  {study['title']} ({source})")
        lines.append(f"  {'':{width}}  {', '.join(study['variations'])}")
    lines.append("scales (--scale):")
    lines += [f"  {name:{width}}  {about}" for name, about in table()["scales"].items()]
    return "\n".join(wrapped(line, WIDTH) for line in lines)
