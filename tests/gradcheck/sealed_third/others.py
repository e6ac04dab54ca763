"""Linear algebra, signals, geometry, statistics."""

# ruff: noqa: RUF059
from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted

from .common import apart, positive

# ---------------------------------------------------------------- matrices


def inverse(inputs):
    (A,) = inputs
    return np.linalg.inv(A)


def inverse_backward(inputs, grad_output):
    B = inverse(inputs)
    return (-B.T @ grad_output @ B.T,)


def inverse_wrong(inputs, grad_output):
    B = inverse(inputs)
    return (B.T @ grad_output @ B.T,)


def determinant(inputs):
    (A,) = inputs
    return np.linalg.det(A)


def determinant_backward(inputs, grad_output):
    (A,) = inputs
    cof = np.linalg.det(A)[:, None, None] * np.linalg.inv(A)
    return (grad_output[:, None, None] * cof.swapaxes(1, 2),)


def determinant_wrong(inputs, grad_output):
    (A,) = inputs
    cof = np.linalg.det(A)[:, None, None] * np.linalg.inv(A)
    return (grad_output[:, None, None] * cof,)


def solve(inputs):
    A, b = inputs
    return np.linalg.solve(A, b)


def solve_backward(inputs, grad_output):
    A, b = inputs
    db = np.linalg.solve(A.T, grad_output)
    return -db @ np.linalg.solve(A, b).T, db


def solve_wrong(inputs, grad_output):
    A, b = inputs
    dA, _ = solve_backward(inputs, grad_output)
    return dA, np.linalg.solve(A, grad_output)


def well_conditioned(rng, *shape):
    """Random matrices with a heavy diagonal."""
    return rng.normal(size=shape) + 2.5 * np.eye(shape[-1])


def turn_cube(inputs):
    """Axes moved round: (i, j, k) to (j, k, i)."""
    (x,) = inputs
    return np.transpose(x, (1, 2, 0))


def turn_cube_backward(inputs, grad_output):
    return (np.ascontiguousarray(np.transpose(grad_output, (2, 0, 1))).copy(),)


def turn_cube_wrong(inputs, grad_output):
    return (np.ascontiguousarray(np.transpose(grad_output, (1, 2, 0))).copy(),)


# ---------------------------------------------------------------- running sums, powers, products


def running_sum(inputs):
    (x,) = inputs
    return np.cumsum(x, axis=1)


def running_sum_backward(inputs, grad_output):
    return (np.cumsum(grad_output[:, ::-1], axis=1)[:, ::-1].copy(),)


def running_sum_wrong(inputs, grad_output):
    return (np.cumsum(grad_output[:, ::-1], axis=1),)


def polynomial(inputs):
    """Highest power first, by Horner's scheme."""
    c, x = inputs
    y = np.zeros_like(x) + c[0]
    for a in c[1:]:
        y = y * x + a
    return y


def polynomial_backward(inputs, grad_output):
    c, x = inputs
    n = len(c)
    dc = np.stack([(grad_output * x ** (n - 1 - i)).sum() for i in range(n)])
    slope = sum((n - 1 - i) * c[i] * x ** (n - 2 - i) for i in range(n - 1))
    return dc, grad_output * slope


def polynomial_wrong(inputs, grad_output):
    c, x = inputs
    _, dx = polynomial_backward(inputs, grad_output)
    dc, weight = np.empty_like(c), np.ones_like(x)
    for i in range(len(c)):
        dc[i] = grad_output @ weight
        weight = weight * x
    return dc, dx


def power(inputs):
    x, p = inputs
    return x**p


def power_backward(inputs, grad_output):
    x, p = inputs
    return grad_output * p * x ** (p - 1), grad_output * x**p * np.log(x)


def power_wrong(inputs, grad_output):
    x, p = inputs
    return grad_output * p * x ** (p - 1), grad_output * x**p


def product(inputs):
    (x,) = inputs
    return np.prod(x, axis=1)


