"""Linear algebra, attention, tables, sorting, recurrences."""
# ruff: noqa: RUF059  (the packed style names every input)

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


# ---------------------------------------------------------------- square matrix product
def square_product(inputs):
    """a @ b."""
    a, b = inputs
    return a @ b


def square_product_right(inputs, grad_output):
    a, b = inputs
    return grad_output @ b.T, a.T @ grad_output


def square_product_wrong(inputs, grad_output):
    a, b = inputs
    return a.T @ grad_output, grad_output @ b.T


# ---------------------------------------------------------------- inverse
def inverse(inputs):
    """The inverse of every matrix of a stack."""
    (a,) = inputs
    return np.linalg.inv(a)


def inverse_right(inputs, grad_output):
    (a,) = inputs
    t = np.linalg.inv(a).transpose(0, 2, 1)
    return (-(t @ grad_output @ t),)


def inverse_wrong(inputs, grad_output):
    (a,) = inputs
    t = np.linalg.inv(a).transpose(0, 2, 1)
    return (t @ grad_output @ t,)


# ---------------------------------------------------------------- linear system
def solve(inputs):
    """The z with a @ z = b."""
    a, b = inputs
    return np.linalg.solve(a, b)


def solve_right(inputs, grad_output):
    a, b = inputs
    db = np.linalg.solve(a.T, grad_output)
    return -db @ np.linalg.solve(a, b).T, db


def solve_wrong(inputs, grad_output):
    a, b = inputs
    db = np.linalg.solve(a.T, grad_output)
    return -db @ np.linalg.solve(a, b).T, np.linalg.solve(a, grad_output)


# ---------------------------------------------------------------- graph convolution
def graph_conv(inputs):
    """Sum over the neighbours, then a linear map."""
    adj, x, w = inputs
    return adj @ x @ w


def graph_conv_right(inputs, grad_output):
    adj, x, w = inputs
    return grad_output @ (x @ w).T, adj.T @ grad_output @ w.T, (adj @ x).T @ grad_output


def graph_conv_wrong(inputs, grad_output):
    adj, x, w = inputs
    return grad_output @ (x @ w).T, adj @ grad_output @ w.T, (adj @ x).T @ grad_output


# ---------------------------------------------------------------- transform from both sides
def two_sided(inputs):
    """a @ x @ b."""
    a, x, b = inputs
    return a @ x @ b


def two_sided_right(inputs, grad_output):
    a, x, b = inputs
    return grad_output @ (x @ b).T, a.T @ grad_output @ b.T, (a @ x).T @ grad_output


def two_sided_wrong(inputs, grad_output):
    a, x, b = inputs
    return grad_output @ (x @ b).T, b @ grad_output.T @ a, (a @ x).T @ grad_output


# ---------------------------------------------------------------- bilinear score
def bilinear_score(inputs):
    """u' M v for every pair of rows, over the root of the number of features."""
    u, m, v = inputs
    return ((u @ m) * v).sum(axis=1) / math.sqrt(u.shape[1])


def bilinear_score_right(inputs, grad_output):
    u, m, v = inputs
    g = grad_output[:, None] / math.sqrt(u.shape[1])
    return g * (v @ m.T), u.T @ (g * v), g * (u @ m)


def bilinear_score_wrong(inputs, grad_output):
    u, m, v = inputs
    g = grad_output[:, None] / math.sqrt(u.shape[1])
    return g * (v @ m.T), v.T @ (grad_output[:, None] * u), g * (u @ m)


# ---------------------------------------------------------------- error against a mirrored signal
def mirror_error(inputs):
    """Half the squared difference of a reference and every row read backwards."""
    x, ref = inputs
    return 0.5 * (ref - x[:, ::-1]) ** 2


def mirror_error_right(inputs, grad_output):
    x, ref = inputs
    d = grad_output * (ref - x[:, ::-1])
    return -d[:, ::-1], d.sum(axis=0)


def mirror_error_wrong(inputs, grad_output):
    x, ref = inputs
    d = grad_output * (ref - x[:, ::-1])
    return d, d.sum(axis=0)


# ---------------------------------------------------------------- attention
def attention(inputs):
    """One head: queries (T, d), keys (S, d), values (S, e)."""
    q, k, v = inputs
    s = q @ k.T / math.sqrt(q.shape[1])
    p = np.exp(s - s.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True) @ v


