"""``minires profile``: counts, formulas and kept bytes of networks that are small enough to know them, and the command."""

from __future__ import annotations

import importlib
import itertools
import json
import pkgutil
import weakref

import numpy as np
import pytest

import minires as mr
from minires import bench, cli, functional, models, nn
from minires.bench import formulas, options, profile_text, profiling
from minires.bench.observer import Observer
from minires.functional import conv2d, cross_entropy
from minires.modes import state
from minires.op import Op

IMAGES = np.random.default_rng(0).standard_normal((4, 2, 6, 6)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0])


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setitem(profiling._SIZES, "cpu", (1 << 12, 8, 1, 2))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Sequential(nn.Conv2d(5, 4, 1, bias=False)))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def ticking():
    """A clock that goes on by one second whenever it is looked at."""
    numbers = itertools.count()
    return lambda: float(next(numbers))


def by_name(found):
    return {(row.name, row.part): row for row in found.rows}


def by_path(found):
    return {".".join(row.path): row for row in found.modules}


def test_calls_are_counted_and_shares_add_up():
    found = bench.profile(Net(), IMAGES, LABELS, steps=3, ceilings=False)
    rows = by_name(found)
    for part in ("forward", "backward"):
        calls = {row.name: row.calls for row in found.rows if row.is_op and row.part == part}
        assert calls == {"conv2d": 2, "relu": 1, "mean": 1, "linear": 1, "label_cross_entropy": 1}
    rest = {key for key, row in rows.items() if not row.is_op}
    assert rest == {("data to the device", ""), ("optimiser", ""), ("between the ops", "forward"),
                    ("between the ops", "backward")}  # fmt: skip
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert sum(row.seconds for row in found.rows) == pytest.approx(np.mean(found.observed))
    assert all(row.seconds >= 0 for row in found.rows)
    assert len(found.plain) == len(found.observed) == 3
    assert found.rows == sorted(found.rows, key=lambda row: -row.seconds)


def test_the_observer_takes_its_own_time_off():
    """With a clock that only the profiler moves, each op takes one second: begin and end are one look apart."""
    found = bench.profile(Net(), IMAGES, LABELS, steps=2, ceilings=False, clock=ticking())
    for row in found.rows:
        if row.is_op:
            assert row.seconds == row.calls
    assert sum(row.share for row in found.rows) == pytest.approx(1)


def test_operations_are_those_of_the_summary():
    model = Net()
    rows = by_name(bench.profile(model, IMAGES, LABELS, steps=2, ceilings=False))
    products = rows["conv2d", "forward"].flops + rows["linear", "forward"].flops
    assert products == 2 * len(IMAGES) * nn.summary(model, (2, 6, 6)).macs
    first, second = 2 * 4 * 36 * 5 * 2 * 9, 2 * 4 * 36 * 4 * 5
    assert rows["conv2d", "forward"].flops == first + second
    assert rows["conv2d", "backward"].flops == first + 2 * second  # the image wants no gradient
    assert rows["relu", "forward"].flops is None
    assert rows["relu", "forward"].bytes == 4 * 2 * 4 * 36 * 5
    assert rows["relu", "backward"].bytes == 4 * 3 * 4 * 36 * 5  # y, dy, dx


def test_modules_are_a_tree():
    found = bench.profile(Net(), IMAGES, LABELS, steps=2, ceilings=False)
    rows = by_path(found)
    assert list(rows) == ["", "body", "body.0", "body.1", "body.2", "body.2.0", "head", "(outside)"]
    assert [row.calls for row in found.modules] == [1] * 8
    assert rows["body.2.0"].kind == "Conv2d"
    assert rows["body.2"].forward == rows["body.2.0"].forward > 0
    assert rows["body"].backward == pytest.approx(sum(rows[f"body.{i}"].backward for i in range(3)))
    ops = sum(row.seconds for row in found.rows if row.is_op)
    assert rows[""].seconds + rows["(outside)"].seconds == pytest.approx(ops)
    assert rows[""].kept + rows["(outside)"].kept == sum(row.kept for row in found.rows)


def test_a_module_that_is_used_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x))

    criterion = nn.CrossEntropyLoss()
    found = bench.profile(Twice(), np.ones((2, 3), np.float32), np.array([0, 1]), 1, loss=criterion, ceilings=False)
    assert by_path(found)["layer"].calls == 2
    assert by_path(found)[""].calls == 1
    assert by_path(found)["(outside)"].seconds > 0


def test_kept_bytes_are_counted_once_for_each_memory():
    weight = mr.tensor(np.ones((3, 5)), requires_grad=True)
    x = mr.tensor(np.ones((7, 3)), requires_grad=True)
    observer = Observer(ticking(), lambda: None)
    with observer.watching():
        y = x @ weight  # keeps x; and the weight, which lasts anyway
        z = y.reshape(35).exp()  # keeps z
        out = (z.reshape(7, 5) * y).sum()  # keeps z once more, and y
        (y * 3).exp()  # nobody will walk back there: freed at once
        observer.count_kept([weight.data])
    kept = {key[0]: tally.kept for key, tally in observer.tallies.items() if tally.kept}
    assert kept == {"matmul": 8 * 21, "exp": 8 * 35, "mul": 8 * 35}
    out.backward()
    assert x.grad is not None


