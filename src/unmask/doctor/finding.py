"""The result of a check: what is seen, why it matters, and what to change."""

from typing import Literal, NamedTuple

Severity = Literal["fault", "warning", "note", "fine"]
"""A fault spoils the run; a warning may; a note is worth knowing; fine is what a healthy run shows."""

Sure = Literal["certain", "likely", "possible"]

ORDER: tuple[Severity, ...] = ("fault", "warning", "note", "fine")
"""From worst to best."""


class Finding(NamedTuple):
    """What a check found."""

    severity: Severity
    about: str
    """What was checked, such as "learning rate"."""
    seen: str
    """What was measured, with figures."""
    why: str = ""
    """Why it matters; empty if nothing is wrong."""
    change: str = ""
    """What to change; empty if nothing is wrong."""
    sure: Sure = "certain"
    """How sure that is."""


def sorted_findings(findings: list[Finding]) -> list[Finding]:
    """The worst first, otherwise in the order of the checks."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))