def attention_back(q, k, v, g, full):
    scale = 1 / math.sqrt(q.shape[1])
    s = q @ k.T * scale
    p = np.exp(s - s.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    dp = g @ v.T
    ds = p * (dp - (p * dp).sum(axis=1, keepdims=True)) if full else p * dp
    return ds @ k * scale, ds.T @ q * scale, p.T @ g


def attention_right(inputs, grad_output):
    q, k, v = inputs
    return attention_back(q, k, v, grad_output, True)


def attention_wrong(inputs, grad_output):
    q, k, v = inputs
    return attention_back(q, k, v, grad_output, False)


# ---------------------------------------------------------------- relative position bias
def relative_scores(inputs):
    """Scores of T queries and T keys plus a bias per distance."""
    q, k, table = inputs
    t = np.arange(len(q))
    return q @ k.T + table[t[:, None] - t[None, :] + len(q) - 1]


def relative_scores_right(inputs, grad_output):
    q, k, table = inputs
    t = np.arange(len(q))
    dtable = np.zeros_like(table)
    np.add.at(dtable, t[:, None] - t[None, :] + len(q) - 1, grad_output)
    return grad_output @ k, grad_output.T @ q, dtable


def relative_scores_wrong(inputs, grad_output):
    q, k, table = inputs
    t = np.arange(len(q))
    dtable = np.zeros_like(table)
    dtable[t[:, None] - t[None, :] + len(q) - 1] += grad_output
    return grad_output @ k, grad_output.T @ q, dtable


# ---------------------------------------------------------------- picking along an axis
def pick(inputs):
    """Values of every row at given columns."""
    x, columns = inputs
    return np.take_along_axis(x, columns, axis=1)


def pick_right(inputs, grad_output):
    x, columns = inputs
    dx = np.zeros_like(x)
    np.add.at(dx, (np.arange(len(x))[:, None], columns), grad_output)
    return dx, None


def pick_wrong(inputs, grad_output):
    x, columns = inputs
    dx = np.zeros(x.shape, np.float32)
    np.add.at(dx, (np.arange(len(x))[:, None], columns), grad_output)
    return dx, None


# ---------------------------------------------------------------- embedding
def embedding(inputs):
    """Rows of a table."""
    table, tokens = inputs
    return table[tokens]


def embedding_right(inputs, grad_output):
    table, tokens = inputs
    dtable = np.zeros_like(table)
    np.add.at(dtable, tokens, grad_output)
    return dtable, None


def embedding_wrong(inputs, grad_output):
    table, tokens = inputs
    dtable = np.zeros_like(table)
    np.add.at(dtable, tokens, grad_output)
    counts = np.bincount(tokens.ravel(), minlength=len(table))
    return dtable / np.maximum(counts, 1)[:, None].astype(table.dtype), None


# ---------------------------------------------------------------- sorting
def sort_rows(inputs):
    """Every row in rising order."""
    (x,) = inputs
    return np.sort(x, axis=1)


def sort_rows_right(inputs, grad_output):
    (x,) = inputs
    dx = np.empty_like(x)
    np.put_along_axis(dx, x.argsort(axis=1), grad_output, axis=1)
    return (dx,)


def sort_rows_wrong(inputs, grad_output):
    (x,) = inputs
    return (np.take_along_axis(grad_output, x.argsort(axis=1), axis=1),)


# ---------------------------------------------------------------- sum of the largest
def top_sum(inputs, k=2):
    """The sum of the k largest of every row."""
    (x,) = inputs
    return np.sort(x, axis=1)[:, -k:].sum(axis=1)


def top_sum_right(inputs, grad_output, k=2):
    (x,) = inputs
    limit = np.sort(x, axis=1)[:, -k][:, None]
    return (grad_output[:, None] * (x >= limit),)


def top_sum_wrong(inputs, grad_output, k=2):
    (x,) = inputs
    limit = np.sort(x, axis=1)[:, -k - 1][:, None]
    return (grad_output[:, None] * (x >= limit),)


# ---------------------------------------------------------------- the same layer at every step
def per_step(inputs):
    """The same linear map at every step of (N, T, D)."""
    x, w, b = inputs
    return x @ w + b


def per_step_right(inputs, grad_output):
    x, w, b = inputs
    return grad_output @ w.T, np.einsum("ntd,nto->do", x, grad_output), grad_output.sum(axis=(0, 1))


def per_step_wrong(inputs, grad_output):
    x, w, b = inputs
    db = np.zeros_like(b)
    for t in range(x.shape[1]):
        dw = x[:, t].T @ grad_output[:, t]
        db += grad_output[:, t].sum(axis=0)
    return grad_output @ w.T, dw, db


# ---------------------------------------------------------------- recurrent layer
LEFT_OVER: dict[tuple[int, ...], np.ndarray] = {}


def recurrent(inputs):
    """h = tanh(x_t @ wx + h @ wh), all states; x is (N, T, D)."""
    x, wx, wh = inputs
    h = np.zeros((len(x), len(wh)), x.dtype)
    states = []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ wx + h @ wh)
        states.append(h)
    return np.stack(states, axis=1)


