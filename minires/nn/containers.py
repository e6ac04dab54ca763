"""Modules that hold other modules: in a row, in a list, under names.

Only :class:`Sequential` can be called; the others register their contents so that parameters are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from minires.nn.module import Module

__all__ = ["Identity", "ModuleDict", "ModuleList", "Sequential"]


class Identity(Module):
    """Returns its input; any constructor arguments are ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """The input itself."""
        return input


class _Row(Module):
    """What :class:`Sequential` and :class:`ModuleList` share: children with the names "0", "1", ..."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> _Row: ...
    def __getitem__(self, index: int | slice) -> Any:
        """A child, or a container of the same kind over some of the same children."""
        children = list(self._modules.values())
        if isinstance(index, slice):
            part = type(self)()
            part.training = self.training
            # Not add_module(): in errors the children go by their names in the whole container.
            part._modules.update({str(i): child for i, child in enumerate(children[index])})
            return part
        if not -len(children) <= index < len(children):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range, there are {len(children)} modules")
        return children[index]

    def append(self, module: Module) -> _Row:
        """Add a module at the end; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> _Row:
        """Add modules at the end; returns the container."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_Row):
    """Modules that are called one after the other.

    Args:
        *modules: the modules, or one dictionary of name → module.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self.extend(modules)  # type: ignore[arg-type]  # add_module() refuses what is no Module

    def forward(self, input: Any) -> Any:
        """``input`` through every module in order."""
        for module in self._modules.values():
            input = module(input)
        return input


class _Passive(Module):
    """A container that is never called: its children's paths must carry its name, as it does not appear itself."""

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child; in errors its name includes that of the container."""
        super().add_module(name, module)
        if module is not None and self._name:
            module._set_name(f"{self._name}.{name}")

    def _set_name(self, name: str) -> None:
        super()._set_name(name)
        for key, child in self.named_children():
            child._set_name(f"{name}.{key}")


class ModuleList(_Passive, _Row):
    """A list of modules whose parameters are found; it cannot be called."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)


class ModuleDict(_Passive):
    """Modules under names, whose parameters are found; it cannot be called."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        for name, module in (modules or {}).items():
            self.add_module(name, module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def keys(self) -> Iterable[str]:
        """The names."""
        return iter(self)

    def values(self) -> Iterable[Module]:
        """The modules."""
        values: Iterable[Module] = self._modules.values()
        return values

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules."""
        return self.named_children()