def product_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.empty_like(x)
    for j in range(x.shape[1]):
        dx[:, j] = grad_output * np.delete(x, j, axis=1).prod(axis=1)
    return (dx,)


def product_wrong(inputs, grad_output):
    (x,) = inputs
    return ((grad_output * x.prod(axis=1))[:, None] / x,)


def _with_zeros(rng):
    x = rng.normal(size=(3, 4))
    x[0, 2] = x[2, 1] = 0
    return (x,)


# ---------------------------------------------------------------- signals


def trapezoid(inputs):
    """Area under y over the knots x, row by row."""
    y, x = inputs
    return (0.5 * (y[:, 1:] + y[:, :-1]) * np.diff(x)).sum(axis=1)


def trapezoid_backward(inputs, grad_output):
    y, x = inputs
    h = np.diff(x)
    g = grad_output[:, None]
    dy = np.zeros_like(y)
    dy[:, :-1] += 0.5 * g * h
    dy[:, 1:] += 0.5 * g * h
    mid = (grad_output[:, None] * 0.5 * (y[:, 1:] + y[:, :-1])).sum(axis=0)
    dx = np.zeros_like(x)
    dx[1:] += mid
    dx[:-1] -= mid
    return dy, dx


def trapezoid_wrong(inputs, grad_output):
    y, x = inputs
    _, dx = trapezoid_backward(inputs, grad_output)
    weight = np.zeros_like(x)
    weight[1:-1] = (x[2:] - x[:-2]) / 2
    weight[0], weight[-1] = x[1] - x[0], x[-1] - x[-2]
    return grad_output[:, None] * weight, dx


def differences(inputs):
    (x,) = inputs
    return x[:, 1:] - x[:, :-1]


def differences_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, 1:] += grad_output
    dx[:, :-1] -= grad_output
    return (dx,)


def differences_wrong(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, 0] = -grad_output[:, 0]
    for t in range(1, x.shape[1] - 1):
        dx[:, t] = grad_output[:, t - 1] - grad_output[:, t]
    return (dx,)


def _waves(x):
    n = x.shape[-1]
    angle = 2 * np.pi * np.outer(np.arange(n // 2 + 1), np.arange(n)) / n
    return np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)


def power_spectrum(inputs):
    (x,) = inputs
    c, s = _waves(x)
    return ((x @ c.T) ** 2 + (x @ s.T) ** 2) / x.shape[-1]


def power_spectrum_backward(inputs, grad_output):
    (x,) = inputs
    c, s = _waves(x)
    return (2 / x.shape[-1] * ((grad_output * (x @ c.T)) @ c + (grad_output * (x @ s.T)) @ s),)


def power_spectrum_wrong(inputs, grad_output):
    (x,) = inputs
    c, s = _waves(x)
    return (((grad_output * (x @ c.T)) @ c + (grad_output * (x @ s.T)) @ s) / x.shape[-1],)


def leaky_integrator(inputs):
    """y_t = a y_{t-1} + x_t in every channel."""
    x, a = inputs
    y = np.zeros_like(x)
    state = np.zeros_like(a)
    for t in range(x.shape[1]):
        state = a * state + x[:, t]
        y[:, t] = state
    return y


def _integrator(inputs, grad_output, late):
    x, a = inputs
    y = leaky_integrator(inputs)
    dx, da = np.zeros_like(x), np.zeros_like(a)
    lam = np.zeros_like(a)
    for t in range(x.shape[1] - 1, -1, -1):
        lam = grad_output[:, t] + a * lam
        dx[:, t] = lam
        if late:
            da += lam * y[:, t]
        elif t:
            da += lam * y[:, t - 1]
    return dx, da


def leaky_integrator_backward(inputs, grad_output):
    return _integrator(inputs, grad_output, False)


def leaky_integrator_wrong(inputs, grad_output):
    return _integrator(inputs, grad_output, True)


# ---------------------------------------------------------------- geometry


def pairwise_distance(inputs):
    x, y = inputs
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=-1))