def recurrent_back(x, wx, wh, g, dwh):
    y = recurrent((x, wx, wh))
    dx, dwx = np.zeros_like(x), np.zeros_like(wx)
    carry = np.zeros_like(y[:, 0])
    for t in range(x.shape[1] - 1, -1, -1):
        dz = (g[:, t] + carry) * (1 - y[:, t] ** 2)
        dx[:, t] = dz @ wx.T
        dwx += x[:, t].T @ dz
        if t > 0:
            dwh += y[:, t - 1].T @ dz
        carry = dz @ wh.T
    return dx, dwx, dwh


def recurrent_right(inputs, grad_output):
    x, wx, wh = inputs
    return recurrent_back(x, wx, wh, grad_output, np.zeros_like(wh))


def recurrent_wrong(inputs, grad_output):
    x, wx, wh = inputs
    dwh = LEFT_OVER.setdefault(wh.shape, np.zeros_like(wh))
    dx, dwx, dwh = recurrent_back(x, wx, wh, grad_output, dwh)
    return dx, dwx, dwh.astype(wh.dtype, copy=True)


# ---------------------------------------------------------------- third power of a matrix
def matrix_cube(inputs):
    """a @ a @ a."""
    (a,) = inputs
    return a @ a @ a


def matrix_cube_right(inputs, grad_output):
    (a,) = inputs
    t = a.T
    return (grad_output @ t @ t + t @ grad_output @ t + t @ t @ grad_output,)


def matrix_cube_wrong(inputs, grad_output):
    (a,) = inputs
    return (3 * (a @ a).T @ grad_output,)


# ---------------------------------------------------------------- Cholesky factor
def cholesky(inputs):
    """The lower factor of the symmetric part."""
    (s,) = inputs
    return np.linalg.cholesky((s + s.T) / 2)


def cholesky_back(s, g, halve):
    low = np.linalg.cholesky((s + s.T) / 2)
    inv = np.linalg.inv(low)
    p = np.tril(low.T @ np.tril(g))
    if halve:
        p[np.diag_indices(len(p))] *= 0.5
    d = inv.T @ p @ inv
    return (d + d.T) / 2


def cholesky_right(inputs, grad_output):
    (s,) = inputs
    return (cholesky_back(s, grad_output, True),)


def cholesky_wrong(inputs, grad_output):
    (s,) = inputs
    return (cholesky_back(s, grad_output, False),)


# ---------------------------------------------------------------- running product
def running_product(inputs):
    """The running product of positive numbers, by way of logarithms."""
    (x,) = inputs
    return np.exp(np.log(x).cumsum(axis=1))


def running_product_right(inputs, grad_output):
    (x,) = inputs
    gy = grad_output * x.cumprod(axis=1)
    return (gy[:, ::-1].cumsum(axis=1)[:, ::-1] / x,)


def running_product_wrong(inputs, grad_output):
    (x,) = inputs
    gy = grad_output * x.cumprod(axis=1)
    return (gy[:, ::-1].cumsum(axis=1)[:, ::-1].copy(),)


# ---------------------------------------------------------------- dense layers
def affine(inputs):
    """x @ w + b."""
    x, w, b = inputs
    return x @ w + b


def affine_right(inputs, grad_output):
    x, w, b = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0)


def affine_wrong(inputs, grad_output):
    x, w, b = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0, keepdims=True)


def tanh_layer(inputs):
    """tanh(x @ w + b)."""
    x, w, b = inputs
    return np.tanh(x @ w + b)


def tanh_layer_right(inputs, grad_output):
    x, w, b = inputs
    gz = grad_output * (1 - np.tanh(x @ w + b) ** 2)
    return gz @ w.T, x.T @ gz, gz.sum(axis=0)


def tanh_layer_wrong(inputs, grad_output):
    x, w, b = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0)


