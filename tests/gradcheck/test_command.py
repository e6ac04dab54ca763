"""``minires gradcheck``: whatever the functions in a file do, it ends in a report or in a line, and the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minires import checking, cli
from minires.checking import child, command

BACK = "def backward(inputs, g):\n"
HEAD = "import os\nimport numpy as np\ndef forward(inputs, power=2):\n    (x,) = inputs\n    return x**power\n"
RIGHT = "def backward(inputs, g, power=2):\n    (x,) = inputs\n    return (power * x**(power - 1) * g,)\n"
WRONG = RIGHT.replace("return (", "return (-")
INPUT = ("--input", "x=2,3")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text, name="mine.py"):
    path = Path(name)
    path.write_text(text)
    return str(path)


def run(*arguments, capsys):
    code = cli.main(["gradcheck", *map(str, arguments)])
    return code, *capsys.readouterr()


def spec_of(*arguments):
    """What the child is told, for a run in this process."""
    options = command._parser().parse_args(list(arguments))
    return command._spec(options, arguments)


def answer(*arguments):
    """What the child would answer; it runs in this process, where neither time nor memory is limited."""
    path, modules, argv = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    try:
        return child.run(spec_of(*arguments))
    finally:
        sys.path[:], sys.dont_write_bytecode = path, argv
        for name in set(sys.modules) - modules:
            if name.startswith("checked_"):
                del sys.modules[name]


# ------------------------------------------------------------------------------------ reports


def test_right_wrong_and_undecidable_have_their_exit_codes(monkeypatch, capsys):
    code, out, err = run(write(HEAD + RIGHT), *INPUT, capsys=capsys)
    assert code == 0 and not err and out.startswith("gradient of backward: right (reference: complex step, seed 0)\n")
    assert "reproduce" not in out and "  x      (2, 3)  right" in out
    options = ("--option", "power=3", "--seed", 5, "--json", "out/r.json", "--plot", "out/p.png")
    code, out, err = run(write(HEAD + WRONG), *INPUT, *options, capsys=capsys)
    assert code == 1 and not err and "dx: sign_flipped" in out
    assert out.splitlines()[-1].startswith("reproduce: minires gradcheck mine.py --input x=2,3 --option power=3 --seed 5")
    content = json.loads(Path("out/r.json").read_text())
    assert content["labels"] == {"x": "sign_flipped"} and content["seed"] == 5
    assert Path("out/p.png").read_bytes()[:4] == b"\x89PNG"
    result = {"verdict": "undecidable", "text": "gradient of f: undecidable", "json": "{}"}
    monkeypatch.setattr(command, "_in_child", lambda spec, folder: (result, ""))
    assert run("mine.py", *INPUT, capsys=capsys) == (2, "gradient of f: undecidable\n", "")


def test_hints_reach_the_report():
    write(HEAD + WRONG)
    texts = {level: answer("mine.py", *INPUT, "--hints", level)["text"] for level in ("verdict", "where", "class")}
    assert "6/6" not in texts["verdict"] and "6/6" in texts["where"] and "sign" not in texts["where"]
    assert "dx: sign_flipped\n" in texts["class"]


def test_functions_are_found_by_name():
    write(HEAD.replace("forward", "square_forward") + RIGHT.replace("backward", "square_backward"), "a.py")
    assert answer("a.py:square_backward", *INPUT)["verdict"] == "right"
    write(HEAD.replace("forward", "square") + RIGHT.replace("backward", "square_backward"), "b.py")
    assert answer("b.py:square_backward", *INPUT)["verdict"] == "right"
    assert answer("b.py:square_backward", "--forward", "a.py:square_forward", *INPUT)["verdict"] == "right"
    assert answer("b.py:square_backward", "--forward", "square", *INPUT)["verdict"] == "right"
    found = answer("b.py:square_backward", "--forward", "b.py", *INPUT)["verdict"]
    assert found == "right"
    write("from helper import double\ndef forward(inputs):\n    return inputs[0] ** 2\n"
          "def backward(inputs, grad_output):\n    return (double(inputs[0]) * grad_output,)\n", "c.py")  # fmt: skip
    write("def double(x):\n    return 2 * x\n", "helper.py")
    assert answer("c.py", *INPUT)["verdict"] == "right"  # a file may import its neighbours
    del sys.modules["helper"]


def test_kinds_of_inputs():
    write("import numpy as np\ndef forward(inputs, scale=1):\n    x, k, s = inputs\n    seen(x, k, s)\n"
          "    return scale * np.log(x) * s * k.astype(s.dtype)\n"
          "def backward(inputs, grad_output, scale=1):\n    x, k, s = inputs\n"
          "    g = scale * grad_output * k.astype(s.dtype)\n    return g * s / x, None, np.sum(g * np.log(x))\n"
          "def seen(x, k, s):\n    if np.iscomplexobj(x): return\n"
          "    assert x.shape == k.shape == (3,) and s.shape == () and k.dtype.kind == 'i' and x.min() > 0\n"
          "    assert set(k) <= {4, 5, 6}\n")  # fmt: skip
    inputs = ("--input", "x=3:float:0.5..2", "--input", "k=3:int:4..6", "--input", "s=()")
    assert answer("mine.py", *inputs, "--option", "scale=2.5")["verdict"] == "right"
    np.save("x.npy", np.arange(3, dtype=np.float64) + 1)
    inputs = ("--input", "x=@x.npy", *inputs[2:], "--dtype", "float32")
    found = answer("mine.py", *inputs)
    assert found["verdict"] == "right" and "in float32" in found["text"]
    assert child.options_of({"a": "(1, 2)", "b": "same", "c": "True"}) == {"a": (1, 2), "b": "same", "c": True}


# ------------------------------------------------------------------------------------ functions that do not work

BAD = {  # name: (the file, part of the one line)
    "an error": (HEAD + BACK + "    return inputs[5]\n", "line 7, in backward: IndexError: tuple index"),
    "an error at import": (HEAD + "1 / 0\n", "mine.py, line 6: ZeroDivisionError: division by zero: 1 / 0"),
    "an error in forward": (HEAD.replace("x**power", "y") + RIGHT, "mine.py, line 5, in forward: NameError"),
    "wrong syntax": (HEAD + "def backward(inputs, g)\n    return g\n", "line 6: expected ':': def backward(inputs, g)"),
    "no backward": (HEAD + "def backwards(): pass\n", "has no function backward; there is forward, backwards"),
    "no forward": (RIGHT, "mine.py has no function forward; there is backward"),
    "a missing module": ("import nothing_there\n" + HEAD + RIGHT, "line 1: ModuleNotFoundError"),
    "exit": (HEAD + BACK + "    exit()\n", "line 7, in backward: the program ends itself"),
    "too few parameters": (HEAD + "def backward(inputs):\n    return inputs\n", "line 6: backward() takes 1 positional"),
    "no floats": ("def forward(inputs):\n    return inputs[0] > 0\n" + RIGHT, "forward must return floating point"),
    "endless recursion": (HEAD + BACK + "    return backward(inputs, g)\n", "line 7, in backward: Recursion"),
    "too much memory": (HEAD + "a = np.ones(10**14)\n", "line 6: more than 2048 MB of memory are needed"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_work_is_one_line_with_the_users_own_line_number(name):
    text, part = BAD[name]
    write(text)
    (found,) = answer("mine.py", *INPUT).items()
    assert found[0] == "error" and "\n" not in found[1] and part in found[1]
    assert "minires" not in found[1] and "Traceback" not in found[1]


HARD = {  # name: (the file, options, part of the message)
    "a loop without end": (HEAD + BACK + "    while True:\n        try: pass\n        except: pass\n",
                           "--max-seconds=0.3", "in backward: does not come to an end"),
    "a crash": (HEAD + "import ctypes\nctypes.string_at(0)\n", "--memory=500", "mine.py, line 7: the process crashed"),
    "killed": (HEAD + "os.kill(os.getpid(), 9)\n", "--memory=500", "killed by signal 9"),
    "memory in small pieces": (HEAD + BACK + "    many = []\n    while True:\n        many.append(np.ones(10**6))\n",
                               "--memory=100", "in backward: more than 100 MB of memory are needed"),
    "os._exit": (HEAD + BACK + "    os._exit(0)\n", "--memory=500", "line 7, in backward: the program ends"),
    "reads": (HEAD + "print('first')\ninput()\n", "--memory=500", "line 7: EOFError"),
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="limits and signals are POSIX's")
@pytest.mark.parametrize("name", HARD)
def test_what_would_take_us_down_ends_in_a_line(name, capsys):
    text, option, part = HARD[name]
    write(text)
    started = time.perf_counter()
    code, out, err = run("mine.py", *INPUT, option, capsys=capsys)
    assert code == 3 and not out and time.perf_counter() - started < 30
    last = err.splitlines()[-1]
    assert last.startswith("minires gradcheck: mine.py") and part in last and "Traceback" not in err
    assert len(err.splitlines()) == (2 if name == "reads" else 1)


def test_what_is_printed_does_not_mix_with_the_report(capsys):
    text = RIGHT.replace("    (x,)", "    print('looking', chr(7))\n    (x,)")
    code, out, err = run(write(HEAD + text), *INPUT, capsys=capsys)
    assert code == 0 and "looking" not in out
    lines = err.splitlines()
    assert lines[0] == "  | looking �" and len(lines) == 11 and "more lines printed by mine.py" in lines[-1]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_what_the_functions_started_ends_with_them(capsys):
    start = "import subprocess, threading, time\nP = subprocess.Popen(['sleep', '600'])\n"
    start += "open('pid', 'w').write(str(P.pid))\n"
    thread = "threading.Thread(target=time.sleep, args=(600,)).start()\n"
    code, _, _ = run(write(HEAD + RIGHT + start + thread), *INPUT, capsys=capsys)
    assert code == 0
    status = Path("/proc", Path("pid").read_text(), "stat")
    for _ in range(100):
        if not status.exists() or status.read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the process still runs")


# ------------------------------------------------------------------------------------ calls that do not work

CALLS = {
    "no file": ([], "which file?"),
    "unknown file": (["no.py", *INPUT], "no.py: no such file"),
    "no inputs": (["mine.py"], "--input"),
    "unknown option": (["mine.py", *INPUT, "--wat"], "--wat"),
    "no shape": (["mine.py", "--input", "x"], "expected NAME=..."),
    "bad shape": (["mine.py", "--input", "x=a,b"], "expected a shape like x=2,3,5"),
    "bad range": (["mine.py", "--input", "x=2:int:0.5..9"], "whole numbers"),
    "range without numbers": (["mine.py", "--input", "x=2:float:...."], "x=2:float:...."),
    "two dots too many": (["mine.py", "--input", "x=2:float:1.2.3..4"], "no two numbers"),
    "reversed range": (["mine.py", "--input", "x=2:float:3..1"], "the smaller one first"),
    "same name": (["mine.py", *INPUT, *INPUT], "the same name"),
    "no array": (["mine.py", "--input", "x=@nothing.npy"], "nothing.npy: no such file"),
    "bad name": (["mine.py", "--input", "1=2,3"], "expected NAME=..."),
    "bad option": (["mine.py", *INPUT, "--option", "stride"], "--option: expected NAME=..."),
    "bad seed": (["mine.py", *INPUT, "--seed", "-1"], "--seed"),
    "bad dtype": (["mine.py", *INPUT, "--dtype", "int8"], "--dtype"),
    "bad hints": (["mine.py", *INPUT, "--hints", "none"], "--hints"),
    "bad memory": (["mine.py", *INPUT, "--memory", "1"], "at least 16 MB"),
    "bad seconds": (["mine.py", *INPUT, "--max-seconds", "nan"], "--max-seconds"),
    "no forward file": (["mine.py", *INPUT, "--forward", "other.py:f"], "other.py: no such file"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_call_is_one_line_and_exit_code_3(name, capsys):
    write(HEAD + RIGHT)
    arguments, part = CALLS[name]
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 3 and not out and err.count("\n") == 1 and err.startswith("minires gradcheck: ") and part in err


def test_files_that_are_no_arrays():
    write(HEAD + RIGHT)
    Path("x.npy").write_text("text")
    assert "x.npy: is no .npy file" in answer("mine.py", "--input", "x=@x.npy")["error"]
    np.savez("x.npz", a=np.ones(2), b=np.ones(2))
    assert "one array" in answer("mine.py", "--input", "x=@x.npz")["error"]
    assert "is no Python file" in answer(write("", "notes.txt"), *INPUT)["error"]
    write(HEAD + RIGHT)
    assert "none of the inputs is floating point" in answer("mine.py", "--input", "x=3:int:0..9")["error"]


def test_files_that_cannot_be_written(capsys):
    write(HEAD + WRONG)
    Path("file").write_text("")
    found = answer("mine.py", *INPUT, "--plot", "file/x.png")
    assert found["verdict"] == "wrong" and "--plot" in found["note"]
    code, out, err = run("mine.py", *INPUT, "--plot", "x.nothing", "--json", "r.json", capsys=capsys)
    assert code == 3 and "sign_flipped" in out and "--plot" in err and err.count("\n") == 1 and Path("r.json").exists()
    code, out, err = run("mine.py", *INPUT, "--json", "file/x.json", capsys=capsys)
    assert code == 3 and err.count("\n") == 1 and "file" in err


def test_a_fault_of_the_checker_is_not_the_users(monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("math domain error")

    monkeypatch.setattr(checking, "gradcheck_pair", fail)
    write(HEAD + RIGHT)
    assert answer("mine.py", *INPUT) == {"error": "the check itself failed: ValueError: math domain error"}


def test_limits_are_taken_back():
    with child.limits(1 << 20, 1e6):
        np.ones(10)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    assert soft == hard


def test_ctrl_c_and_closed_pipes(monkeypatch, capsys):
    write(HEAD + RIGHT)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_in_child", interrupt)
    assert run("mine.py", *INPUT, capsys=capsys) == (130, "", "minires gradcheck: interrupted\n")


def test_help_and_self_test(monkeypatch, capsys):
    code, out, _ = run("--help", capsys=capsys)
    assert code == 0 and "labels=4:int:0..9" in out and "exit code: 0 right, 1 wrong, 2 undecidable, 3" in out
    fake = type(sys)("minires.checking.selftest")
    fake.main = lambda: print("table") or 0
    monkeypatch.setitem(sys.modules, "minires.checking.selftest", fake)
    monkeypatch.setattr(checking, "selftest", fake, raising=False)
    assert run("--self-test", capsys=capsys) == (0, "table\n", "")


def test_as_a_program():
    write(HEAD + RIGHT)
    root = str(Path(cli.__file__).parents[1])
    Path("numpy.py").write_text("raise ImportError('not this one')")  # a neighbour that hides a library stays harmless
    got = subprocess.run(
        [sys.executable, "-P", "-m", "minires", "gradcheck", "mine.py", *INPUT], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert got.returncode == 0 and "right" in got.stdout and not got.stderr
