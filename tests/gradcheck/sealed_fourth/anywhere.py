"""Linear algebra, signals, geometry, statistics."""

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def inverse(inputs):
    """Inverses of a stack of matrices."""
    (m,) = inputs  # (B, n, n)
    return np.linalg.inv(m)


def inverse_backward(inputs, grad_output):
    (m,) = inputs
    t = np.linalg.inv(m).transpose(0, 2, 1)
    return (-(t @ grad_output @ t),)


def inverse_no_minus(inputs, grad_output):
    (m,) = inputs
    t = np.linalg.inv(m).transpose(0, 2, 1)
    return (t @ grad_output @ t,)


def solve(inputs):
    """The x of m x = b."""
    m, b = inputs  # (n, n), (n, p)
    return np.linalg.solve(m, b)


def solve_backward(inputs, grad_output):
    m, b = inputs
    db = np.linalg.solve(m.T, grad_output)
    return -db @ np.linalg.solve(m, b).T, db


def solve_same_matrix(inputs, grad_output):
    m, b = inputs
    dm = -np.linalg.solve(m.T, grad_output) @ np.linalg.solve(m, b).T
    return dm, np.linalg.solve(m, grad_output)


def logdet(inputs):
    """Logarithm of the size of the determinant."""
    (m,) = inputs  # (B, n, n)
    return np.linalg.slogdet(m)[1]


def logdet_backward(inputs, grad_output):
    (m,) = inputs
    return (grad_output[:, None, None] * np.linalg.inv(m).transpose(0, 2, 1),)


def logdet_minus_not_turned(inputs, grad_output):
    (m,) = inputs
    return (-grad_output[:, None, None] * np.linalg.inv(m),)


def matrix_cube(inputs):
    """A square matrix three times."""
    (m,) = inputs
    return m @ m @ m


def matrix_cube_backward(inputs, grad_output):
    (m,) = inputs
    g, t = grad_output, m.T
    return (g @ t @ t + t @ g @ t + t @ t @ g,)


def matrix_cube_like_a_number(inputs, grad_output):
    (m,) = inputs
    return (3 * (m @ m).T @ grad_output,)


def squared_distances(inputs):
    """Of all pairs of points."""
    a, b = inputs  # (P, D), (Q, D)
    return (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)


def squared_distances_backward(inputs, grad_output):
    a, b = inputs
    diff = a[:, None] - b
    return 2 * np.einsum("pq,pqd->pd", grad_output, diff), -2 * np.einsum("pq,pqd->qd", grad_output, diff)


def squared_distances_b_sign(inputs, grad_output):
    a, b = inputs
    diff = a[:, None] - b
    return 2 * np.einsum("pq,pqd->pd", grad_output, diff), 2 * np.einsum("pq,pqd->qd", grad_output, diff)


def bezier(inputs, samples=7):
    """Points on a curve given by its control points."""
    (ctrl,) = inputs  # (n + 1, D)
    n = len(ctrl) - 1
    t = np.linspace(0.05, 0.95, samples).astype(ctrl.dtype)
    return sum(math.comb(n, i) * np.outer(t**i * (1 - t) ** (n - i), ctrl[i]) for i in range(n + 1))


def bezier_backward(inputs, grad_output, samples=7):
    (ctrl,) = inputs
    n = len(ctrl) - 1
    t = np.linspace(0.05, 0.95, samples).astype(ctrl.dtype)
    return (np.stack([math.comb(n, i) * (t**i * (1 - t) ** (n - i)) @ grad_output for i in range(n + 1)]),)


def bezier_no_binomials(inputs, grad_output, samples=7):
    (ctrl,) = inputs
    n = len(ctrl) - 1
    t = np.linspace(0.05, 0.95, samples).astype(ctrl.dtype)
    return (np.stack([(t**i * (1 - t) ** (n - i)) @ grad_output for i in range(n + 1)]),)


