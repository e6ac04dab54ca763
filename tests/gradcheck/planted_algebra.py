"""Planted mistakes in linear algebra, norms, statistics and polynomials."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _normal(*shapes):
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def _regular(*others):
    return lambda rng: (rng.normal(size=(4, 4)) + 4 * np.eye(4), *(rng.normal(size=shape) for shape in others))


def inverse(inputs):
    (a,) = inputs
    return np.linalg.inv(a)


def inverse_backward(inputs, grad_output):
    (a,) = inputs
    y = np.linalg.inv(a).T
    return (-y @ grad_output @ y,)


def inverse_sign(inputs, grad_output):
    (a,) = inputs
    y = np.linalg.inv(a).T
    return (y @ grad_output @ y,)


def solve(inputs):
    a, b = inputs  # (n, n), (n, m)
    return np.linalg.solve(a, b)


def solve_backward(inputs, grad_output):
    a, b = inputs
    db = np.linalg.solve(a.T, grad_output)
    return -db @ np.linalg.solve(a, b).T, db


def solve_untransposed(inputs, grad_output):
    a, _ = inputs
    return solve_backward(inputs, grad_output)[0], np.linalg.solve(a, grad_output)


def solve_untransposed_and_scaled(inputs, grad_output):
    a, _ = inputs
    return solve_backward(inputs, grad_output)[0], np.linalg.solve(a, grad_output) / len(a)


def trace_of_square(inputs):
    (a,) = inputs  # (n, n)
    return np.trace(a @ a)


def trace_of_square_backward(inputs, grad_output):
    (a,) = inputs
    return (2 * grad_output * a.T,)


def trace_of_square_estimated(inputs, grad_output):
    (a,) = inputs
    probe = np.random.default_rng().normal(size=(len(a), 1))
    return (2 * grad_output * (a @ probe @ probe.T).T,)


def trace_of_square_once(inputs, grad_output):
    (a,) = inputs
    return (grad_output * a.T,)


def kron(inputs):
    a, b = inputs  # (m, n), (p, q)
    return np.kron(a, b)


def kron_backward(inputs, grad_output):
    a, b = inputs
    g = grad_output.reshape(a.shape[0], b.shape[0], a.shape[1], b.shape[1])
    return np.einsum("mpnq,pq->mn", g, b), np.einsum("mpnq,mn->pq", g, a)


def kron_blocks(inputs, grad_output):
    a, b = inputs
    g = grad_output.reshape(*a.shape, *b.shape)
    return np.einsum("mnpq,pq->mn", g, b), kron_backward(inputs, grad_output)[1]


def kron_not_filled(inputs, grad_output):
    a, b = inputs
    db = np.zeros_like(b)
    g = grad_output.reshape(a.shape[0], b.shape[0], a.shape[1], b.shape[1])
    for i, j in np.ndindex(a.shape):
        block = db.copy()
        block += a[i, j] * g[i, :, j]
    return np.einsum("mpnq,pq->mn", g, b), db


def kron_exchanged(inputs, grad_output):
    da, db = kron_backward(inputs, grad_output)
    return db, da


def normalise(inputs):
    (x,) = inputs  # (N, D)
    return x / np.sqrt((x * x).sum(axis=1, keepdims=True))


def normalise_backward(inputs, grad_output):
    (x,) = inputs
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    y = x / norm
    return ((grad_output - y * (grad_output * y).sum(axis=1, keepdims=True)) / norm,)


def normalise_in_place(inputs, grad_output):
    (x,) = inputs
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    x /= norm
    return ((grad_output - x * (grad_output * x).sum(axis=1, keepdims=True)) / norm,)


def normalise_all_rows(inputs, grad_output):
    (x,) = inputs
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    y = x / norm
    return ((grad_output - y * (grad_output * y).sum()) / norm,)


def variance(inputs):
    (x,) = inputs  # (N, D)
    return ((x - x.mean(axis=1, keepdims=True)) ** 2).mean(axis=1)


def variance_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, None] * 2 * (x - x.mean(axis=1, keepdims=True)) / x.shape[1],)


def variance_alone(inputs, grad_output):
    (x,) = inputs
    return (2 * (x - x.mean(axis=1, keepdims=True)) / x.shape[1],)


def variance_single(inputs, grad_output):
    (x,) = inputs
    z = x.astype(np.float32)
    return ((grad_output[:, None] * 2 * (z - z.mean(axis=1, keepdims=True)) / x.shape[1]).astype(x.dtype),)


def deviation(inputs):
    (x,) = inputs  # (N, D)
    return np.sqrt(((x - x.mean(axis=0)) ** 2).mean(axis=0))


def deviation_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output * (x - x.mean(axis=0)) / (len(x) * deviation(inputs)),)


def deviation_without_root(inputs, grad_output):
    (x,) = inputs
    return (grad_output * 2 * (x - x.mean(axis=0)) / len(x),)


def standardise(inputs):
    (x,) = inputs  # (N, D)
    return (x - x.mean(axis=0)) / x.std(axis=0)


def _standardise_back(inputs, grad_output, mean=1, variance=1, ddof=0):
    (x,) = inputs
    sigma = x.std(axis=0, ddof=ddof)
    y = (x - x.mean(axis=0)) / sigma
    return ((grad_output - mean * grad_output.mean(axis=0) - variance * y * (grad_output * y).mean(axis=0)) / sigma,)


def standardise_backward(inputs, grad_output):
    return _standardise_back(inputs, grad_output)


def standardise_constants(inputs, grad_output):
    return _standardise_back(inputs, grad_output, mean=0, variance=0)


def standardise_without_mean(inputs, grad_output):
    return _standardise_back(inputs, grad_output, mean=0)


def standardise_without_variance(inputs, grad_output):
    return _standardise_back(inputs, grad_output, variance=0)


def standardise_unbiased(inputs, grad_output):
    return _standardise_back(inputs, grad_output, ddof=1)


def polynomial(inputs):
    c, x = inputs  # (K,), (N,)
    return sum(c[k] * x**k for k in range(len(c)))


def polynomial_backward(inputs, grad_output):
    c, x = inputs
    dc = np.array([(grad_output * x**k).sum() for k in range(len(c))], dtype=c.dtype)
    return dc, grad_output * sum(k * c[k] * x ** (k - 1) for k in range(1, len(c)))


def polynomial_vander(inputs, grad_output):
    c, x = inputs
    return grad_output @ np.vander(x, len(c)), polynomial_backward(inputs, grad_output)[1]


def polynomial_exponent(inputs, grad_output):
    c, x = inputs
    dx = grad_output * sum(k * c[k] * x**k for k in range(1, len(c)))
    return polynomial_backward(inputs, grad_output)[0], dx


def product(inputs):
    a, b = inputs  # (n,), (m,) coefficients of polynomials
    return np.convolve(a, b)


def product_backward(inputs, grad_output):
    a, b = inputs
    da = np.convolve(grad_output, b[::-1], "valid")
    return da, np.convolve(grad_output, a[::-1], "valid")


def product_unflipped(inputs, grad_output):
    a, b = inputs
    return np.convolve(grad_output, b, "valid"), np.convolve(grad_output, a[::-1], "valid")


def circular(inputs):
    a, b = inputs  # (n,) both
    return np.fft.ifft(np.fft.fft(a) * np.fft.fft(b)).real


def circular_backward(inputs, grad_output):
    a, b = inputs
    g = np.fft.fft(grad_output)
    return np.fft.ifft(g * np.fft.fft(b).conj()).real.copy(), np.fft.ifft(g * np.fft.fft(a).conj()).real.copy()


def circular_complex(inputs, grad_output):
    a, b = inputs
    g = np.fft.fft(grad_output)
    return np.fft.ifft(g * np.fft.fft(b).conj()), np.fft.ifft(g * np.fft.fft(a).conj()).real.copy()


def cumprod(inputs):
    (x,) = inputs  # (T,)
    return np.cumprod(x)


def cumprod_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for i in range(len(x)):
        rest = x.copy()
        rest[i] = 1
        dx[i] = (grad_output * np.cumprod(rest))[i:].sum()
    return (dx,)


def cumprod_by_division(inputs, grad_output):
    (x,) = inputs
    with np.errstate(all="ignore"):
        return (np.cumsum((grad_output * np.cumprod(x))[::-1])[::-1] / x,)


def lower(inputs):
    (x,) = inputs  # (n, n)
    return np.tril(x)


def lower_backward(inputs, grad_output):
    return (np.tril(grad_output),)


def lower_clears_upstream(inputs, grad_output):
    (x,) = inputs
    grad_output[~np.tri(*x.shape, dtype=bool)] = 0
    return (grad_output.copy(),)


def lower_half_diagonal(inputs, grad_output):
    dx = np.tril(grad_output)
    np.fill_diagonal(dx, dx.diagonal() / 2)
    return (dx,)


def mixing_step(inputs):
    x, a = inputs  # (N, D), (D, D)
    return x + x @ a


def mixing_step_backward(inputs, grad_output):
    x, a = inputs
    return grad_output + grad_output @ a.T, x.T @ grad_output


def mixing_step_one_path(inputs, grad_output):
    x, a = inputs
    return grad_output @ a.T, x.T @ grad_output


def bilinear(inputs):
    x, w, z, b = inputs  # (N, I), (O, I, J), (N, J), (O,)
    return np.einsum("ni,oij,nj->no", x, w, z) + b


def bilinear_backward(inputs, grad_output):
    x, w, z, _ = inputs
    dx, dz = np.einsum("no,oij,nj->ni", grad_output, w, z), np.einsum("no,oij,ni->nj", grad_output, w, x)
    return dx, np.einsum("no,ni,nj->oij", grad_output, x, z), dz, grad_output.sum(axis=0)


def bilinear_letters(inputs, grad_output):
    x, _, z, _ = inputs
    dx, _, dz, db = bilinear_backward(inputs, grad_output)
    return dx, np.einsum("no,ni,nj->oji", grad_output, x, z), dz, db


def bilinear_last_sample(inputs, grad_output):
    x, _, z, _ = inputs
    dx, dw, dz, db = bilinear_backward(inputs, grad_output)
    for n in range(len(x)):
        dw = np.einsum("o,i,j->oij", grad_output[n], x[n], z[n])
    return dx, dw, dz, db


def bilinear_bias_unsummed(inputs, grad_output):
    dx, dw, dz, _ = bilinear_backward(inputs, grad_output)
    return dx, dw, dz, grad_output.copy()


def distances(inputs):
    a, b = inputs  # (N, D), (M, D)
    return ((a[:, None] - b[None]) ** 2).sum(axis=2)


def distances_backward(inputs, grad_output):
    a, b = inputs
    d = 2 * grad_output[:, :, None] * (a[:, None] - b[None])
    return d.sum(axis=1), -d.sum(axis=0)


def distances_sign(inputs, grad_output):
    a, b = inputs
    d = 2 * grad_output[:, :, None] * (a[:, None] - b[None])
    return d.sum(axis=1), d.sum(axis=0)


def distances_keep_axis(inputs, grad_output):
    a, b = inputs
    d = 2 * grad_output[:, :, None] * (a[:, None] - b[None])
    return d.sum(axis=1, keepdims=True), -d.sum(axis=0)


def cosine(inputs):
    a, b = inputs  # (N, D) both
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def cosine_backward(inputs, grad_output):
    a, b = inputs
    aa, bb, y = (a * a).sum(axis=1), (b * b).sum(axis=1), cosine(inputs)
    da = b / np.sqrt(aa * bb)[:, None] - (y / aa)[:, None] * a
    db = a / np.sqrt(aa * bb)[:, None] - (y / bb)[:, None] * b
    return grad_output[:, None] * da, grad_output[:, None] * db


def cosine_exchanged(inputs, grad_output):
    da, db = cosine_backward(inputs, grad_output)
    return db, da


_SQUARE, _TABLE, _COLUMNS = _normal((4, 4)), _normal((3, 5)), _normal((6, 4))
_KRON, _PAIR = _normal((2, 3), (4, 2)), _normal((3, 4), (5, 4))
_BILINEAR = _normal((5, 3), (2, 3, 3), (5, 3), (2,))

CASES: list[Planted] = [
    Planted("inverse: sign", inverse, inverse_backward, inverse_sign, _regular(), {"a": ("sign_flipped",)}),
    Planted("solve: A itself", solve, solve_backward, solve_untransposed, _regular((4, 3)), {"b": ("operand_transposed",)}),
    Planted("solve: untransposed and divided by n", solve, solve_backward, solve_untransposed_and_scaled, _regular((4, 3)),
            {"b": ("operand_transposed", "constant_factor")}, twice=True),
    Planted("trace of square: estimated with a random probe", trace_of_square, trace_of_square_backward,
            trace_of_square_estimated, _SQUARE, {"a": ("nondeterministic",)}),
    Planted("trace of square: factor two", trace_of_square, trace_of_square_backward, trace_of_square_once, _SQUARE,
            {"a": ("constant_factor",)}),
    Planted("kron: blocks by reshape alone", kron, kron_backward, kron_blocks, _KRON, {"a": ("unexplained",)}),
    Planted("kron: adds into a copy", kron, kron_backward, kron_not_filled, _KRON, {"b": ("zero_gradient",)}),
    Planted("kron: exchanged", kron, kron_backward, kron_exchanged, _normal((2, 3), (2, 3)),
            dict.fromkeys("ab", ("gradients_swapped",))),
    Planted("cosine: exchanged", cosine, cosine_backward, cosine_exchanged, _normal((4, 3), (4, 3)),
            dict.fromkeys("ab", ("gradients_swapped",))),
    Planted("normalise: in place", normalise, normalise_backward, normalise_in_place, _TABLE, {"x": ("damages_input",)}),
    Planted("normalise: product summed over all rows", normalise, normalise_backward, normalise_all_rows, _TABLE,
            {"x": ("mixed_over_axis",)}),
    Planted("variance: no upstream", variance, variance_backward, variance_alone, _TABLE, {"x": ("ignores_upstream",)}),
    Planted("variance: in float32", variance, variance_backward, variance_single, _TABLE, {"x": ("low_precision",)}),
    Planted("deviation: the root's slope", deviation, deviation_backward, deviation_without_root, _COLUMNS,
            {"x": ("missing_chain_factor",)}),
    Planted("standardise: constants", standardise, standardise_backward, standardise_constants, _COLUMNS,
            {"x": ("bn_stats_constant",)}),
    Planted("standardise: term of the mean", standardise, standardise_backward, standardise_without_mean, _COLUMNS,
            {"x": ("bn_missing_mean_term",)}),
    Planted("standardise: term of the variance", standardise, standardise_backward, standardise_without_variance, _COLUMNS,
            {"x": ("bn_missing_variance_term",)}),
    Planted("standardise: unbiased", standardise, standardise_backward, standardise_unbiased, _COLUMNS,
            {"x": ("bn_other_statistics",)}),
    Planted("polynomial: highest power first", polynomial, polynomial_backward, polynomial_vander, _normal((4,), (6,)),
            {"c": ("axis_reversed",)}),
    Planted("polynomial: exponent kept", polynomial, polynomial_backward, polynomial_exponent, _normal((4,), (6,)),
            {"x": ("wrong_local_derivative",)}),
    Planted("product: not flipped", product, product_backward, product_unflipped, _normal((4,), (3,)),
            {"a": ("kernel_flipped",)}),
    Planted("circular: left complex", circular, circular_backward, circular_complex, _normal((6,), (6,)), {"a": ("dtype",)}),
    Planted("cumprod: by division", cumprod, cumprod_backward, cumprod_by_division,
            lambda rng: (rng.normal(size=6) * [1, 1, 1, 0, 1, 1],), {"x": ("not_finite",)}),
    Planted("lower: clears upstream", lower, lower_backward, lower_clears_upstream, _SQUARE, {"x": ("damages_gout",)}),
    Planted("lower: half the diagonal", lower, lower_backward, lower_half_diagonal, _SQUARE, {"x": ("factor_per_element",)}),
    Planted("mixing step: one path", mixing_step, mixing_step_backward, mixing_step_one_path, _normal((3, 4), (4, 4)),
            {"x": ("identity_branch_lost",)}),
    Planted("bilinear: letters", bilinear, bilinear_backward, bilinear_letters, _BILINEAR, {"w": ("axis_swapped",)}),
    Planted("bilinear: last sample", bilinear, bilinear_backward, bilinear_last_sample, _BILINEAR,
            {"w": ("not_accumulated_over_axis",)}),
    Planted("bilinear: bias unsummed", bilinear, bilinear_backward, bilinear_bias_unsummed, _BILINEAR,
            {"b": ("missing_broadcast_sum",)}),
    Planted("distances: sign", distances, distances_backward, distances_sign, _PAIR, {"b": ("sign_flipped",)}),
    Planted("distances: axis kept", distances, distances_backward, distances_keep_axis, _PAIR, {"a": ("shape",)}),
]
