"""Stand-ins for packages that a bare machine lacks and that what runs there does not need; import this before `unmask`."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from typing import Any

BEGAN = time.monotonic()
"""When the program began; what is imported after this module counts."""


class StandIn:
    """What stands for a package that a bare machine lacks and that nothing here needs to run."""

    def __getattr__(self, name: str) -> "StandIn":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **settings: Any) -> "StandIn":
        """Itself, whatever is asked."""
        return self

    def __iter__(self) -> Iterator["StandIn"]:
        """Nothing."""
        return iter(())

    __getitem__ = __or__ = __ror__ = __call__


def need(*packages: str) -> None:
    """Refuse to go on without these packages.

    Raises:
        ModuleNotFoundError: if one of them is missing, or a stand-in.
    """
    for package in packages:
        is_here = (
            importlib.util.find_spec(package)
            if package not in sys.modules
            else sys.modules[package]
        )
        if is_here is None or isinstance(is_here, StandIn):
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


# shapes in annotations; specs as JSON; Parquet and indexes of data sets; files of weights
for package in ("jaxtyping", "cattrs", "pyarrow", "platformdirs", "safetensors"):
    if importlib.util.find_spec(package) is None:
        for module in (
            package,
            *(
                f"{package}.{part}"
                for part in ("cols", "errors", "gen", "parquet", "compute", "torch")
            ),
        ):
            sys.modules[module] = StandIn()  # type: ignore[assignment]