def test_views_move_nothing():
    x = np.zeros((4, 6), np.float32)
    assert formulas.bytes_moved("reshape", [x], [x.reshape(24)]) == 0
    assert formulas.bytes_moved("add", [x], [x]) == 0  # the gradient of both is dy itself
    assert formulas.bytes_moved("add", [x, x], [x + x]) == 2 * x.nbytes
    assert formulas.bytes_moved("mul", [np.broadcast_to(x[:1], (4, 6))], [x + x]) == x.nbytes + 24
    assert formulas.bytes_moved("getitem", [x], [x[[1]]]) == 2 * 24


def test_every_op_has_a_formula_or_is_bound_by_memory():
    found = set()
    for info in pkgutil.iter_modules(functional.__path__):
        module = importlib.import_module(f"minires.functional.{info.name}")
        found |= {each.name for each in vars(module).values() if isinstance(each, Op)}
    assert found == set(formulas.OPERATIONS) | formulas.MEMORY_ONLY
    assert not set(formulas.OPERATIONS) & formulas.MEMORY_ONLY


def operations_of(work):
    observer = Observer(ticking(), lambda: None)
    with observer.watching():
        work().sum().backward()
    return {key[:2]: tally.flops for key, tally in observer.tallies.items() if tally.flops}


def random(*shape, grad=True):
    return mr.tensor(np.random.default_rng(1).standard_normal(shape), requires_grad=grad)


def test_operations_of_known_calls():
    a, b = random(2, 3, 4), random(4, 5)
    assert operations_of(lambda: a @ b) == {("matmul", "forward"): 240, ("matmul", "backward"): 480}
    c = random(4, 5, grad=False)
    assert operations_of(lambda: a @ c)["matmul", "backward"] == 240
    found = operations_of(lambda: functional.einsum("nij,jk->nk", a, b))
    assert found == {("contraction", "forward"): 240, ("contraction", "backward"): 480}
    x, w = random(1, 4, 5, 5), random(6, 2, 3, 3)
    found = operations_of(lambda: conv2d(x, w, groups=2))
    assert found == {("conv2d", "forward"): 2 * 6 * 9 * 18, ("conv2d", "backward"): 4 * 6 * 9 * 18}
    w = random(4, 6, 2, 2)
    assert operations_of(lambda: functional.conv_transpose2d(x, w))["conv_transpose2d", "forward"] == 2 * 100 * 24
    found = operations_of(lambda: functional.max_pool2d(x, 2))
    assert found == {("max_pool2d", "forward"): 4 * 4 * 4, ("max_pool2d", "backward"): 16}
    found = operations_of(lambda: functional.avg_pool2d(random(1, 1, 4, 4), 2))  # 2 taps for each of 2 rows, of 2 columns
    assert found == {("resample", "forward"): 2 * (4 * 4 + 2 * 4), ("resample", "backward"): 2 * (4 * 4 + 2 * 4)}


def test_an_op_without_a_formula_is_named():
    @mr.op
    def double(x: mr.Array) -> mr.Array:
        return 2 * x

    @double.backward
    def _(dy):
        return 2 * dy

    class Doubled(Net):
        def forward(self, x):
            return double(super().forward(x))

    found = bench.profile(Doubled(), IMAGES, LABELS, steps=1, ceilings=False)
    assert found.unknown == ["double"]
    row = by_name(found)["double", "backward"]
    assert (row.flops, row.bytes, row.calls) == (None, None, 1)
    assert "no formula for operations and bytes of: double" in str(found)


def test_evaluation_keeps_nothing():
    model = Net()
    found = bench.profile(model, IMAGES, steps=2, train=False, ceilings=False)
    assert not any(row.kept for row in [*found.rows, *found.modules])
    assert {row.part for row in found.rows if row.is_op} == {"forward"}
    assert "label_cross_entropy" not in {row.name for row in found.rows}
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert "forward pass (evaluation mode, no_grad)" in str(found)


def test_the_network_is_afterwards_as_it_was():
    model = models.small_attention(3, widths=(8,), depths=(1,), min_size=8).eval()
    next(model.children()).train()
    modes = [module.training for module in model.modules()]
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    grads = [mr.zeros(*p.shape) for p in model.parameters()]
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        parameter.grad = grad
    bench.profile(model, np.ones((2, 1, 9, 9), np.float32), np.array([0, 2]), steps=2, ceilings=False)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert not any(module._pre_hooks for module in model.modules())


