"""``cupy.cuda`` and the kernels compiled at run time: as much of them as minires uses. Streams do their work at once."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cuda.standin import graphs, order
from tests.cuda.standin.array import ndarray
from tests.cuda.standin.meter import describe, meter
from tests.cuda.standin.run import run


class Device:
    """The one device."""

    def __init__(self, device: Any = None) -> None:
        self.id = 0 if device is None else int(device)
        if self.id != 0:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.compute_capability = "90"

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None: ...

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Device)

    __hash__ = object.__hash__  # type: ignore[assignment]

    def use(self) -> None: ...

    def synchronize(self) -> None:
        meter.sync("Device.synchronize()")
        for track in list(_tracks):
            order.host_waited(track.snapshot())

    @property
    def mem_info(self) -> tuple[int, int]:
        return 1 << 30, 1 << 31

    @property
    def attributes(self) -> dict[str, int]:
        return {"MultiProcessorCount": 132}


_streams: list[Any] = []
_tracks: weakref.WeakSet[order.Track] = weakref.WeakSet()
_null = order.Track()
_tracks.add(_null)


class Stream:
    """A queue of work, which is done as soon as it is given."""

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None) -> None:
        self.null, self.non_blocking = null, non_blocking
        self.ptr = 0 if null else id(self)
        self._capture: Any = None
        self.track = _null if null else order.Track()
        _tracks.add(self.track)

    def __enter__(self) -> Stream:
        _streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _streams.pop()

    def use(self) -> Stream:
        return self

    def synchronize(self) -> None:
        meter.sync("Stream.synchronize()")
        order.host_waited(self.track.snapshot())

    def wait_event(self, event: Any) -> None:
        self.track.wait(event.snapshot)

    def record(self, event: Any = None) -> Any:
        event = event or Event()
        event.record(self)
        return event

    def is_capturing(self) -> bool:
        return self._capture is not None

    def begin_capture(self, mode: Any = None) -> None:
        if not self.non_blocking:
            raise RuntimeError("cannot capture on a blocking stream")
        self._capture = graphs.begin(self._capture)

    def end_capture(self) -> graphs.Graph:
        capture, self._capture = self._capture, None
        return graphs.end(capture)


class Event:
    """A point in a queue."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.done = True
        self.snapshot: dict[order.Track, int] = {}

    def record(self, stream: Any = None) -> None:
        self.snapshot = (stream or current_stream()).track.snapshot()

    def synchronize(self) -> None:
        meter.sync("Event.synchronize()")
        order.host_waited(self.snapshot)


class MemoryPool:
    """Memory that is kept for later."""

    def __init__(self, allocator: Any = None) -> None: ...

    def malloc(self, size: int) -> Any:
        return SimpleNamespace(size=size)

    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None: ...

    def set_limit(self, size: Any = None, fraction: Any = None) -> None: ...


@contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    yield


class PinnedMemory(bytearray):
    """Host memory that does not move; the same in every way to a test."""

    ptr = property(lambda self: ctypes.addressof((ctypes.c_char * len(self)).from_buffer(self)))


class RawModule:
    """CUDA code, compiled for the CPU by the shim of tests/cuda/shim."""

    def __init__(self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (),
                 backend: str = "nvrtc", translate_cucomplex: bool = False, enable_cooperative_groups: bool = False,
                 name_expressions: Any = None, jitify: bool = False) -> None:  # fmt: skip
        if code is None or path is not None:
            raise ValueError("RawModule: the stand-in wants code=")
        from tests.cuda import shim

        if reason := shim.available():
            pytest.skip(reason)
        self.code, self.options = code, tuple(options)
        self._library = shim.compile(code)

    def get_function(self, name: str) -> Kernel:
        return Kernel(self._library, name)


class Kernel:
    """A function of a module; called with (grid, block, args)."""

    def __init__(self, library: Any, name: str) -> None:
        self._library, self.name = library, name

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None,
                 enable_cooperative_groups: bool = False) -> None:  # fmt: skip
        for dims, most in ((grid, 2**31 - 1), (block, 1024)):
            if not isinstance(dims, tuple) or not all(isinstance(n, int) and 1 <= n for n in dims) or dims[0] > most:
                raise ValueError(f"{self.name}: grid {grid}, block {block}: expected tuples of whole numbers >= 1")
        values = [self._value(i, each) for i, each in enumerate(args)]
        order.touch((stream or current_stream()).track, values, self.name)
        meter.launches[self.name] += 1
        run(self._launch, grid, block, values)

    def _value(self, i: int, value: Any) -> Any:
        """An argument as the kernel gets it. CuPy would pass Python numbers as long long and double: refused."""
        if type(value) is ndarray:
            return value._host
        if isinstance(value, np.generic):
            return value
        if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.names:
            return value.copy()[()]  # a struct, by value
        found = describe(value)
        raise TypeError(f"{self.name}: argument {i} is {found}; pass a CuPy array or a NumPy number of the right size")

    def _launch(self, grid: Any, block: Any, values: list[Any]) -> None:
        self._library.launch(self.name, grid, block, values)


class OutOfMemoryError(MemoryError):
    """No memory is left on the device."""


def namespace() -> dict[str, Any]:
    """What ``cupy.cuda`` holds."""
    properties = {"name": b"Stand-in", "multiProcessorCount": 132, "major": 9, "minor": 0, "totalGlobalMem": 1 << 31}
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1, getDevice=lambda: 0, setDevice=lambda index: None, driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000, memGetInfo=lambda: (1 << 30, 1 << 31), getDeviceProperties=lambda index: properties,
        deviceSynchronize=lambda: meter.sync("deviceSynchronize()"), streamCaptureModeGlobal=0,
        streamCaptureModeThreadLocal=1, streamCaptureModeRelaxed=2, CUDARuntimeError=RuntimeError,
    )  # fmt: skip
    return {
        "Device": Device, "Event": Event, "Graph": graphs.Graph, "MemoryPool": MemoryPool, "Stream": Stream,
        "runtime": runtime,
        "alloc_pinned_memory": lambda size: PinnedMemory(size), "get_current_stream": current_stream,
        "get_elapsed_time": lambda start, end: 1.0, "is_available": lambda: True, "using_allocator": using_allocator,
        "memory": SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    }  # fmt: skip


order.current = lambda: current_stream().track


def current_stream() -> Stream:
    """The stream of the innermost ``with``, else the default one."""
    return _streams[-1] if _streams else Stream(null=True)