def rbf_kernel(inputs, width=0.3):
    """Gaussian bumps around centres."""
    x, centre = inputs  # (P, D), (Q, D)
    return np.exp(-width * ((x[:, None] - centre) ** 2).sum(2))


def rbf_kernel_backward(inputs, grad_output, width=0.3):
    x, centre = inputs
    pull = 2 * width * (x[:, None] - centre)
    w = (grad_output * rbf_kernel(inputs, width))[:, :, None]
    return -(w * pull).sum(1), (w * pull).sum(0)


def rbf_kernel_exp_forgotten(inputs, grad_output, width=0.3):
    x, centre = inputs
    pull = 2 * width * (x[:, None] - centre)
    w = (grad_output * rbf_kernel(inputs, width))[:, :, None]
    return -(w * pull).sum(1), (grad_output[:, :, None] * pull).sum(0)


def linear_scan(inputs):
    """h_t = a_t h_(t-1) + x_t."""
    a, x = inputs  # (N, T) each
    h = np.zeros_like(x)
    h[:, 0] = x[:, 0]
    for t in range(1, x.shape[1]):
        h[:, t] = a[:, t] * h[:, t - 1] + x[:, t]
    return h


def linear_scan_backward(inputs, grad_output):
    a, x = inputs
    h = linear_scan(inputs)
    da, dx = np.zeros_like(a), grad_output.copy()
    for t in range(x.shape[1] - 1, 0, -1):
        da[:, t] = dx[:, t] * h[:, t - 1]
        dx[:, t - 1] += a[:, t] * dx[:, t]
    return da, dx


def linear_scan_earlier_decay(inputs, grad_output):
    a, x = inputs
    h = linear_scan(inputs)
    da, dx = np.zeros_like(a), grad_output.copy()
    for t in range(x.shape[1] - 1, 0, -1):
        da[:, t] = dx[:, t] * h[:, t - 1]
        dx[:, t - 1] += a[:, t - 1] * dx[:, t]
    return da, dx


def product(inputs):
    """The product of each row."""
    (x,) = inputs  # (N, D)
    return x.prod(1)


def product_backward(inputs, grad_output):
    (x,) = inputs
    others = np.stack([np.delete(x, j, axis=1).prod(1) for j in range(x.shape[1])], axis=1)
    return (grad_output[:, None] * others,)


def product_divided(inputs, grad_output):
    (x,) = inputs
    with np.errstate(all="ignore"):
        return ((grad_output * x.prod(1))[:, None] / x,)


def autocovariance(inputs, lags=4):
    """Covariance of a signal with its later self."""
    (x,) = inputs  # (L,)
    c = x - x.mean()
    return np.stack([(c[: len(c) - k] * c[k:]).sum() / len(c) for k in range(lags)])


def _autocov_dc(c, g):
    dc = np.zeros_like(c)
    for k in range(len(g)):
        dc[: len(c) - k] += g[k] * c[k:] / len(c)
        dc[k:] += g[k] * c[: len(c) - k] / len(c)
    return dc - dc.mean()


def autocovariance_backward(inputs, grad_output, lags=4):
    (x,) = inputs
    return (_autocov_dc(x - x.mean(), grad_output),)


def autocovariance_centres_input(inputs, grad_output, lags=4):
    (x,) = inputs
    x -= x.mean()
    return (_autocov_dc(x, grad_output),)


def kron(inputs):
    """Kronecker product."""
    a, b = inputs  # (m, n), (p, q)
    return np.kron(a, b)


def _kron_back(a, b, g):
    blocks = g.reshape(a.shape[0], b.shape[0], a.shape[1], b.shape[1])
    return np.einsum("ipjq,pq->ij", blocks, b), np.einsum("ipjq,ij->pq", blocks, a)


def kron_backward(inputs, grad_output):
    a, b = inputs
    return _kron_back(a, b, grad_output)


