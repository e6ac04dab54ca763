"""The builder, and every CUDA source compiled for real GPUs by NVIDIA's compiler, without one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from minires.kernels.cuda import build
from tests.cuda import nvrtc

REASON = nvrtc.available()


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("source", build.sources())
def test_every_kernel_compiles_and_keeps_its_numbers_in_registers(source, architecture, record_property):
    for macros in build.variants(source):
        kernels = nvrtc.usage(build.code(source, macros), architecture)
        assert kernels, "no kernel in it"
        record_property(f"{source} {macros}", {name: used.registers for name, used in kernels.items()})
        for name, used in kernels.items():
            assert used.spilled == used.stack == 0, f"{name} of {source}.cu {macros}: {used}"
            assert used.shared <= 48 << 10, f"{name} of {source}.cu {macros}: {used}"


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_spills_are_seen_and_errors_name_the_line():
    sums = "extern \"C\" __global__ void __launch_bounds__(1024) f(float* x) { float s[80];\n" + (
        "for (int i = 0; i < 80; i++) s[i] = x[i * 7]; __syncthreads();\n"
        "for (int j = 0; j < 80; j++) for (int i = 0; i < 80; i++) s[i] = s[i] * s[(i + j) % 80] + 1;\n"
        "for (int i = 0; i < 80; i++) x[i * 3] = s[i]; }"
    )  # fmt: skip
    used = nvrtc.compile(sums, "sm_90")["f"]
    assert used.stack + used.spilled > 0 and used.registers <= 64
    with pytest.raises(RuntimeError, match=r"gate\.cu\(1\): error: identifier \"foo\""):
        nvrtc.compile('#line 1 "gate.cu"\n__global__ void f(float* x) { *x = foo; }', "sm_80")


# ------------------------------------------------------------------------------------ the builder


class Recorder:
    """An array module that remembers what is compiled and started."""

    def __init__(self):
        self.compiled, self.launches = [], []

    def RawModule(self, code, options):
        self.compiled.append((code, options))
        return SimpleNamespace(get_function=lambda name: lambda *call: self.launches.append((name, *call)))


@pytest.fixture
def xp():
    return Recorder()


def test_work_becomes_blocks(xp):
    def grid(*args, **kwargs):
        build.launch("gate", "gate", *args, [], xp=xp, dtype=np.float32, WIDE=1, **kwargs)
        return xp.launches[-1][1:3]

    assert grid(1) == ((1,), (256,))
    assert grid(257, block=128) == ((3,), (128,))
    assert grid((33, 5), block=(32, 4)) == ((2, 2), (32, 4))
    assert grid(10, grid=(7, 2)) == ((7, 2), (256,))
    assert grid(10, grid=7) == ((7,), (256,))
    before = len(xp.launches)
    build.launch("gate", "gate", 0, [], xp=xp, dtype=np.float32, WIDE=1)
    build.launch("gate", "gate", (5, 0), [], xp=xp, dtype=np.float32, block=(32, 8), WIDE=1)
    build.launch("gate", "gate", 1, [], xp=xp, dtype=np.float32, grid=(0, 3), WIDE=1)
    assert len(xp.launches) == before  # CUDA refuses empty grids


def test_arguments_get_the_types_of_the_kernel(xp):
    array = object()

    def passed(value, dtype=np.float32):
        build.launch("gate", "gate", 1, [value], xp=xp, dtype=dtype, WIDE=0)
        return xp.launches[-1][-1][0]

    assert passed(array) is array
    assert type(passed(3)) is np.int32 and type(passed(True)) is np.int32
    assert type(passed(0.5)) is type(passed(0.5, np.float16)) is np.float32
    assert type(passed(0.5, np.float64)) is np.float64
    assert type(passed(np.int64(1 << 40))) is np.int64
    assert type(passed(None)) is np.uintp and passed(None) == 0
    with pytest.raises(ValueError, match="2147483648 needs more than the 32 bits"):
        passed(1 << 31)


def test_a_module_is_compiled_once_for_each_type_and_choice_of_macros(xp):
    for dtype, wide in [(np.float32, 1), (np.float32, 1), (np.float64, 1), (np.float32, 0)]:
        for kernel in ("gate", "gate_backward"):
            build.launch("gate", kernel, 1, [], xp=xp, dtype=dtype, WIDE=wide)
    assert len(xp.compiled) == 3
    code, options = xp.compiled[1]
    assert options == ("--std=c++17",)
    assert "#define T double\n" in code and "#define A double\n" in code and '#line 1 "gate.cu"' in code


def test_wrong_macros_and_types_are_named(xp):
    with pytest.raises(ValueError, match=r"gate\.cu: macros \['T', 'WIDE'\] are declared in it, got \['DEEP', 'T'\]"):
        build.launch("gate", "gate", 1, [], xp=xp, dtype=np.float32, DEEP=1)
    with pytest.raises(TypeError, match=r"gate\.cu: there is no CUDA kernel for int64, only for float32, float64"):
        build.launch("gate", "gate", 1, [], xp=xp, dtype=np.int64, WIDE=1)


def test_what_is_compiled_is_plain_ascii():
    """CuPy writes it to a file in the encoding of the system: of Windows, or of a bare locale."""
    for source in build.sources():
        assert build.code(source, build.variants(source)[0]).isascii()


def test_every_source_says_its_macros():
    assert {"gate", "norm"} <= set(build.sources())
    assert build.variants("gate")[1] == {"T": "float", "WIDE": "1"} and len(build.variants("gate")) == 8
