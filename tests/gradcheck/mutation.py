"""All small mistakes that can be made in a function: its first-order mutants.

A test that never fails says nothing. So every backward rule of the package is spoilt in every way that the list below knows,
one small change at a time, and the tests have to notice each of them (:mod:`tests.gradcheck.mutation_run`)::

    python -m tests.gradcheck.mutation                  # all rules
    python -m tests.gradcheck.mutation softmax matmul   # these only
    python -m tests.gradcheck.mutation --jobs 2

A mutant is made of the function's syntax tree: a node is replaced, the function compiled, and the node put back. Only the
code object differs, so a mutant is planted by exchanging ``function.__code__``; whoever imported the function sees it.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

#: What replaces an operator, besides dropping one of its operands.
OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,), ast.And: (ast.Or,), ast.Or: (ast.And,),
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip

#: Operators whose operands may stand in either order in a mistake that is not the same as another one.
ORDERED = (ast.Sub, ast.Div, ast.MatMult, ast.Pow)

#: Functions and methods that are taken for each other.
RELATIVES = {
    a: b
    for pair in (
        "mean sum", "max min", "amax amin", "maximum minimum", "argmax argmin", "sin cos", "tril triu", "exp log",
        "zeros ones", "rows columns",
    )
    for a, b in (pair.split(), pair.split()[::-1])
}  # fmt: skip

#: Functions that do not care for the order of their last two arguments.
SYMMETRIC = ("transpose", "swapaxes", "maximum", "minimum", "max", "min")

#: Calls that find the array module or the kernels for an array: any array of the call will do.
DISPATCH = ("array_module", "kernels_of", "of")

#: Functions whose first argument is an equation.
EQUATIONS = ("einsum", "rearrange", "contraction")

Edit = tuple[ast.AST, ast.AST]  # a node, and what takes its place


@dataclass(frozen=True)
class Mutant:
    """A function with one mistake.

    Attributes:
        line: "normalization.py:123".
        change: what was changed, without the line: "`dy * weight` -> `dy`".
        code: of the function with the mistake.
        original: the function without.
    """

    line: str
    change: str
    code: CodeType
    original: FunctionType

    def __str__(self) -> str:
        return f"{self.line} {self.change}"

    @property
    def function(self) -> FunctionType:
        """The mutant as a function of its own, with the globals, the closure and the defaults of the original."""
        cells = dict(zip(self.original.__code__.co_freevars, self.original.__closure__ or (), strict=True))
        closure = tuple(cells[name] for name in self.code.co_freevars)
        original = self.original
        made = FunctionType(self.code, original.__globals__, original.__name__, original.__defaults__, closure)
        made.__kwdefaults__ = original.__kwdefaults__
        return made

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Within, the original makes this mistake."""
        right = self.original.__code__
        self.original.__code__ = self.code
        try:
            yield
        finally:
            self.original.__code__ = right


def mutants(function: Callable[..., Any]) -> list[Mutant]:
    """All first-order mutants of a Python function, in the order of its source; no two have the same text."""
    assert isinstance(function, FunctionType)
    tree = _tree(function)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found, changes, seen = [], Counter[str](), {ast.unparse(tree)}
    where = f"{Path(function.__code__.co_filename).name}:"
    for node, replacement in list(_edits(tree, parents, function)):
        anchor = _anchor(node, parents)
        before = _text(anchor)
        with _replaced(node, replacement, parents):
            after = _text(replacement if anchor is node else anchor)
            text = ast.unparse(tree)
            if text in seen:
                continue
            seen.add(text)
            code = _compiled(tree, function)
        change = f"`{before}` -> `{after}`"
        changes[change] += 1
        if changes[change] > 1:  # the same change at another place
            change += f" ({changes[change]})"
        found.append(Mutant(f"{where}{node.lineno}", change, code, function))
    return found


# ------------------------------------------------------------------------------------ trees