def kron_default_buffer(inputs, grad_output):
    a, b = inputs
    db = np.zeros(b.shape)
    for i, j in np.ndindex(*a.shape):
        db += a[i, j] * grad_output[i * b.shape[0] : (i + 1) * b.shape[0], j * b.shape[1] : (j + 1) * b.shape[1]]
    return _kron_back(a, b, grad_output)[0], db


def covariance(inputs):
    """Covariance matrix of the columns."""
    (x,) = inputs  # (N, D)
    c = x - x.mean(0)
    return c.T @ c / (len(x) - 1)


def covariance_backward(inputs, grad_output):
    (x,) = inputs
    c = x - x.mean(0)
    return (c @ (grad_output + grad_output.T) / (len(x) - 1),)


def covariance_in_single(inputs, grad_output):
    (x,) = inputs
    c = (x - x.mean(0)).astype(np.float32)
    g = grad_output.astype(np.float32)
    return ((c @ (g + g.T) / (len(x) - 1)).astype(x.dtype),)


def hausdorff(inputs):
    """The largest distance from a point of a to the set b."""
    a, b = inputs  # (P, D), (Q, D)
    return np.sqrt(((a[:, None] - b) ** 2).sum(2)).min(1).max()


def _nearest(a, b):
    dist = np.sqrt(((a[:, None] - b) ** 2).sum(2))
    j = dist.argmin(1)
    r = dist[np.arange(len(a)), j]
    return j, r, (a - b[j]) / r[:, None]


def hausdorff_backward(inputs, grad_output):
    a, b = inputs
    j, r, unit = _nearest(a, b)
    i = r.argmax()
    da, db = np.zeros_like(a), np.zeros_like(b)
    da[i] = grad_output * unit[i]
    db[j[i]] = -grad_output * unit[i]
    return da, db


def hausdorff_all_nearest(inputs, grad_output):
    a, b = inputs
    j, _, unit = _nearest(a, b)
    db = np.zeros_like(b)
    np.add.at(db, j, -grad_output * unit)
    return grad_output * unit, db


def to_polar(inputs):
    """Radius and angle."""
    x, y = inputs
    return np.hypot(x, y), np.arctan2(y, x)


def to_polar_backward(inputs, grad_output):
    x, y = inputs
    gr, gt = grad_output
    r = np.hypot(x, y)
    return gr * x / r - gt * y / r**2, gr * y / r + gt * x / r**2


def to_polar_exchanged(inputs, grad_output):
    dx, dy = to_polar_backward(inputs, grad_output)
    return dy, dx


def convolve(inputs):
    """Full convolution of two signals."""
    a, w = inputs  # (n,), (k,)
    return np.convolve(a, w)


def convolve_backward(inputs, grad_output):
    a, w = inputs
    return np.correlate(grad_output, w, "valid"), np.correlate(grad_output, a, "valid")


def convolve_taps_reversed(inputs, grad_output):
    a, w = inputs
    dw = np.zeros_like(w)
    for j in range(len(w)):
        dw[len(w) - 1 - j] = grad_output[j : j + len(a)] @ a
    return np.correlate(grad_output, w, "valid"), dw


def diff(inputs):
    """Each value minus the one before."""
    (x,) = inputs  # (N, T, D), along T
    return x[:, 1:] - x[:, :-1]


def diff_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, 1:] += grad_output
    dx[:, :-1] -= grad_output
    return (dx,)


def diff_inner_only(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, 1:-1] = grad_output[:, :-1] - grad_output[:, 1:]
    return (dx,)


def polynomial(inputs):
    """The polynomial with the given coefficients, the constant first, at several places."""
    coef, t = inputs  # (K,), (M,)
    return t[:, None] ** np.arange(len(coef)).astype(coef.dtype) @ coef


def _slope(coef, t):
    k = np.arange(1, len(coef)).astype(coef.dtype)
    return t[:, None] ** (k - 1) @ (k * coef[1:])


