"""A step as a graph makes the numbers of an ordinary step, bit for bit, and where it cannot be one, training says so."""

from __future__ import annotations

import signal
import warnings

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import kernels, nn, optim, random
from minires.data import DataLoader, TensorDataset
from minires.modes import Mode
from minires.training import DivergedError, Interrupted, Trainer, build_trainer
from minires.training import graph as graphs
from minires.training import tally as tallies
from minires.training.sources import open_source
from tests.cuda import standin as stand_in
from tests.cuda.standin import cublas
from tests.training.tiny import TINY

#: 3 steps an epoch, the last one smaller.
JOB = TINY.with_(
    device="cuda", batch_size=4, train_images=10, test_images=4, epochs=3,
    options={"widths": (4, 4), "depths": (1, 1), "stem": 4, "after": 0, "p": 0, "t": 1, "r": 1},
)  # fmt: skip


@pytest.fixture
def gpu(cuda):
    """The stand-in with its cuBLAS, or a GPU."""
    if cuda.ndarray is stand_in.ndarray:
        with cublas.installed():
            yield cuda
    else:
        yield cuda


def trainer(job=JOB, out=None, **changes):
    return build_trainer(job.with_(**changes), open_source(job.with_(**changes)), out, quiet=True)


def everything(t):
    """All numbers of a training run, on the CPU."""
    found = {name: tensor.cpu().numpy().copy() for name, tensor in t.model.state_dict().items()}
    for number, values in t.optimizer.state_dict()["state"].items():
        found |= {f"{number}.{name}": v.get() if hasattr(v, "get") else np.asarray(v) for name, v in values.items()}
    names = ("epoch", "step", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return found | {f"history.{i}": np.array([row[n] for n in names], float) for i, row in enumerate(t.history)}


_ordinary: dict[str, dict[str, np.ndarray]] = {}


def ordinary(gpu, **changes):
    """All numbers after training by ordinary steps, without an interruption."""
    key = f"{gpu.ndarray} {changes}"
    if key not in _ordinary:
        t = trainer(graph=False, **changes)
        t.fit(JOB.epochs)
        assert t.steps.step.replays == 0
        _ordinary[key] = everything(t)
    return _ordinary[key]


def assert_same(a, b):
    first, second = (each if isinstance(each, dict) else everything(each) for each in (a, b))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "lr": 0.05, "label_smoothing": 0.1}])
def test_graph_and_ordinary_steps_agree_bit_for_bit(gpu, changes):
    t = trainer(**changes)
    t.fit(JOB.epochs)
    assert_same(t, ordinary(gpu, **changes))
    assert t.steps.step.replays == 6 and t.steps.step.reason is None
    assert len(t.steps.step._graphs) == 2, "one for each shape of batch"
    assert t.history[0]["lr"] > t.history[1]["lr"], "the rate changed while the graph was replayed"


def test_the_gpu_makes_the_steps_of_the_cpu(gpu):
    t, cpu = trainer(lr=1e-3), trainer(lr=1e-3, device="cpu")
    for each in (t, cpu):
        each.fit(2)
    for row, expected in zip(t.history, cpu.history, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)
    assert cpu.steps is None


def test_a_rate_changed_by_hand_and_weights_that_were_frozen(gpu):
    """Options reach the graph; what changes its kernels makes a new one."""
    both = [trainer(schedule="constant"), trainer(schedule="constant", graph=False)]
    for t in both:
        t.fit(2)
        t.optimizer.param_groups[0].update(lr=0.002, weight_decay=0.2)
        t.fit(3)
        assert len(t.steps.step._graphs) == (2 if t is both[0] else 0)
        next(iter(t.model.parameters())).requires_grad = False
        t.fit(5)
    assert_same(*both)
    assert both[0].steps.step.reason is None and both[0].steps.step.replays == 3 + 3 + 3


def test_nobody_waits_in_a_step(gpu, monkeypatch):
    if gpu.ndarray is not stand_in.ndarray:
        pytest.skip("only the stand-in counts")
    monkeypatch.setattr(tallies, "EVERY", 1000)
    t = trainer(test_every=0)
    t.test = None
    t.fit(1)
    make, made = t.steps.make, []

    def watched(*batch):
        with stand_in.no_syncs():
            made.append(make(*batch))

    t.steps.make = watched
    t.fit(2)
    assert made == [None] * 3 and t.steps.step.replays == 3


def test_the_progress_bar_sees_a_count_that_is_some_steps_old(gpu, monkeypatch):
    monkeypatch.setattr(tallies, "EVERY", 1)
    t, shown = trainer(), []
    make = t.steps.make

    def watched(*batch):
        shown.append(make(*batch))
        return shown[-1]

    t.steps.make = watched
    t.fit(1)
    assert shown[0] is None and 0 < shown[1][0] < 10 and shown[2] != shown[1] and 0 <= shown[2][1] <= 1


