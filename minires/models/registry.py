"""From a name and options to a network, and back: so that a checkpoint can say in plain JSON what it belongs to.

A builder is a function that returns a network. :func:`register` makes it known under its name and leaves in
``model.config`` the name and every argument, defaults included; :func:`build` turns such a dictionary into a network again.

The units that a network is made of have names as well, so that one of your own can stand in a checkpoint: a file holds its
name, never its code, and the program that reads the file has to know the unit.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from minires.nn import Module, ResidualUnit, ResNeXtUnit, UnitFactory

__all__ = ["arguments", "build", "names", "register", "register_unit", "unit_of", "units", "usual_side"]

P = ParamSpec("P")
_M = TypeVar("_M", bound=Module)
_builders: dict[str, Callable[..., Any]] = {}
_OURS: dict[str, UnitFactory] = {"residual": ResidualUnit, "resnext": ResNeXtUnit}
_units: dict[str, UnitFactory] = dict(_OURS)


def register(builder: Callable[P, _M]) -> Callable[P, _M]:
    """Decorator: make ``builder`` known to :func:`build` under its name. Its arguments must be what JSON can hold."""
    signature = inspect.signature(builder)

    @functools.wraps(builder)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> _M:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        model = builder(*args, **kwargs)
        options = {name: _plain(value) for name, value in bound.arguments.items()}
        model.config = {"name": builder.__name__, **options}
        return model

    _builders[builder.__name__] = wrapped
    return wrapped


def _plain(value: Any) -> Any:
    """An argument as JSON can hold it: a tuple as a list, a unit as its name."""
    if isinstance(value, tuple):
        return list(value)
    return _name_of(value) if callable(value) else value


# ------------------------------------------------------------------------------------ units


_U = TypeVar("_U", bound=UnitFactory)


def register_unit(unit: _U) -> _U:
    """Decorator: make a residual unit of your own known under its name, so that ``unit="MyUnit"`` finds it.

    A builder that is given the unit itself does this on its own. It is needed where a network is built from a name: in the
    program that reads a checkpoint of a network with such units.

    Args:
        unit: a class or function as :data:`minires.nn.UnitFactory` describes it. A unit of the same name is replaced.

    Raises:
        ValueError: it has no name, or that of one of the package's own.
    """
    name = getattr(unit, "__name__", "")
    if not name.isidentifier() or name in _OURS:
        reason = f"{name!r} is one of the package's own" if name in _OURS else "it needs a name: use a class or a def"
        raise ValueError(f"register_unit: {unit!r} cannot be registered ({reason})")
    _units[name] = unit
    return unit


def units() -> list[str]:
    """The names of the units that a builder's ``unit`` knows, in alphabetical order."""
    return sorted(_units)


def unit_of(unit: str | UnitFactory) -> UnitFactory:
    """The unit of a name; a unit itself is registered and returned.

    Raises:
        ValueError: the name is unknown.
    """
    if not isinstance(unit, str):
        return _units[_name_of(unit)]
    if unit not in _units:
        raise ValueError(
            f"unknown unit {unit!r}; known are: {', '.join(units())}. One of your own has to be imported first, "
            "and registered by models.register_unit"
        )
    return _units[unit]


def _name_of(unit: UnitFactory) -> str:
    """The name of a unit, which is registered if it is not."""
    ours = [name for name, known in _OURS.items() if known is unit]
    return ours[0] if ours else str(register_unit(unit).__name__)


# ------------------------------------------------------------------------------------ networks


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


def usual_side(name: str) -> int:
    """The image size that a network is made for, in pixels: 29 (digits), 32 (CIFAR) or 224 (ImageNet)."""
    return 29 if name.startswith("small") else 224 if name.startswith("attention") or name == "resnet50" else 32


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