def test_a_step_that_is_observed_computes_the_same():
    model = Net()

    def gradients():
        for parameter in model.parameters():
            parameter.grad = None
        cross_entropy(model(mr.tensor(IMAGES)), mr.tensor(LABELS)).backward()
        return [parameter.grad.numpy() for parameter in model.parameters()]

    expected = gradients()
    with Observer(ticking(), lambda: None).watching():
        found = gradients()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_exception_restores_everything(where):
    @mr.op
    def fail(x: mr.Array) -> mr.Array:
        if where == "forward":
            raise RuntimeError("no")
        return x + 0

    @fail.backward
    def _(dy):
        raise RuntimeError("no")

    class Failing(Net):
        def forward(self, x):
            assert observers.append(state.observer) is None
            return fail(super().forward(x)) if state.observer else super().forward(x)

    observers: list[object] = []
    model = Failing().eval()
    with pytest.raises(RuntimeError, match="no"):
        bench.profile(model, IMAGES, LABELS, steps=1, ceilings=False)
    assert observers[-1] is not None
    assert state.observer is None
    assert state.grad_enabled
    assert not model.training
    assert not any(module._pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_is_kept_alive():
    class Remembered(Net):
        def forward(self, x):
            y = super().forward(x)
            nodes.append(weakref.ref(y._node))
            return y

    nodes: list[weakref.ref] = []
    found = bench.profile(Remembered(), IMAGES, LABELS, steps=1, ceilings=False)
    assert found.rows
    assert len(nodes) == 3  # to warm up, alone, observed
    assert all(node() is None for node in nodes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 0}, "steps must be at least 1"), ({"labels": None}, "needs labels"), ({"images": IMAGES[:0]}, "is empty")],
)
def test_mistakes(changes, message):
    given = {"images": IMAGES, "labels": LABELS, "steps": 1} | changes
    with pytest.raises(ValueError, match=message):
        bench.profile(Net(), **given)


def test_bench_says_what_it_has_not():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = bench.nothing
    assert set(options.SORTS) == set(profile_text.SORTS)


# ------------------------------------------------------------------------------------------------- tables, and the command


def test_limits_and_json():
    found = bench.profile(Net(), IMAGES, LABELS, steps=1)
    assert found.copy > 0
    assert found.product > 0
    read = json.loads(found.to_json())
    row = next(each for each in read["rows"] if (each["name"], each["part"]) == ("conv2d", "forward"))
    assert row["flops_per_second"] == pytest.approx(row["flops"] / row["seconds"])
    expected = max(row["bytes_per_second"] / found.copy, row["flops_per_second"] / found.product)
    assert row["of_limit"] == pytest.approx(expected)
    assert [tuple(each["path"]) for each in read["modules"]] == [each.path for each in found.modules]


def test_small_tables_say_what_they_left_out():
    found = bench.profile(Net(), IMAGES, LABELS, steps=1, ceilings=False, clock=ticking())
    text = profile_text.text(found, by="both", depth=1, rows=7)
    lines = text.splitlines()
    assert next(line for line in lines if "together" in line).split()[-3:-1] == ["100.0", "%"]
    assert any("10 more" in line for line in lines)
    assert "and 1 smaller ones and 4 deeper ones" in text
    table = lines[next(i for i, line in enumerate(lines) if line.lstrip().startswith("module")) :]
    assert table[1].startswith("  Net ")
    for sort in options.SORTS:
        shown = profile_text.text(found, by="module", sort=sort, rows=3).splitlines()
        assert sum(line.startswith("    ") for line in shown) == 2  # below the network, which is always there


def test_the_command(capsys, tmp_path):
    arguments = ["profile", "small_attention", "--batch", "2", "--steps", "1", "--json", str(tmp_path / "found.json")]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert text.count("\n") <= 40
    assert max(map(len, text.splitlines())) <= 125
    for expected in ("training step, batch 2 of 1×29×29, cpu", "conv2d", "optimiser", "together", "stage1", "of limit"):
        assert expected in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["numpy"]
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1)
    assert len(found["modules"]) > 50


def test_the_command_in_evaluation(capsys):
    assert (
        cli.main(["profile", "small_attention", "--batch", "1", "--steps", "1", "--eval", "--by", "op", "--rows", "3"]) == 0
    )
    text = capsys.readouterr().out
    assert "backward" not in text
    assert "kept" not in text  # a column without any number
    assert "module " not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "'nobody' is neither a checkpoint nor a model; models: "),
        (["cifar_attention", "--steps", "0"], "expected a whole number, 1 or more, got '0'"),
        (["cifar_attention", "--depth", "-1"], "--depth"),
        (["cifar_attention", "--size", "3"], "at least 32×32"),
        (["cifar_attention", "--device", "gpu"], "device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ([], "required: MODEL"),
    ],
)
def test_mistakes_of_the_command_are_one_line(arguments, message, capsys):
    assert cli.main(["profile", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