def spread(rng, shape):
    """Rows of values with a gap between every two of them."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) + rng.uniform(0, 0.6, size)) / size * 4 - 2).reshape(shape)


def sort_inputs(rng):
    base = np.array([[2, 0, 3, 1, 5, 6, 4], [1, 2, 3, 4, 5, 6, 0], [4, 0, 6, 2, 1, 3, 5]])
    return ((base + rng.uniform(0, 0.6, base.shape)) * rng.uniform(0.3, 1, (3, 1)),)


def positive_definite(rng):
    m = rng.normal(size=(4, 6))
    return (m @ m.T + 0.5 * np.eye(4),)


CASES = [
    Planted(
        "square matrix product: the gradients come back in the wrong slots",
        square_product, square_product_right, square_product_wrong,
        lambda rng: (rng.normal(size=(4, 4)), rng.normal(size=(4, 4))),
        {"a": ("gradients_swapped",), "b": ("gradients_swapped",)},
    ),
    Planted(
        "matrix inverse: no minus", inverse, inverse_right, inverse_wrong,
        lambda rng: (rng.normal(size=(2, 3, 3)) + 3 * np.eye(3),), {"a": ("sign_flipped",)},
    ),
    Planted(
        "linear system: solved with the matrix itself", solve, solve_right, solve_wrong,
        lambda rng: (rng.normal(size=(4, 4)) + 3 * np.eye(4), rng.normal(size=(4, 3))), {"b": ("operand_transposed",)},
    ),
    Planted(
        "graph convolution: messages run along the edges again", graph_conv, graph_conv_right, graph_conv_wrong,
        lambda rng: (rng.normal(size=(5, 5)), rng.normal(size=(5, 3)), rng.normal(size=(3, 2))),
        {"x": ("operand_transposed",)},
    ),
    Planted(
        "two-sided transform: the middle matrix gets the transposed gradient", two_sided, two_sided_right, two_sided_wrong,
        lambda rng: (rng.normal(size=(3, 4)), rng.normal(size=(4, 4)), rng.normal(size=(4, 5))), {"x": ("axis_swapped",)},
    ),
    Planted(
        "bilinear score: outer product the wrong way round and not scaled",
        bilinear_score, bilinear_score_right, bilinear_score_wrong,
        lambda rng: (rng.normal(size=(5, 3)), rng.normal(size=(3, 3)), rng.normal(size=(5, 3))),
        {"m": ("axis_swapped", "constant_factor")}, twice=True,
    ),
    Planted(
        "mirror error: neither mirrored nor negative", mirror_error, mirror_error_right, mirror_error_wrong,
        lambda rng: (rng.normal(size=(3, 5)), rng.normal(size=5)), {"x": ("axis_reversed", "sign_flipped")}, twice=True,
    ),
    Planted(
        "attention: the softmax is differentiated without its row sum", attention, attention_right, attention_wrong,
        lambda rng: (rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), rng.normal(size=(5, 2))),
        {"q": ("missing_term",), "k": ("missing_term",)},
    ),
    Planted(
        "relative position bias: repeated distances do not add up",
        relative_scores, relative_scores_right, relative_scores_wrong,
        lambda rng: (rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=9)),
        {"table": ("overlap_overwritten",)},
    ),
    Planted(
        "picking columns: a single precision buffer", pick, pick_right, pick_wrong,
        lambda rng: (rng.normal(size=(4, 6)), rng.integers(0, 6, (4, 3))), {"x": ("dtype",)},
    ),
    Planted(
        "embedding: divided by how often a token occurs", embedding, embedding_right, embedding_wrong,
        lambda rng: (rng.normal(size=(6, 3)), np.array([[0, 2, 5, 2], [2, 1, 0, 4]])), {"table": ("factor_per_element",)},
    ),
    Planted(
        "sorting: the permutation is applied once more", sort_rows, sort_rows_right, sort_rows_wrong,
        sort_inputs, {"x": ("wrong_routing",)},
    ),
    Planted(
        "sum of the largest: one too many gets its share", top_sum, top_sum_right, top_sum_wrong,
        lambda rng: (spread(rng, (4, 7)),), {"x": ("several_winners",)}, {"k": 2},
    ),
    Planted(
        "layer at every step: the weight keeps the last step only", per_step, per_step_right, per_step_wrong,
        lambda rng: (rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)),
        {"w": ("not_accumulated_over_axis",)},
    ),
    Planted(
        "recurrent layer: the buffer of the state weights is never cleared", recurrent, recurrent_right, recurrent_wrong,
        lambda rng: (rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 5)) * 0.5, rng.normal(size=(5, 5)) * 0.4),
        {"wh": ("state_leak",)},
    ),
    Planted(
        "matrix cube: the rule for numbers", matrix_cube, matrix_cube_right, matrix_cube_wrong,
        lambda rng: (rng.normal(size=(4, 4)),), {"a": ("unexplained",)},
    ),
    Planted(
        "cholesky: the diagonal is not halved", cholesky, cholesky_right, cholesky_wrong,
        positive_definite, {"s": ("unexplained",)},
    ),
    Planted(
        "running product: the logarithm is not differentiated",
        running_product, running_product_right, running_product_wrong,
        lambda rng: (rng.uniform(0.5, 1.8, (3, 6)),), {"x": ("missing_chain_factor",)},
    ),
    Planted(
        "affine layer: the bias keeps the batch axis", affine, affine_right, affine_wrong,
        lambda rng: (rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)), {"b": ("shape",)},
    ),
    Planted(
        "tanh layer: passes through the tanh as if it were not there", tanh_layer, tanh_layer_right, tanh_layer_wrong,
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(3, 5)) * 0.7, rng.normal(size=5)),
        {"x": ("missing_chain_factor",), "w": ("missing_chain_factor",), "b": ("missing_chain_factor",)},
    ),
]