@pytest.mark.parametrize("steps", [2, 4, 6, 8])
def test_interrupted_and_continued_equals_uninterrupted(gpu, tmp_path, steps):
    """In the first epoch, in the middle of a later one, at the end of one; continued by a graph and without."""
    whole = ordinary(gpu)
    first = trainer(out=tmp_path)
    schedule_step = first.schedule.step

    def stop_after():
        schedule_step()
        if first.step + 1 == steps:
            signal.raise_signal(signal.SIGINT)

    first.schedule.step = stop_after
    with pytest.raises(Interrupted) as stopped:
        first.fit(3)
    assert stopped.value.path == tmp_path / "checkpoint.safetensors"
    mr.manual_seed(99)
    second = trainer(graph=steps % 4 == 0)
    second.load(tmp_path / "checkpoint.safetensors")
    assert second.step == steps
    second.fit(3)
    assert_same(whole, second)
    first.fit(3)
    assert_same(whole, first)


def test_a_step_that_fails_leaves_the_steps_before_it(gpu):
    """As after a second Ctrl-C in a notebook: what was counted fits the images that were counted."""
    t = trainer()
    make = t.steps.make

    def fail(*batch):
        if t.step == 1:
            raise KeyboardInterrupt
        return make(*batch)

    t.steps.make = fail
    with pytest.raises(KeyboardInterrupt):
        t.fit(1)
    assert t._sums["images"] == 4 and 1 < t._sums["loss"] / 4 < 5


@pytest.mark.parametrize("at", [1, 7])
def test_a_loss_that_is_not_finite_is_noticed_and_named(gpu, tmp_path, at):
    """The step that is named is the first bad one, though the host looks later."""
    t = trainer(out=tmp_path)
    t.callbacks.append(lambda trainer, row: spoil(trainer, at) if row["epoch"] == 2 else None)
    if at == 1:
        spoil(t, 0)
    with pytest.raises(DivergedError, match=rf"became nan in epoch {1 if at == 1 else 3}, step {at}, at a learning rate"):
        t.fit(3)


def spoil(t, at):
    t.model.classifier.bias.assign(np.nan if not at else t.model.classifier.bias.data * float("nan"))


# ------------------------------------------------------------------------------------ steps that cannot be a graph


def data(count=8):
    images = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    return DataLoader(TensorDataset(images, np.arange(count) % 2), 4, shuffle=True)


def small(model, optimizer=None, **options):
    random.manual_seed(1)
    for parameter in model.parameters():
        parameter.assign(np.linspace(-0.5, 0.5, parameter.numel(), dtype=np.float32).reshape(parameter.shape))
    model = model.to("cuda")
    optimizer = (optimizer or optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
    return Trainer(model, optimizer, nn.CrossEntropyLoss(), data(), device="cuda", quiet=True, **options)


class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x) * (1.0 if float(x.data.max()) > -1e9 else 2.0)


class Drawing(Reading):
    def forward(self, x):
        return F.dropout(self.linear(x), 0.5, self.training)


class OwnRule(optim.SGD):
    def update(self, group, steps, weight, gradient, scratch, state):
        super().update(group, steps, weight, gradient, scratch, state)


def hooked():
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].register_forward_hook(lambda module, inputs, output: None)
    return model


def hooked_weight():
    model = nn.Linear(3, 2)
    model.weight.register_hook(lambda gradient: gradient * 2)
    return model


@pytest.mark.parametrize(
    ("make", "optimizer", "reason"),
    [
        (Drawing, None, "draws random numbers on the host"),
        (Reading, None, "captur"),
        (hooked, None, "0 has a hook, and hooks run on the host"),
        (lambda: nn.Linear(3, 2), OwnRule, "OwnRule computes with numbers of the host"),
    ],
)
def test_without_a_graph_training_goes_on_after_one_warning(gpu, make, optimizer, reason):
    plain = small(make(), optimizer, graph=False)
    plain.fit(4)
    t = small(make(), optimizer)
    with pytest.warns(RuntimeWarning, match=f"goes on without a CUDA graph, more slowly: .*{reason}") as caught:
        t.fit(4)
    assert len(caught) == 1 and t.steps.step.replays == 0
    assert_same(plain, t)


def test_hooks_of_weights_and_anomaly_detection(gpu):
    t = small(nn.Linear(3, 2))
    t.model.weight.register_hook(lambda gradient: gradient * 2)
    with pytest.warns(RuntimeWarning, match="weight has a hook"):
        t.fit(2)
    t = small(nn.Linear(3, 2))
    with pytest.warns(RuntimeWarning, match="detect_anomaly"), mr.detect_anomaly():
        t.fit(2)