def _tree(function: FunctionType) -> ast.FunctionDef:
    """The function's definition, without decorators, docstring and types, with the line numbers of its file."""
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    ast.increment_lineno(tree, first - 1)
    tree.decorator_list = []
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:] or [ast.copy_location(ast.Pass(), tree)]
    return tree


def _compiled(tree: ast.FunctionDef, original: FunctionType) -> CodeType:
    """The code of the function; names of its closure stay names of a closure."""
    free = [ast.arg(name) for name in original.__code__.co_freevars]
    outside = ast.FunctionDef(
        name="outside", args=ast.arguments([], free, None, [], [], None, []), body=[tree], decorator_list=[]
    )
    module = ast.fix_missing_locations(ast.Module([outside], []))
    future = sys.modules["__future__"].annotations.compiler_flag
    code = compile(module, original.__code__.co_filename, "exec", flags=future, dont_inherit=True)
    for name in ("outside", tree.name):
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    return code


@contextmanager
def _replaced(node: ast.AST, replacement: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[None]:
    parent = parents[node]
    for name, value in ast.iter_fields(parent):
        if value is node:
            setattr(parent, name, replacement)
            yield
            setattr(parent, name, node)
            return
        if isinstance(value, list) and any(each is node for each in value):
            at = next(i for i, each in enumerate(value) if each is node)
            value[at] = replacement
            yield
            value[at] = node
            return
    raise LookupError("the node is not where it was")


def _anchor(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST:
    """The expression or statement by which a change at ``node`` is described: not so short that it says nothing."""
    while isinstance(node, ast.expr | ast.keyword | ast.comprehension | ast.slice):
        if len(ast.unparse(node)) >= 10 and not isinstance(node, ast.keyword | ast.slice | ast.comprehension):
            break
        node = parents[node]
    return node


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    if isinstance(node, ast.For):
        return f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}"
    return ast.unparse(node)


# ------------------------------------------------------------------------------------ edits


def _edits(tree: ast.FunctionDef, parents: dict[ast.AST, ast.AST], function: FunctionType) -> Iterator[Edit]:
    """All changes, in the order of the source."""
    for node in _visited(tree):
        if isinstance(node, ast.stmt):
            yield from _of_statement(node, tree, parents)
        if isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            for kind, edit in EXPRESSIONS.items():
                if isinstance(node, kind):
                    yield from ((node, new) for new in edit(node, function))
            yield from ((node, new) for new in _other_variable(node, tree, parents))
            if _is_gradient(node, parents, function):
                yield node, ast.UnaryOp(ast.USub(), node)


def _visited(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree in order, but for types, messages of errors, and what is no mathematics."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.arguments) or _name(node) in DISPATCH:
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "type_comment"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _visited(child)


def _name(node: ast.AST) -> str:
    """The name of the function or method that a node calls, or ''."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _of_statement(node: ast.stmt, tree: ast.FunctionDef, parents: dict[ast.AST, ast.AST]) -> Iterator[Edit]:
    """A statement dropped where that leaves a function that can run; conditions negated; a step of a loop left out."""
    if isinstance(node, ast.AugAssign):
        yield node, ast.Assign([node.target], node.value, lineno=node.lineno)
        for other in OPERATORS.get(type(node.op), ()):
            yield node, ast.AugAssign(node.target, other(), node.value)
    if isinstance(node, ast.Assign):
        names = {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        if names <= _known_before(node, tree):
            yield node, ast.Pass()
    if isinstance(node, ast.AugAssign | ast.Expr):
        yield node, ast.Pass()
    if isinstance(node, ast.If | ast.While):
        yield node.test, _negated(node.test)
    if isinstance(node, ast.For):
        items = ast.Call(ast.Name("list", ast.Load()), [node.iter], [])
        for bounds in (ast.Slice(ast.Constant(1)), ast.Slice(None, ast.Constant(-1))):
            yield node.iter, ast.Subscript(items, bounds, ast.Load())
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        yield from ((node.value, ast.Tuple(elements, ast.Load())) for elements in _exchanged(node.value.elts))
        yield from ((each, ast.Constant(None)) for each in node.value.elts if not isinstance(each, ast.IfExp | ast.Constant))


def _known_before(statement: ast.stmt, tree: ast.FunctionDef) -> set[str]:
    """Names that have a value before the statement runs."""
    known = {a.arg for a in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.lineno < statement.lineno:
            known.add(node.id)
    return known


def _negated(test: ast.expr) -> ast.expr:
    return test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else ast.UnaryOp(ast.Not(), test)


def _exchanged(items: list[ast.expr]) -> Iterator[list[ast.expr]]:
    """The list with two neighbours exchanged, for all neighbours."""
    for i in range(len(items) - 1):
        if not any(isinstance(each, ast.Starred) for each in items[i : i + 2]):
            yield [*items[:i], items[i + 1], items[i], *items[i + 2 :]]


def _is_gradient(node: ast.expr, parents: dict[ast.AST, ast.AST], function: FunctionType) -> bool:
    """Whether a sign makes sense: at what is returned, at a product or the result of an op that is given a name."""
    if isinstance(node, ast.Tuple | ast.List | ast.ListComp | ast.Starred | ast.Constant | ast.IfExp | ast.UnaryOp):
        return False
    inner, parent = node, parents[node]
    while isinstance(parent, ast.Tuple) or (isinstance(parent, ast.IfExp) and inner is not parent.test):
        inner, parent = parent, parents[parent]
    product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.MatMult | ast.Pow)
    named = isinstance(parent, ast.Assign) and (product or hasattr(_called(node, function), "rule"))
    return named or isinstance(parent, ast.Return)


def _called(node: ast.AST, function: FunctionType) -> Any:
    """The function that a call by name calls, if it is one of the module's; else None."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return function.__globals__.get(node.func.id)
    return None


def _other_variable(node: ast.expr, tree: ast.FunctionDef, parents: dict[ast.AST, ast.AST]) -> Iterator[ast.expr]:
    """Another parameter of the same type in the place of one, another of the flags ``needs.…``."""
    if isinstance(node, ast.Name) and not isinstance(parents[node], ast.Attribute):
        kinds = {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in tree.args.args if a.arg != "needs"}
        for name, kind in kinds.items():
            if name != node.id and kind == kinds.get(node.id):
                yield ast.Name(name, ast.Load())
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "needs":
        flags = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _is_needs(n.value)]
        yield from (ast.Attribute(node.value, flag, ast.Load()) for flag in dict.fromkeys(flags) if flag != node.attr)


def _is_needs(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "needs"


# ------------------------------------------------------------------------------------ expressions


def _of_binary(node: ast.BinOp, _: FunctionType) -> Iterator[ast.expr]:
    for other in OPERATORS.get(type(node.op), ()):
        yield ast.BinOp(node.left, other(), node.right)
    if isinstance(node.op, ORDERED):
        yield ast.BinOp(node.right, node.op, node.left)
    yield node.left
    if not isinstance(node.op, ast.Pow | ast.FloorDiv | ast.Mod):
        yield ast.UnaryOp(ast.USub(), node.right) if isinstance(node.op, ast.Sub) else node.right


def _of_unary(node: ast.UnaryOp, _: FunctionType) -> Iterator[ast.expr]:
    yield node.operand


def _of_boolean(node: ast.BoolOp, _: FunctionType) -> Iterator[ast.expr]:
    yield from (ast.BoolOp(other(), node.values) for other in OPERATORS[type(node.op)])
    yield from node.values


def _of_comparison(node: ast.Compare, _: FunctionType) -> Iterator[ast.expr]:
    for i, operator in enumerate(node.ops):
        for other in OPERATORS[type(operator)]:
            yield ast.Compare(node.left, [*node.ops[:i], other(), *node.ops[i + 1 :]], node.comparators)


def _of_choice(node: ast.IfExp, _: FunctionType) -> Iterator[ast.expr]:
    yield ast.IfExp(node.test, node.orelse, node.body)


def _of_constant(node: ast.Constant, _: FunctionType) -> Iterator[ast.expr]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield from (ast.Constant(value + 1), ast.Constant(value - 1))
    elif isinstance(value, float):
        yield from (ast.Constant(value * 2 or 1.0), ast.Constant(value + 1))


def _of_subscript(node: ast.Subscript, _: FunctionType) -> Iterator[ast.expr]:
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for i, part in enumerate(parts):
        for other in _other_index(part):
            new = [*parts[:i], other, *parts[i + 1 :]]
            yield ast.Subscript(node.value, ast.Tuple(new, ast.Load()) if len(new) > 1 else new[0], ast.Load())
    yield node.value


def _other_index(part: ast.expr) -> Iterator[ast.expr]:
    """Bounds of a slice and positions, moved by one. Constants are not counted here: they are everywhere."""
    if isinstance(part, ast.Name):
        yield from _moved(part)
    if not isinstance(part, ast.Slice) or (part.lower is part.upper is part.step is None):
        return
    lower, upper = part.lower, part.upper
    starts = [ast.Constant(1)] if lower is None else [] if isinstance(lower, ast.Constant) else list(_moved(lower))
    stops = [ast.Constant(-1)] if upper is None else [] if isinstance(upper, ast.Constant) else list(_moved(upper))
    yield from (ast.Slice(start, upper, part.step) for start in starts)
    yield from (ast.Slice(lower, stop, part.step) for stop in stops)
    if part.step is not None:
        yield ast.Slice(lower, upper)


def _moved(node: ast.expr) -> Iterator[ast.expr]:
    yield from (ast.BinOp(node, operator, ast.Constant(1)) for operator in (ast.Add(), ast.Sub()))


def _of_attribute(node: ast.Attribute, _: FunctionType) -> Iterator[ast.expr]:
    if node.attr in ("T", "mT"):
        yield node.value


def _of_call(node: ast.Call, function: FunctionType) -> Iterator[ast.expr]:
    """Arguments exchanged or dropped, a relative called instead, or nothing called at all."""
    name, given = _name(node), function.__globals__
    if name not in SYMMETRIC:
        yield from (ast.Call(node.func, args, node.keywords) for args in _exchanged(node.args))
    for i in (i for i, keyword in enumerate(node.keywords) if keyword.arg != "strict"):
        yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])
    if len(node.args) > 1:
        yield ast.Call(node.func, node.args[:-1], node.keywords)
    if isinstance(node.func, ast.Attribute):
        yield node.func.value
        if name in RELATIVES:
            yield ast.Call(ast.Attribute(node.func.value, RELATIVES[name], ast.Load()), node.args, node.keywords)
    elif name in given:
        yield from node.args[:1]
        if RELATIVES.get(name) in given:
            yield ast.Call(ast.Name(RELATIVES[name], ast.Load()), node.args, node.keywords)
    if name == "where":
        yield from node.args[1:]
    if name in EQUATIONS and isinstance(node.args[0], ast.Constant):
        for equation in _other_letters(node.args[0].value):
            yield ast.Call(node.func, [ast.Constant(equation), *node.args[1:]], node.keywords)


def _other_letters(equation: str) -> Iterator[str]:
    """An equation such as "ij,jk->ik" with two letters of a term exchanged."""
    for i, (a, b) in enumerate(itertools.pairwise(equation)):
        if a.isalpha() and b.isalpha() and a != b:
            yield equation[:i] + b + a + equation[i + 2 :]


EXPRESSIONS: dict[type, Callable[..., Iterator[ast.expr]]] = {
    ast.BinOp: _of_binary, ast.UnaryOp: _of_unary, ast.BoolOp: _of_boolean, ast.Compare: _of_comparison,
    ast.IfExp: _of_choice, ast.Constant: _of_constant, ast.Subscript: _of_subscript, ast.Attribute: _of_attribute,
    ast.Call: _of_call,
}  # fmt: skip


if __name__ == "__main__":
    from tests.gradcheck.mutation_run import main

    sys.exit(main(sys.argv[1:]))