def polynomial_backward(inputs, grad_output):
    coef, t = inputs
    powers = t[:, None] ** np.arange(len(coef)).astype(coef.dtype)
    return grad_output @ powers, grad_output * _slope(coef, t)


def polynomial_highest_first(inputs, grad_output):
    coef, t = inputs
    powers = t[:, None] ** np.arange(len(coef) - 1, -1, -1).astype(coef.dtype)
    return grad_output @ powers, grad_output * _slope(coef, t)


def look_up(inputs):
    """Bilinear look-up of an image at real coordinates."""
    img, pts = inputs  # (H, W), (P, 2)
    low = np.floor(pts)
    (fy, fx), (i, j) = (pts - low).T, low.astype(int).T
    top = img[i, j] * (1 - fx) + img[i, j + 1] * fx
    return top * (1 - fy) + (img[i + 1, j] * (1 - fx) + img[i + 1, j + 1] * fx) * fy


def _look_up_pts(img, pts, g):
    low = np.floor(pts)
    (fy, fx), (i, j) = (pts - low).T, low.astype(int).T
    dy = (img[i + 1, j] - img[i, j]) * (1 - fx) + (img[i + 1, j + 1] - img[i, j + 1]) * fx
    dx = (img[i, j + 1] - img[i, j]) * (1 - fy) + (img[i + 1, j + 1] - img[i + 1, j]) * fy
    return np.stack([g * dy, g * dx], axis=1)


def _look_up_img(img, pts, g, turned):
    d = np.zeros_like(img)
    for (y, x), v in zip(pts, g, strict=True):
        i, j = int(y), int(x)
        fy, fx = y - i, x - j
        if turned:
            fy, fx = fx, fy
        d[i, j] += v * (1 - fy) * (1 - fx)
        d[i, j + 1] += v * (1 - fy) * fx
        d[i + 1, j] += v * fy * (1 - fx)
        d[i + 1, j + 1] += v * fy * fx
    return d


def look_up_backward(inputs, grad_output):
    img, pts = inputs
    return _look_up_img(img, pts, grad_output, False), _look_up_pts(img, pts, grad_output)


def look_up_fractions_exchanged(inputs, grad_output):
    img, pts = inputs
    return _look_up_img(img, pts, grad_output, True), _look_up_pts(img, pts, grad_output)


def _normal(*shapes):
    def make(rng):
        return tuple(rng.normal(size=s) for s in shapes)

    return make


def _regular(rng, *shape):
    return rng.uniform(-1, 1, shape) + 2.5 * np.eye(shape[-1])


def _with_zero(rng):
    x = rng.uniform(0.5, 1.5, (3, 4)) * rng.choice([-1.0, 1.0], (3, 4))
    x[1, 2] = 0.0
    return (x,)


def _clouds(rng):
    a = 3 * rng.permutation(np.stack(np.unravel_index(rng.permutation(27)[:5], (3, 3, 3)), 1)) + rng.uniform(
        -0.5, 0.5, (5, 3)
    )
    near = a[rng.permutation(5)] + rng.uniform(-0.7, 0.7, (5, 3))
    return a, np.concatenate([near, rng.uniform(10, 12, (1, 3))])


def _image(rng):
    cells = np.stack([rng.integers(0, 4, 6), rng.integers(0, 5, 6)], axis=1)
    fractions = np.stack([rng.uniform(0.1, 0.4, 6), rng.uniform(0.6, 0.9, 6)], axis=1)
    return rng.normal(size=(5, 6)), cells + fractions