def test_a_fault_of_the_step_itself_shows(gpu):
    """It is raised by the ordinary step that follows the capture, with its own traceback."""

    class Faulty(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 2:
                raise ArithmeticError("no more")
            return super().forward(x)

    t = small(Faulty(3, 2))
    with pytest.warns(RuntimeWarning, match="no more"), pytest.raises(ArithmeticError, match="no more"):
        t.fit(4)


def test_a_second_ctrl_c_during_the_capture_ends_it(gpu):
    class Impatient(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 2:
                raise KeyboardInterrupt
            return super().forward(x)

    t = small(Impatient(3, 2))
    with pytest.raises(KeyboardInterrupt):
        t.fit(4)
    assert not t.steps.step.stream.is_capturing() and not mr.modes.state.capturing


def test_there_are_not_too_many_graphs(gpu, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 1)
    t = trainer()
    t.fit(3)
    assert len(t.steps.step._graphs) == 1 and t.steps.step.replays == 4
    assert_same(t, ordinary(gpu))


def test_only_a_gpu_has_graphs():
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="graph: only a GPU has CUDA graphs, the device is 'cpu'"):
        Trainer(model, optim.SGD(model.parameters()), nn.CrossEntropyLoss(), data(), graph=True)


def test_numbers_of_the_host_are_not_drawn_in_a_capture():
    before = random.get_rng_state()
    with Mode("capturing", True), pytest.raises(RuntimeError, match="draws random numbers on the host"):
        F.dropout(mr.ones(3))
    assert random.get_rng_state() == before


# ------------------------------------------------------------------------------------ what a step counts


def batches(dtype):
    rng = np.random.default_rng(0)
    for rows, classes in [(1, 1), (5, 3), (33, 10), (70, 100)]:
        logits = rng.standard_normal((rows, classes)).astype(dtype).round(1)  # with ties
        if rows == 5:
            logits[2, 1] = logits[3, 2] = np.nan
            logits[4] = -np.inf
        yield logits, rng.integers(0, classes, rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_tally_counts_as_numpy_does(gpu, dtype):
    expected, numbers = np.zeros(6), gpu.zeros(6, np.float64)
    for i, (logits, labels) in enumerate(batches(dtype)):
        loss = np.asarray(0.1 + i, dtype)
        kernels.of(logits).tally(expected, logits, loss, labels)
        kernels.of(numbers).tally(numbers, gpu.asarray(logits), gpu.asarray(loss), gpu.asarray(labels))
        np.testing.assert_array_equal(numbers.get(), expected)
    right = sum(int((x.argmax(axis=1) == y).sum()) for x, y in batches(dtype))
    losses = [float(dtype(0.1 + i)) * rows for i, rows in enumerate((1, 5, 33, 70))]
    assert list(expected[1:5]) == [right, 109, 4, 0] and expected[0] == pytest.approx(sum(losses), rel=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_tally_stops_at_a_loss_that_is_not_finite(gpu, bad):
    tally = tallies.Tally()
    tally.start(1.5, 2)
    logits, labels = gpu.zeros((2, 3), np.float32), gpu.zeros(2, np.int64)
    for value in (1.0, bad, 2.0, np.nan):
        tally.add(logits, gpu.asarray(np.float32(value)).reshape(()), labels)
    count = tally.read()
    assert (count.loss, count.right, count.images, count.steps) == (3.5, 4, 2, 1)
    np.testing.assert_array_equal(count.bad, bad)


def test_unusual_answers_are_counted_too(gpu):
    """Dense predictions (N, C, H, W), and labels of another dtype."""
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((2, 3, 4, 5)).astype(np.float32), rng.integers(0, 3, (2, 4, 5)).astype(np.int32)
    numbers = gpu.zeros(6, np.float64)
    kernels.of(numbers).tally(numbers, gpu.asarray(logits), gpu.ones((), np.float32), gpu.asarray(labels))
    assert list(numbers.get()) == [2, (logits.argmax(axis=1) == labels).sum(), 2, 1, 0, 0]


# ------------------------------------------------------------------------------------ the stand-in's graphs


def test_a_capture_runs_nothing_and_a_launch_runs_all(cuda):
    x, total = cuda.ones(3, np.float32), cuda.zeros(3, np.float32)
    stream = cuda.cuda.Stream(non_blocking=True)
    cuda.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        assert stream.is_capturing()
        y = x * 2
        total += y
        graph = stream.end_capture()
        assert total.get().tolist() == [0, 0, 0]
        graph.launch()
        x[...] = 5
        graph.launch(stream)
        assert total.get().tolist() == [12, 12, 12] and y.get().tolist() == [10, 10, 10]


def test_a_capture_refuses_what_waits(cuda):
    x = cuda.ones(3, np.float32)
    stream = cuda.cuda.Stream(non_blocking=True)
    with stream:
        for wait in (lambda: float(x[0]), x.get, lambda: x.set(np.ones(3, np.float32)), lambda: cuda.asarray(np.ones(3))):
            stream.begin_capture()
            with warnings.catch_warnings(), pytest.raises(RuntimeError):
                wait()
            stream.end_capture()
    blocking = cuda.cuda.Stream(null=True)
    with pytest.raises(RuntimeError):
        blocking.begin_capture()
