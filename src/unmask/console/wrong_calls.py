"""A wrong call of a command's function says what it takes, with an example."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_RECIPE = (
    "; settings of training belong to the recipe: recipe=dataclasses.replace(unmask.RECIPES['mae-ti16'].recipe, epochs=3) "
    "(of fine-tuning: unmask.TRANSFERS)"
)


def explained(example: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a wrong call of a function raise a TypeError that names the arguments and shows an example."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                recipe = _RECIPE if "recipe" in signature.parameters else ""
                raise TypeError(
                    f"unmask.{function.__name__}: {error}; it takes {', '.join(signature.parameters)}, such as "
                    f"{example}{recipe}"
                ) from None
            return function(*args, **kwargs)

        return called

    return wrap