def pairwise_distance_backward(inputs, grad_output):
    x, y = inputs
    unit = (x[:, None] - y[None]) * (grad_output / pairwise_distance(inputs))[..., None]
    return unit.sum(axis=1), -unit.sum(axis=0)


def pairwise_distance_wrong(inputs, grad_output):
    x, y = inputs
    dx, dy = np.zeros_like(x), np.zeros_like(y)
    dist = pairwise_distance(inputs)
    for i in range(len(x)):
        for j in range(len(y)):
            dx[i] += grad_output[i, j] * (x[i] - y[j]) / dist[i, j]
    return dx, dy


def rbf_kernel(inputs, gamma=0.3):
    x, z = inputs
    return np.exp(-gamma * ((x[:, None] - z) ** 2).sum(axis=-1))


def rbf_kernel_backward(inputs, grad_output, gamma=0.3):
    x, z = inputs
    d = (-2 * gamma * grad_output * rbf_kernel(inputs, gamma))[:, :, None] * (x[:, None] - z)
    return d.sum(axis=1), -d.sum(axis=0)


def rbf_kernel_wrong(inputs, grad_output, gamma=0.3):
    x, z = inputs
    _, dz = rbf_kernel_backward(inputs, grad_output, gamma)
    return (-2 * gamma * grad_output[:, :, None] * (x[:, None] - z)).sum(axis=1), dz


def spherical_to_cartesian(inputs):
    """Radius, polar angle, azimuth to three coordinates."""
    r, theta, phi = inputs
    s = r * np.sin(theta)
    return s * np.cos(phi), s * np.sin(phi), r * np.cos(theta)


def spherical_to_cartesian_backward(inputs, grad_output):
    r, theta, phi = inputs
    gx, gy, gz = grad_output
    st, ct, sp, cp = np.sin(theta), np.cos(theta), np.sin(phi), np.cos(phi)
    dr = gx * st * cp + gy * st * sp + gz * ct
    return dr, r * (gx * ct * cp + gy * ct * sp - gz * st), r * st * (gy * cp - gx * sp)


def spherical_to_cartesian_wrong(inputs, grad_output):
    r, theta, phi = inputs
    gx, gy, gz = grad_output
    dr, _, dphi = spherical_to_cartesian_backward(inputs, grad_output)
    along = np.cos(phi) * gx + np.sin(phi) * gy
    return dr, np.cos(theta) * along - np.sin(theta) * gz, dphi


def haversine(inputs):
    """Half the versed sine of the angle between points on the globe."""
    lat1, lat2, dlon = inputs
    return np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin(dlon / 2) ** 2


def haversine_backward(inputs, grad_output):
    lat1, lat2, dlon = inputs
    half = 0.5 * np.sin(lat2 - lat1)
    h2 = np.sin(dlon / 2) ** 2
    d1 = -half - np.sin(lat1) * np.cos(lat2) * h2
    d2 = half - np.cos(lat1) * np.sin(lat2) * h2
    return grad_output * d1, grad_output * d2, grad_output * np.cos(lat1) * np.cos(lat2) * 0.5 * np.sin(dlon)


def haversine_wrong(inputs, grad_output):
    lat1, lat2, dlon = inputs
    d1, d2, _ = haversine_backward(inputs, grad_output)
    a, b, c = (v.astype("f4") for v in inputs)
    third = np.cos(a) * np.cos(b) * np.sin(c) / 2
    return d1, d2, (third * grad_output).astype(dlon.dtype)


# ---------------------------------------------------------------- statistics


