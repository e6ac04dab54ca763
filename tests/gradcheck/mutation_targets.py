"""Which functions are spoilt by the mutation test: every backward rule, and what rules are made of.

Found by looking, not listed by hand, so a new op is in from its first day. From a rule the names of globals in its code
lead to the helpers it calls. A helper that no forward pass reaches counts as part of the rules; so does the forward of an
op that only rules call (``put``, ``_max_scatter``). A private helper or op that both sides use is "shared": spoilt, it may
spoil value and gradient alike, which is for the tests of values to find, so it is counted apart.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import minires.functional as F
from minires import operators, tape
from minires.op import Op


@dataclass(frozen=True)
class Target:
    """A function to be spoilt.

    Attributes:
        name: "activation.softmax" for the rule of an op, "arithmetic._to_winners" for a helper, "shaping.put()" for a
            forward.
        kind: "rule", "helper" (only rules reach it) or "shared".
        function: itself.
    """

    name: str
    kind: str
    function: FunctionType


def modules() -> list[Any]:
    """The modules that hold ops."""
    return [importlib.import_module(f"{F.__name__}.{m.name}") for m in pkgutil.iter_modules(F.__path__)]


def ops() -> dict[Op[Any], str]:
    """Every op of minires.functional, and its name with the module's before it."""
    found: dict[Op[Any], str] = {}
    for module in modules():
        for value in vars(module).values():
            if isinstance(value, Op) and value.__module__ == module.__name__:
                found[value] = f"{module.__name__.rpartition('.')[2]}.{value.name}"
    return found


def targets() -> list[Target]:
    """All functions to be spoilt, module by module."""
    rules = {op.rule: name for op, name in ops().items() if isinstance(op.rule, FunctionType)}
    found = [Target(name, "rule", rule) for rule, name in rules.items()]
    private = {function: name for name, function in _private().items()}
    forwards = _reached(_public(), None)
    for function in _reached(list(rules), set(private)) - set(rules):
        found.append(Target(private[function], "shared" if function in forwards else "helper", function))
    order = [m.__name__.rpartition(".")[2] for m in modules()]
    return sorted(found, key=lambda t: (order.index(t.name.partition(".")[0]), t.function.__code__.co_firstlineno))


def _private() -> dict[str, FunctionType]:
    """The functions that a user does not call: private ones, and the forwards of private ops."""
    found = {}
    for module in modules():
        prefix = module.__name__.rpartition(".")[2]
        for name, value in vars(module).items():
            if name in module.__all__ or getattr(value, "__module__", "") != module.__name__:
                continue
            if isinstance(value, Op):
                found[f"{prefix}.{value.name}()"] = value.forward
            elif isinstance(value, FunctionType) and value.__name__ != "_":
                found[f"{prefix}.{name}"] = value
    return found


def _public() -> list[FunctionType]:
    """Where forward passes begin: what users call, what the engine calls, and the definitions of fused ops."""
    engine = [f for part in (operators, tape) for f in vars(part).values() if isinstance(f, FunctionType)]
    users = [getattr(m, name) for m in modules() for name in m.__all__]
    defined = [op.defined for op in ops() if op.defined is not None]
    return engine + [f.forward if isinstance(f, Op) else f for f in users + defined]


def _reached(start: list[FunctionType], among: set[FunctionType] | None) -> set[FunctionType]:
    """The functions (``among`` those, if given) that these call by the name of a global, and so on; of an op its forward."""
    found: set[FunctionType] = set()
    left = list(start)
    while left:
        function = left.pop()
        if function not in found:
            found.add(function)
            left.extend(f for f in _called(function) if among is None or f in among)
    return found


def _called(function: FunctionType) -> Iterator[FunctionType]:
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        value = value.forward if isinstance(value, Op) else value
        if isinstance(value, FunctionType) and value.__module__.startswith(F.__name__):
            yield value


def _names(code: CodeType) -> set[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)
