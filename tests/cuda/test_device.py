"""What ``device="cuda"`` says where something is missing, and what the doctor finds. Machines are faked, one thing each."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import minires as mr
from minires import device, doctor, driver
from minires.driver import Driver
from minires.errors import DeviceError

NEW, OLD, ANCIENT = Driver("580.65.06", (13, 0)), Driver("535.104.05", (12, 2)), Driver("470.57", (11, 4))


def fake_cupy(count=1, error=None):
    """A CuPy that sees ``count`` GPUs, or fails to count them."""

    def count_gpus():
        if error is not None:
            raise RuntimeError(error)
        return count

    module = ModuleType("cupy")
    module.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count_gpus), is_available=lambda: count > 0)
    return module


@pytest.fixture
def machine(monkeypatch):
    """Sets up a machine: its driver, its CuPy (a module, the error of its import, or None), and its packages."""

    def set_up(driver_there, cupy=None, packages=(), visible=None):
        monkeypatch.setattr(driver, "find_driver", lambda: driver_there)
        found = {name: driver_major(name) for name in packages}
        monkeypatch.setattr(driver, "cupy_packages", lambda: found)
        monkeypatch.setattr(device, "_checked", {})
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.setattr(device, "find_spec", lambda name: None if cupy is None else object())
        if isinstance(cupy, ModuleType):
            monkeypatch.setitem(sys.modules, "cupy", cupy)
        elif cupy is not None:

            def fail(name):
                raise cupy

            monkeypatch.setattr(device, "importlib", SimpleNamespace(import_module=fail))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return set_up


def driver_major(package):
    return int(package[9:11]) if package.startswith("cupy-cuda") else None


def message(where="cuda"):
    with pytest.raises(DeviceError) as caught:
        mr.tensor([1.0], device=where)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(("device 'cuda'", f"device '{where}'"))
    return text


def test_not_installed_names_the_line_for_the_driver(machine, monkeypatch):
    machine(NEW)
    assert "CuPy is not installed; for driver 580.65.06 (CUDA 13.0): " in message()
    monkeypatch.chdir(Path(mr.__file__).parent.parent)
    assert message().endswith('python -m pip install -e ".[cuda13x]"')
    machine(OLD)
    assert message().endswith('python -m pip install -e ".[cuda12x]"')
    machine(ANCIENT)
    assert "driver 470.57 (CUDA 11.4) is too old; CuPy needs 525 or newer (CUDA 12), 580 for CUDA 13" in message()
    assert not device.is_available()


def test_the_line_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "__file__", str(tmp_path / "site-packages" / "minires" / "driver.py"))
    assert driver.install_line("cuda13x") == 'pip install "minires[cuda13x]"'
    root = tmp_path / "checkout"
    (root / "minires").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    monkeypatch.setattr(driver, "__file__", str(root / "minires" / "driver.py"))
    assert driver.install_line("cuda12x") == f'python -m pip install -e "{root}[cuda12x]"'
    for folder, where in (("", "."), ("tutorials", "..")):
        (root / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(root / folder)
        assert driver.install_line("cuda12x") == f'python -m pip install -e "{where}[cuda12x]"'


def test_no_driver_and_macos(machine, monkeypatch):
    machine(None)
    monkeypatch.setattr(driver.sys, "platform", "linux")
    assert "CuPy is not installed; no NVIDIA driver was found; install one, version 580 or newer, and then:" in message()
    monkeypatch.setattr(driver.sys, "platform", "darwin")
    assert message().endswith("there is no CuPy for macOS, so minires runs on the CPU here")


def test_an_import_that_fails_shows_its_reason(machine):
    machine(NEW, ImportError("libcudart.so.13: cannot\nopen"), ["cupy-cuda13x"])
    text = message()
    assert "CuPy is installed (cupy-cuda13x), but its import fails: libcudart.so.13: cannot open" in text
    assert "[cuda13x]" in text
    machine(NEW, ImportError("both"), ["cupy-cuda12x", "cupy-cuda13x"])
    assert "Only one CuPy can be installed at a time: pip uninstall -y cupy-cuda12x cupy-cuda13x" in message()


def test_cupy_without_a_driver(machine):
    machine(None, fake_cupy(error="cudaErrorInsufficientDriver: too old"), ["cupy-cuda13x"])
    text = message()
    assert "CuPy is installed but finds no NVIDIA GPU, and there is no NVIDIA driver (cudaErrorInsufficientDriver" in text


def test_cupy_for_a_newer_cuda_than_the_driver_runs(machine):
    machine(OLD, fake_cupy(error="cudaErrorInsufficientDriver"), ["cupy-cuda13x"])
    text = message()
    assert "cupy-cuda13x is built for CUDA 13, but driver 535.104.05 (CUDA 12.2) runs CUDA 12 at most" in text
    assert "pip uninstall -y cupy-cuda13x, then " in text and "[cuda12x]" in text
    machine(ANCIENT, fake_cupy(error="cudaErrorInsufficientDriver"), ["cupy-cuda12x"])
    assert "is too old" in message()


def test_no_visible_gpu(machine):
    machine(NEW, fake_cupy(0), ["cupy-cuda13x"], visible="")
    text = message()
    assert "finds no NVIDIA GPU; driver 580.65.06 (CUDA 13.0) is there; CUDA_VISIBLE_DEVICES is '', which hides all" in text
    machine(NEW, fake_cupy(error="cudaErrorNoDevice: none"), ["cupy-cuda12x"])
    assert "finds no NVIDIA GPU (cudaErrorNoDevice: none); driver" in message()


def test_a_number_out_of_range(machine):
    machine(NEW, fake_cupy(2), visible="0,1")
    text = message("cuda:5")
    assert "device 'cuda:5': there is no such GPU, this process sees cuda:0 to cuda:1; CUDA_VISIBLE_DEVICES" in text
    machine(NEW, fake_cupy(1))
    assert message("cuda:1").endswith("there is no such GPU, this process sees cuda:0 alone")
    device.check("cuda")
    device.check("cuda:0")
    device.check("cpu")
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda' or 'cuda:N'"):
        device.check("cuda:x")


def test_arrays_move_to_the_stand_in_and_back(standin):
    x = mr.tensor([1.0, 2.0], device="cuda")
    assert x.device == "cuda:0" and x.cpu().tolist() == [1.0, 2.0] and device.is_available()
    assert device.array_module(x.data) is standin is device.cupy()
    assert device.to_device(x.data, "cuda") is x.data


# ------------------------------------------------------------------------------------ finding the driver

PROC = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\nGCC version: 12\n"


def library(number, status=0):
    def ask(pointer):
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = number
        return status

    return lambda name: SimpleNamespace(cuDriverGetVersion=ask)


def no_library(name):
    raise OSError(name)


def smi(text, code=0):
    return lambda *args, **options: subprocess.CompletedProcess(args, code, stdout=text, stderr="")


def no_smi(*args, **options):
    raise FileNotFoundError("nvidia-smi")


@pytest.mark.parametrize(
    ("from_library", "from_proc", "from_smi", "expected"),
    [
        (library(13000), PROC, no_smi, Driver("580.65.06", (13, 0))),
        (library(12080), None, no_smi, Driver("", (12, 8))),
        (no_library, PROC, no_smi, Driver("580.65.06", (13, 0))),
        (no_library, None, smi("550.54.15\n550.54.15\n"), Driver("550.54.15", (12, 0))),
        (no_library, None, smi("470.57\n"), Driver("470.57", (11, 0))),
        (no_library, None, smi("NVIDIA-SMI has failed", 9), None),
        (library(0), None, no_smi, None),
        (library(13000, status=3), "nonsense", no_smi, None),
    ],
)
def test_the_driver_is_asked_in_three_ways(monkeypatch, tmp_path, from_library, from_proc, from_smi, expected):
    file = tmp_path / "version"
    if from_proc is not None:
        file.write_text(from_proc)
    monkeypatch.setattr(driver, "_PROC", file)
    monkeypatch.setattr(driver.ctypes, "CDLL", from_library)
    monkeypatch.setattr(driver.subprocess, "run", from_smi)
    assert driver.find_driver() == expected


def test_which_cupy_is_installed(monkeypatch):
    names = ["numpy", "cupy-cuda12x", "CuPy-CUDA13x", "cupy", "cupyx-something", "cupy-rocm-5-0"]
    monkeypatch.setattr(driver, "distributions", lambda: [SimpleNamespace(metadata={"Name": name}) for name in names])
    assert driver.cupy_packages() == {"cupy": None, "cupy-cuda12x": 12, "cupy-cuda13x": 13}
    assert str(Driver("", (12, 8))) == "the driver (CUDA 12.8)"


# ------------------------------------------------------------------------------------ the doctor


def test_doctor_without_a_gpu(machine):
    machine(OLD)
    text = doctor.report()
    for part in ("python", np.__version__, "blas", "threads", "minires threads", "cupy", "driver", "cuda runtime", "to do"):
        assert part in text
    assert "[cuda12x]" in text and "cuda:0" not in text


def test_doctor_with_a_gpu(standin):
    text = doctor.report()
    assert "cuda:0" in text and "Stand-in, compute capability 9.0, 1.0 of 2.0 GiB free" in text
    assert "nothing: device 'cuda' works" in text and "13.0" in text


def test_doctor_never_fails(monkeypatch, machine):
    machine(NEW, fake_cupy(2))

    def fail(*args, **options):
        raise RuntimeError("everything\nis broken")

    for where, name in [(driver, "find_driver"), (driver, "cupy_packages"), (device, "check"), (np, "show_config")]:
        monkeypatch.setattr(where, name, fail)
    text = doctor.report()
    assert text.count("unknown (everything is broken)") == 4 and "cuda:1  " in text