def median(inputs):
    (x,) = inputs
    return np.sort(x, axis=1)[:, x.shape[1] // 2]


def median_backward(inputs, grad_output):
    (x,) = inputs
    mid = x.shape[1] // 2
    dx = np.zeros_like(x)
    dx[np.arange(len(x)), np.argsort(x, axis=1)[:, mid]] = grad_output
    return (dx,)


def median_wrong(inputs, grad_output):
    """The rank of an element is taken for its place."""
    (x,) = inputs
    mid = x.shape[1] // 2
    place = np.argsort(x, axis=1).argsort(axis=1)[:, mid]
    dx = np.zeros_like(x)
    dx[np.arange(len(x)), place] = grad_output
    return (dx,)


def _rows_that_tell(rng):
    """Rows whose middle element has not the middle rank."""
    x = apart(rng, 4, 5)
    for row in x:
        while np.argsort(row)[2] == np.argsort(row).argsort()[2]:
            rng.shuffle(row)
    return (x,)


def z_score(inputs):
    """Columns with mean nought and (unbiased) deviation one."""
    (x,) = inputs
    c = x - x.mean(axis=0)
    return c / np.sqrt((c * c).sum(axis=0) / (len(x) - 1))


def _z_score(inputs, grad_output, centred):
    (x,) = inputs
    c = x - x.mean(axis=0)
    sd = np.sqrt((c * c).sum(axis=0) / (len(x) - 1))
    z = c / sd
    d = grad_output - z * (grad_output * z).sum(axis=0) / (len(x) - 1)
    if centred:
        d = d - grad_output.mean(axis=0)
    return (d / sd,)


def z_score_backward(inputs, grad_output):
    return _z_score(inputs, grad_output, True)


def z_score_wrong(inputs, grad_output):
    return _z_score(inputs, grad_output, False)


def moments(inputs):
    """Mean and variance of each row."""
    (x,) = inputs
    mu = x.mean(axis=1)
    return mu, ((x - mu[:, None]) ** 2).mean(axis=1)


def moments_backward(inputs, grad_output):
    (x,) = inputs
    dmu, dvar = grad_output
    centred = x - x.mean(axis=1, keepdims=True)
    return ((dmu[:, None] + 2 * dvar[:, None] * centred) / x.shape[1],)


def moments_wrong(inputs, grad_output):
    (x,) = inputs
    dmu, dvar = grad_output
    x -= x.mean(axis=1, keepdims=True)
    return ((dmu[:, None] + 2 * dvar[:, None] * x) / x.shape[1],)


def weighted_residual(inputs):
    x, m, w = inputs
    return w[:, None] * (x - m)


def weighted_residual_backward(inputs, grad_output):
    x, m, w = inputs
    d = grad_output * w[:, None]
    return d, -d.sum(axis=0), (grad_output * (x - m)).sum(axis=1)


def weighted_residual_wrong(inputs, grad_output):
    x, m, w = inputs
    dw = (grad_output * (x - m)).sum(axis=1)
    grad_output *= w[:, None]
    return grad_output.copy(), -grad_output.sum(axis=0), dw


def remove_offset(inputs):
    """One offset per channel is taken off every pixel."""
    x, offset = inputs
    return x - offset[:, None, None]


def remove_offset_backward(inputs, grad_output):
    return grad_output.copy(), -grad_output.sum(axis=(0, 2, 3))


def remove_offset_wrong(inputs, grad_output):
    return grad_output.copy(), grad_output.copy()


CASES = [
    Planted("inverse: minus forgotten", inverse, inverse_backward, inverse_wrong,
            lambda r: (well_conditioned(r, 4, 4),), {"A": ("sign_flipped",)}),
    Planted("determinant: cofactors not transposed", determinant, determinant_backward, determinant_wrong,
            lambda r: (well_conditioned(r, 2, 3, 3),), {"A": ("axis_swapped",)}),
    Planted("solve: same matrix in the backward", solve, solve_backward, solve_wrong,
            lambda r: (well_conditioned(r, 4, 4), r.normal(size=(4, 3))), {"b": ("operand_transposed",)}),
    Planted("turn_cube: turned on instead of back", turn_cube, turn_cube_backward, turn_cube_wrong,
            lambda r: (r.normal(size=(3, 3, 3)),), {"x": ("axis_swapped",)}),
    Planted("running_sum: last flip forgotten", running_sum, running_sum_backward, running_sum_wrong,
            lambda r: (r.normal(size=(3, 5)),), {"x": ("axis_reversed",)}),
    Planted("polynomial: powers in rising order", polynomial, polynomial_backward, polynomial_wrong,
            lambda r: (r.normal(size=4), r.normal(size=7)), {"c": ("axis_reversed",)}),
    Planted("power: logarithm forgotten", power, power_backward, power_wrong,
            lambda r: (positive(r, 3, 5), r.normal(size=(3, 5))), {"p": ("missing_chain_factor",)}),
    Planted("product: divides by noughts", product, product_backward, product_wrong, _with_zeros,
            {"x": ("not_finite",)}),
    Planted("trapezoid: end weights not halved", trapezoid, trapezoid_backward, trapezoid_wrong,
            lambda r: (r.normal(size=(3, 6)), np.cumsum(positive(r, 6))), {"y": ("factor_per_element",)}),
    Planted("differences: nothing for the last sample", differences, differences_backward, differences_wrong,
            lambda r: (r.normal(size=(2, 7)),), {"x": ("border_missing",)}),
    Planted("power_spectrum: two from the square forgotten", power_spectrum, power_spectrum_backward,
            power_spectrum_wrong, lambda r: (r.normal(size=(2, 9)),), {"x": ("constant_factor",)}),
    Planted("leaky_integrator: state of the same step instead of the one before", leaky_integrator,
            leaky_integrator_backward, leaky_integrator_wrong,
            lambda r: (r.normal(size=(3, 6)), r.uniform(0.3, 0.9, 3)), {"a": ("unexplained",)}),
    Planted("pairwise_distance: second set never filled", pairwise_distance, pairwise_distance_backward,
            pairwise_distance_wrong, lambda r: (r.normal(size=(3, 2)), r.normal(size=(4, 2))),
            {"y": ("zero_gradient",)}),
    Planted("rbf_kernel: exponential forgotten", rbf_kernel, rbf_kernel_backward, rbf_kernel_wrong,
            lambda r: (r.normal(size=(4, 3)), r.normal(size=(5, 3))), {"x": ("missing_chain_factor",)}),
    Planted("spherical_to_cartesian: radius forgotten for the polar angle", spherical_to_cartesian,
            spherical_to_cartesian_backward, spherical_to_cartesian_wrong,
            lambda r: (positive(r, 5), r.uniform(0.3, 2.8, 5), r.normal(size=5)), {"theta": ("missing_operand",)}),
    Planted("haversine: half the digits", haversine, haversine_backward, haversine_wrong,
            lambda r: (r.uniform(-1, 1, 6), r.uniform(-1, 1, 6), r.normal(size=6)), {"dlon": ("low_precision",)}),
    Planted("median: argsort taken twice", median, median_backward, median_wrong, _rows_that_tell,
            {"x": ("wrong_routing",)}),
    Planted("z_score: mean of the upstream stays", z_score, z_score_backward, z_score_wrong,
            lambda r: (r.normal(1, 2, size=(6, 3)),), {"x": ("bn_missing_mean_term",)}),
    Planted("moments: centred in place", moments, moments_backward, moments_wrong,
            lambda r: (r.normal(1, 1, size=(3, 5)),), {"x": ("damages_input",)}),
    Planted("weighted_residual: grad_output scaled in place", weighted_residual, weighted_residual_backward,
            weighted_residual_wrong, lambda r: (r.normal(size=(4, 3)), r.normal(size=3), positive(r, 4)),
            {"x": ("damages_gout",), "m": ("damages_gout",), "w": ("damages_gout",)}),
    Planted("remove_offset: neither the sum nor the minus", remove_offset, remove_offset_backward,
            remove_offset_wrong, lambda r: (r.normal(size=(2, 3, 4, 5)), r.normal(size=3)),
            {"offset": ("missing_broadcast_sum", "sign_flipped")}, twice=True),
]
