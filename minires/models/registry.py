"""From a name and options to a network, and back: so that a checkpoint can say in plain JSON what it belongs to.

A builder is a function that returns a network. :func:`register` makes it known under its name and leaves in
``model.config`` the name and every argument, defaults included; :func:`build` turns such a dictionary into a network again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from minires.nn import Module

__all__ = ["arguments", "build", "names", "register"]

P = ParamSpec("P")
_M = TypeVar("_M", bound=Module)
_builders: dict[str, Callable[..., Any]] = {}


def register(builder: Callable[P, _M]) -> Callable[P, _M]:
    """Decorator: make ``builder`` known to :func:`build` under its name. Its arguments must be what JSON can hold."""
    signature = inspect.signature(builder)

    @functools.wraps(builder)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> _M:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        model = builder(*args, **kwargs)
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in bound.arguments.items()}
        model.config = {"name": builder.__name__, **options}
        return model

    _builders[builder.__name__] = wrapped
    return wrapped


def names() -> list[str]:
    """The names that :func:`build` knows, in alphabetical order."""
    return sorted(_builders)


def arguments(name: str) -> tuple[str, ...]:
    """The names of the arguments that a model's builder takes.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in _builders:
        raise ValueError(f"unknown model {name!r}; known are: {', '.join(names())}")
    return tuple(inspect.signature(_builders[name]).parameters)


def build(config: dict[str, Any] | str, **options: Any) -> Any:
    """A new network.

    Args:
        config: a name from :func:`names`, or a dictionary of that ``"name"`` and the builder's arguments, as a network
            has it in ``model.config``.
        **options: more arguments for the builder; they go before those of ``config``.

    Raises:
        ValueError: the name is unknown, or the builder takes no such argument.
    """
    given = {"name": config} if isinstance(config, str) else dict(config)
    name = given.pop("name", None)
    if name not in _builders:
        raise ValueError(f"build: unknown model {name!r}; known are: {', '.join(names())}")
    builder, arguments = _builders[name], {**given, **options}
    known = inspect.signature(builder).parameters
    wrong = [key for key in arguments if key not in known]
    if wrong:
        raise ValueError(f"build: {name} takes no argument {', '.join(map(repr, wrong))}; it takes: {', '.join(known)}")
    return builder(**arguments)
