"""What ``minires export`` and ``minires import`` do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from minires import models
from minires.errors import CheckpointError
from minires.export import to_onnx, weights
from minires.random import manual_seed
from minires.training import checkpoint
from minires.training.presets import PRESETS, Job
from minires.training.trainer import CHECKPOINT

__all__ = ["export_", "import_"]


# ------------------------------------------------------------------------------------ export


def export_(options: argparse.Namespace, network: Any) -> int:
    """``minires export MODEL FILE``; returns the exit code."""
    path = Path(options.file)
    if path.suffix not in (".onnx", ".safetensors") and not options.onnx:
        raise ValueError(f"{path}: expected a file name that ends in .safetensors or .onnx (or --onnx)")
    onnx = options.onnx or path.suffix == ".onnx"
    if options.size is not None and not onnx:
        raise ValueError("--size is an option for ONNX: weights have no image size")
    if options.names and onnx:
        raise ValueError("--names is an option for weights: in ONNX they keep their names")
    if _is_checkpoint(path):
        raise ValueError(f"{path}: is the checkpoint of a training run, which would be lost; choose another file")
    manual_seed(0)  # for a model's name: the same fresh weights every time
    model, shape = _network(options, network)
    if onnx:
        if shape is None and options.size is not None:
            raise ValueError("--size is an option for networks that see images")
        graph = to_onnx(model, path, shape, options.resize)
        inputs = [f"{name} ({', '.join(map(str, axes))})" for name, (_, axes) in graph.inputs.items()]
        print(f"{path}: {len(graph.nodes)} ops, {' and '.join(inputs)}")
    else:
        names = weights.save_weights(model, path, weights.read_names(options.names) if options.names else None)
        print(f"{path}: {len(names)} tensors")
    return 0


def _is_checkpoint(path: Path) -> bool:
    try:
        checkpoint.read(path)
    except (CheckpointError, OSError):
        return False
    return True


def _network(options: argparse.Namespace, network: Any) -> tuple[Any, tuple[int, int, int] | None]:
    """The network, and (C, H, W) of its images; None for a translator."""
    path = Path(options.model)
    file = path / CHECKPOINT if path.is_dir() else path
    if options.model not in models.names() and file.exists():
        if checkpoint.read(file)["config"].get("data") == "numerals":
            from minires.training.translation import load_translator

            return load_translator(path).model, None
    model, shape = network(options)
    return model, shape


# ------------------------------------------------------------------------------------ import


def import_(options: argparse.Namespace) -> int:
    """``minires import FILE --out CHECKPOINT``; returns the exit code."""
    if Path(options.out).resolve() == Path(options.file).resolve():
        raise ValueError(f"--out {options.out}: is the file that is read; choose another one")
    found = weights.read_weights(options.file)
    arrays = weights.renamed_back(found.arrays, weights.read_names(options.names) if options.names else None)
    config = _config(options, found.config, arrays)
    model = models.build(config)
    missing = weights.fit(model, arrays, options.file)
    names = _classes(options.classes, _classes_of(model))
    job = _job(model.config, len(names))
    state = checkpoint.snapshot(
        model.eval(), epoch=0, step=0, history=[], config=job.to_dict(), model_config=model.config, classes=names
    )
    checkpoint.write(options.out, state)
    print(f"{options.out}: {model.config['name']}, {len(model.state_dict())} tensors, {len(names)} classes")
    if missing:
        print(f"the file counts no batches (num_batches_tracked); {len(missing)} counters are 0")
    return 0


def _config(options: argparse.Namespace, said: dict[str, Any] | None, arrays: dict[str, Any]) -> dict[str, Any]:
    """Name and arguments of the network: of the command, of the file, and what can be seen from the shapes."""
    name = options.model or (said or {}).get("name")
    if name is None:
        raise ValueError(f"{options.file} does not say of which network it is: add --model with one of {_names()}")
    if name not in models.names():
        raise ValueError(f"unknown model {name!r}; known are: {_names()}")
    config = dict(said) if said and said.get("name") == name else {"name": name}
    for text in options.option:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--option: expected NAME=VALUE, got {text!r}")
        config[key] = _value(value)
    arrays = weights.without_prefix(arrays, ("classifier.weight", "fc.weight"))
    seen = {"num_classes": ("classifier.weight", "fc.weight", 0), "in_channels": ("stem.0.weight", "stem.weight", 1)}
    for key, (*paths, axis) in seen.items():
        shapes = [arrays[path].shape for path in paths if path in arrays]
        if shapes and len(shapes[0]) > axis and key in models.arguments(name):
            config.setdefault(key, int(shapes[0][axis]))
    return config


def _names() -> str:
    return ", ".join(models.names())


def _value(text: str) -> Any:
    """A number, true, false, null or a list as in JSON; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _classes_of(model: Any) -> int:
    last = [name for name in model.state_dict() if name in ("classifier.weight", "fc.weight")]
    return int(model.state_dict()[last[0]].shape[0]) if last else 0


def _classes(path: str | None, count: int) -> list[str]:
    """The names of the classes, or their numbers."""
    if path is None:
        return [str(i) for i in range(count)]
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(lines) != count:
        raise CheckpointError(f"{path}: the network has {count} classes, the file names {len(lines)}")
    return lines


def _job(config: dict[str, Any], classes: int) -> Job:
    """A job for the network, on data of its size, so that the other commands know how pictures become its input."""
    name, side = config["name"], models.usual_side(config["name"])
    apart = ("name", "attention", "num_classes", "in_channels")
    changes = {"model": name, "options": {key: value for key, value in config.items() if key not in apart}}
    if "attention" in config:
        changes["attention"] = config["attention"]
    if config.get("in_channels") == 1:
        return PRESETS["digits"].with_(**changes)
    kinds = {10: "cifar10", 100: "cifar100"}
    data = kinds.get(classes, "folder") if side == 32 else "folder"
    return PRESETS[data].with_(root=".", size=side, **changes)