CASES = [
    Planted(
        "inverse: the minus is missing",
        inverse,
        inverse_backward,
        inverse_no_minus,
        lambda rng: (_regular(rng, 2, 3, 3),),
        {"m": ("sign_flipped",)},
    ),
    Planted(
        "solve: solved with the matrix itself",
        solve,
        solve_backward,
        solve_same_matrix,
        lambda rng: (_regular(rng, 4, 4), rng.normal(size=(4, 3))),
        {"b": ("operand_transposed",)},
    ),
    Planted(
        "logdet: a minus too many and not transposed",
        logdet,
        logdet_backward,
        logdet_minus_not_turned,
        lambda rng: (_regular(rng, 2, 4, 4),),
        {"m": ("sign_flipped", "axis_swapped")},
        twice=True,
    ),
    Planted(
        "matrix_cube: as if matrices were numbers",
        matrix_cube,
        matrix_cube_backward,
        matrix_cube_like_a_number,
        _normal((4, 4)),
        {"m": ("unexplained",)},
    ),
    Planted(
        "squared_distances: b with the sign of a",
        squared_distances,
        squared_distances_backward,
        squared_distances_b_sign,
        _normal((4, 3), (5, 3)),
        {"b": ("sign_flipped",)},
    ),
    Planted(
        "bezier: the binomials are forgotten",
        bezier,
        bezier_backward,
        bezier_no_binomials,
        _normal((5, 2)),
        {"ctrl": ("factor_per_element",)},
    ),
    Planted(
        "rbf_kernel: the exponential is not repeated for the centres",
        rbf_kernel,
        rbf_kernel_backward,
        rbf_kernel_exp_forgotten,
        _normal((4, 3), (5, 3)),
        {"centre": ("missing_chain_factor",)},
    ),
    Planted(
        "linear_scan: carried back with the decay of the step before",
        linear_scan,
        linear_scan_backward,
        linear_scan_earlier_decay,
        lambda rng: (rng.uniform(0.3, 1.2, (2, 6)), rng.normal(size=(2, 6))),
        {"a": ("unexplained",), "x": ("unexplained",)},
    ),
    Planted(
        "product: divided by a zero",
        product,
        product_backward,
        product_divided,
        _with_zero,
        {"x": ("not_finite",)},
    ),
    Planted(
        "autocovariance: centres its input",
        autocovariance,
        autocovariance_backward,
        autocovariance_centres_input,
        lambda rng: (rng.normal(size=10) + 2,),
        {"x": ("damages_input",)},
    ),
    Planted(
        "kron: a buffer of the default type",
        kron,
        kron_backward,
        kron_default_buffer,
        _normal((2, 3), (3, 2)),
        {"b": ("dtype",)},
    ),
    Planted(
        "covariance: single precision inside",
        covariance,
        covariance_backward,
        covariance_in_single,
        _normal((7, 4)),
        {"x": ("low_precision",)},
    ),
    Planted(
        "hausdorff: every nearest pair is pulled",
        hausdorff,
        hausdorff_backward,
        hausdorff_all_nearest,
        _clouds,
        {"a": ("several_winners",), "b": ("several_winners",)},
    ),
    Planted(
        "to_polar: x and y exchanged",
        to_polar,
        to_polar_backward,
        to_polar_exchanged,
        lambda rng: (rng.uniform(0.5, 2.0, (3, 4)), rng.normal(size=(3, 4))),
        {"x": ("gradients_swapped",), "y": ("gradients_swapped",)},
    ),
    Planted(
        "convolve: the taps come out reversed",
        convolve,
        convolve_backward,
        convolve_taps_reversed,
        _normal((9,), (4,)),
        {"w": ("axis_reversed",)},
    ),
    Planted(
        "diff: the two ends are left out",
        diff,
        diff_backward,
        diff_inner_only,
        _normal((2, 6, 3)),
        {"x": ("border_missing",)},
    ),
    Planted(
        "polynomial: powers for the highest coefficient first",
        polynomial,
        polynomial_backward,
        polynomial_highest_first,
        lambda rng: (rng.normal(size=5), rng.uniform(0.3, 1.6, 8)),
        {"coef": ("axis_reversed",)},
    ),
    Planted(
        "look_up: the two fractions exchanged",
        look_up,
        look_up_backward,
        look_up_fractions_exchanged,
        _image,
        {"img": ("wrong_weights",)},
    ),
]
