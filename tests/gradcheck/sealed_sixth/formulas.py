"""Formulas of science, elementwise functions and matrix functions."""


# ruff: noqa: RUF059  (the packed style names every input)
from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _normal(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


# ---------------------------------------------------------------- elementwise and geometry


def polar_angle(inputs):
    """Angle of the point (x, y)."""
    y, x = inputs
    return np.arctan2(y, x)


def polar_angle_backward(inputs, grad_output):
    y, x = inputs
    r2 = x * x + y * y
    return grad_output * x / r2, -grad_output * y / r2


def polar_angle_wrong_order(inputs, grad_output):
    y, x = inputs
    r2 = x * x + y * y
    return -grad_output * y / r2, grad_output * x / r2


def hypotenuse(inputs):
    """Length of the hypotenuse, the second leg broadcast over rows."""
    a, b = inputs
    return np.hypot(a, b)


def hypotenuse_backward(inputs, grad_output):
    a, b = inputs
    share = grad_output / np.hypot(a, b)
    return share * a, (share * b).sum(axis=0)


def hypotenuse_wrong_shape(inputs, grad_output):
    a, b = inputs
    share = grad_output / np.hypot(a, b)
    return share * a, share * b


def arc_sine(inputs):
    """Inverse of the sine."""
    (x,) = inputs
    return np.arcsin(x)


def arc_sine_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output / np.sqrt(1 - x * x),)


def arc_sine_wrong_root(inputs, grad_output):
    (x,) = inputs
    return (grad_output / np.sqrt(1 + x * x),)


def torque(inputs):
    """Cross product of lever arms and forces."""
    r, f = inputs
    return np.cross(r, f)


def torque_backward(inputs, grad_output):
    r, f = inputs
    return np.cross(f, grad_output), np.cross(grad_output, r)


def torque_wrong_order(inputs, grad_output):
    r, f = inputs
    return np.cross(grad_output, f), np.cross(grad_output, r)


def predator_prey_step(inputs, dt=0.1):
    """One Euler step: s (N, 2) holds prey and predators, r the four rates."""
    s, r = inputs
    u, v = s[:, 0], s[:, 1]
    rate = np.stack([r[0] * u - r[1] * u * v, r[2] * u * v - r[3] * v], axis=1)
    return s + dt * rate


def _predator_prey_rates(inputs, grad_output, dt):
    s, r = inputs
    u, v = s[:, 0], s[:, 1]
    gu, gv = dt * grad_output[:, 0], dt * grad_output[:, 1]
    du = gu * (r[0] - r[1] * v) + gv * r[2] * v
    dv = -gu * r[1] * u + gv * (r[2] * u - r[3])
    dr = np.stack([(gu * u).sum(), -(gu * u * v).sum(), (gv * u * v).sum(), -(gv * v).sum()])
    return np.stack([du, dv], axis=1), dr


def predator_prey_step_backward(inputs, grad_output, dt=0.1):
    ds, dr = _predator_prey_rates(inputs, grad_output, dt)
    return grad_output + ds, dr


def predator_prey_step_wrong_state(inputs, grad_output, dt=0.1):
    return _predator_prey_rates(inputs, grad_output, dt)


def gravity_energy(inputs, constant=0.8):
    """Potential energy of pairs of masses at distance r."""
    m1, m2, r = inputs
    return -constant * m1 * m2 / r


def gravity_energy_backward(inputs, grad_output, constant=0.8):
    m1, m2, r = inputs
    g = constant * grad_output
    return -g * m2 / r, -g * m1 / r, g * m1 * m2 / (r * r)


def gravity_energy_wrong_mass(inputs, grad_output, constant=0.8):
    m1, m2, r = inputs
    g = constant * grad_output
    return -g / r, -g * m1 / r, g * m1 * m2 / (r * r)


def radial_basis(inputs, width=0.7):
    """Gaussian bumps around centres: x (N, D), c (K, D)."""
    x, c = inputs
    return np.exp(-width * ((x[:, None] - c[None]) ** 2).sum(axis=2))


def radial_basis_backward(inputs, grad_output, width=0.7):
    x, c = inputs
    diff = x[:, None] - c[None]
    share = -2 * width * (grad_output * radial_basis(inputs, width))[:, :, None] * diff
    return share.sum(axis=1), -share.sum(axis=0)


def radial_basis_wrong_centres(inputs, grad_output, width=0.7):
    x, c = inputs
    return radial_basis_backward(inputs, grad_output, width)[0], np.zeros_like(c)


def second_difference(inputs):
    """Curvature on a grid; the ends use the one-sided formula."""
    (x,) = inputs
    middle = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
    return np.concatenate([middle[:, :1], middle, middle[:, -1:]], axis=1)


def second_difference_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    n = x.shape[1]
    for i in range(n):
        at = min(max(i, 1), n - 2)
        dx[:, at - 1] += grad_output[:, i]
        dx[:, at] -= 2 * grad_output[:, i]
        dx[:, at + 1] += grad_output[:, i]
    return (dx,)


def second_difference_wrong_ends(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for i in range(1, x.shape[1] - 1):
        dx[:, i - 1] += grad_output[:, i]
        dx[:, i] -= 2 * grad_output[:, i]
        dx[:, i + 1] += grad_output[:, i]
    return (dx,)


def table_lookup(inputs):
    """Linear interpolation in a table with unit spacing: table (K, C), q (M,)."""
    table, q = inputs
    i = np.floor(q.real).astype(int)
    t = (q - i.astype(q.dtype))[:, None]
    return (1 - t) * table[i] + t * table[i + 1]


def table_lookup_backward(inputs, grad_output):
    table, q = inputs
    i = np.floor(q).astype(int)
    t = (q - i.astype(q.dtype))[:, None]
    dtable = np.zeros_like(table)
    np.add.at(dtable, i, (1 - t) * grad_output)
    np.add.at(dtable, i + 1, t * grad_output)
    return dtable, (grad_output * (table[i + 1] - table[i])).sum(axis=1)


def table_lookup_wrong_shares(inputs, grad_output):
    table, q = inputs
    i = np.floor(q).astype(int)
    t = (q - i.astype(q.dtype))[:, None]
    dtable = np.zeros_like(table)
    np.add.at(dtable, i, t * grad_output)
    np.add.at(dtable, i + 1, (1 - t) * grad_output)
    return dtable, (grad_output * (table[i + 1] - table[i])).sum(axis=1)


# ---------------------------------------------------------------- reductions


def free_energy(inputs):
    """Stable logarithm of the sum of exponentials over rows."""
    (x,) = inputs
    top = x.max(axis=1, keepdims=True)
    return np.log(np.exp(x - top).sum(axis=1)) + top[:, 0]


def free_energy_backward(inputs, grad_output):
    (x,) = inputs
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return (grad_output[:, None] * e / e.sum(axis=1, keepdims=True),)


def free_energy_wrong_shift(inputs, grad_output):
    (x,) = inputs
    x -= x.max(axis=1, keepdims=True)
    e = np.exp(x)
    return (grad_output[:, None] * e / e.sum(axis=1, keepdims=True),)


def row_product(inputs):
    """Product along rows."""
    (x,) = inputs
    return x.prod(axis=1)


def row_product_backward(inputs, grad_output):
    (x,) = inputs
    others = [np.delete(x, j, axis=1).prod(axis=1) for j in range(x.shape[1])]
    return (grad_output[:, None] * np.stack(others, axis=1),)


def row_product_wrong_quotient(inputs, grad_output):
    (x,) = inputs
    with np.errstate(divide="ignore", invalid="ignore"):
        return (grad_output[:, None] * x.prod(axis=1, keepdims=True) / x,)


def maximum_norm(inputs):
    """Largest absolute value of each row."""
    (x,) = inputs
    return np.abs(x).max(axis=1)


def maximum_norm_backward(inputs, grad_output):
    (x,) = inputs
    rows, at = np.arange(x.shape[0]), np.abs(x).argmax(axis=1)
    dx = np.zeros_like(x)
    dx[rows, at] = grad_output * np.sign(x[rows, at])
    return (dx,)


def maximum_norm_wrong_place(inputs, grad_output):
    (x,) = inputs
    rows, at = np.arange(x.shape[0]), x.argmax(axis=1)
    dx = np.zeros_like(x)
    dx[rows, at] = grad_output * np.sign(x[rows, at])
    return (dx,)


# ---------------------------------------------------------------- matrix functions


def linear_solve(inputs):
    """Solution Y of A Y = B."""
    a, b = inputs
    return np.linalg.solve(a, b)


def linear_solve_backward(inputs, grad_output):
    a, b = inputs
    db = np.linalg.solve(a.T, grad_output)
    return -db @ np.linalg.solve(a, b).T, db


def linear_solve_wrong_matrix(inputs, grad_output):
    a, b = inputs
    da = -np.linalg.solve(a.T, grad_output) @ np.linalg.solve(a, b).T
    return da, np.linalg.solve(a, grad_output)


def negative_log_volume(inputs):
    """Minus the logarithm of the absolute determinant."""
    (a,) = inputs
    return -np.linalg.slogdet(a)[1]


def negative_log_volume_backward(inputs, grad_output):
    (a,) = inputs
    return (-grad_output * np.linalg.inv(a).T,)


def negative_log_volume_wrong_inverse(inputs, grad_output):
    (a,) = inputs
    return (grad_output * np.linalg.inv(a),)


def _exponential(a):
    term = np.eye(a.shape[0], dtype=a.dtype)
    total = term.copy()
    for n in range(1, 26):
        term = term @ a / n
        total = total + term
    return total


def matrix_exponential(inputs):
    """Power series of a square matrix."""
    (a,) = inputs
    return _exponential(a)


def matrix_exponential_backward(inputs, grad_output):
    (a,) = inputs
    n = a.shape[0]
    block = np.zeros((2 * n, 2 * n), a.dtype)
    block[:n, :n] = a.T
    block[n:, n:] = a.T
    block[:n, n:] = grad_output
    return (_exponential(block)[:n, n:].copy(),)


def matrix_exponential_wrong_scalar_rule(inputs, grad_output):
    (a,) = inputs
    return (_exponential(a.T) @ grad_output,)


def cholesky_factor(inputs):
    """Lower factor of the symmetric part of A, made positive definite."""
    (a,) = inputs
    return np.linalg.cholesky(0.5 * (a + a.T) + 6 * np.eye(a.shape[0], dtype=a.dtype))


def _cholesky_gradient(a, middle, factor):
    inverse = np.linalg.inv(factor)
    s = inverse.T @ middle @ inverse
    return 0.5 * (s + s.T)


def cholesky_factor_backward(inputs, grad_output):
    (a,) = inputs
    factor = cholesky_factor(inputs)
    middle = np.tril(factor.T @ grad_output)
    middle[np.diag_indices_from(middle)] *= 0.5
    return (_cholesky_gradient(a, middle, factor),)


def cholesky_factor_wrong_diagonal(inputs, grad_output):
    (a,) = inputs
    factor = cholesky_factor(inputs)
    return (_cholesky_gradient(a, np.tril(factor.T @ grad_output), factor),)


# ---------------------------------------------------------------- inputs


def _plane(rng):
    radius, angle = rng.uniform(0.5, 2, (3, 4)), rng.uniform(-3, 3, (3, 4))
    return radius * np.sin(angle), radius * np.cos(angle)


def _row_with_zero(rng):
    x = rng.uniform(0.5, 1.5, (4, 5)) * rng.choice([-1, 1], (4, 5))
    x[1, 3] = 0
    x[2, 0] = 0
    return (x,)


def _some_negative_peaks(rng):
    x = rng.uniform(-1, 1, (5, 4))
    x[0, 2] = -1.5
    x[2, 1] = -1.7
    x[3, 3] = 1.6
    return (x,)


def _queries(rng):
    at = np.array([2, 0, 4, 2, 1]) + rng.choice([0.12, 0.27, 0.36, 0.71, 0.88], 5, replace=False)
    return rng.standard_normal((6, 3)), at


CASES = [
    Planted(
        "polar angle: the two gradients are returned in the wrong order",
        polar_angle, polar_angle_backward, polar_angle_wrong_order, _plane,
        {"y": ("gradients_swapped",), "x": ("gradients_swapped",)},
    ),
    Planted(
        "hypotenuse: the broadcast leg is not summed",
        hypotenuse, hypotenuse_backward, hypotenuse_wrong_shape, _normal((4, 5), (5,)),
        {"b": ("missing_broadcast_sum",)},
    ),
    Planted(
        "arc sine: plus under the root",
        arc_sine, arc_sine_backward, arc_sine_wrong_root, lambda rng: (rng.uniform(-0.9, 0.9, (3, 6)),),
        {"x": ("wrong_local_derivative",)},
    ),
    Planted(
        "torque: the factors of the cross product in the wrong order",
        torque, torque_backward, torque_wrong_order, _normal((4, 3), (4, 3)), {"r": ("sign_flipped",)},
    ),
    Planted(
        "predator prey step: the old state itself is forgotten",
        predator_prey_step, predator_prey_step_backward, predator_prey_step_wrong_state,
        lambda rng: (rng.uniform(0.5, 2, (5, 2)), rng.uniform(0.5, 1.5, 4)), {"s": ("identity_branch_lost",)},
        {"dt": 0.15},
    ),
    Planted(
        "gravity energy: the other mass is forgotten",
        gravity_energy, gravity_energy_backward, gravity_energy_wrong_mass,
        lambda rng: tuple(rng.uniform(0.5, 2.5, (3, 4)) for _ in range(3)), {"m1": ("missing_operand",)},
    ),
    Planted(
        "radial basis: the centres are taken for constants",
        radial_basis, radial_basis_backward, radial_basis_wrong_centres, _normal((4, 3), (5, 3)),
        {"c": ("zero_gradient",)},
    ),
    Planted(
        "second difference: only the inner grid points send gradients",
        second_difference, second_difference_backward, second_difference_wrong_ends, _normal((3, 7)),
        {"x": ("border_missing",)},
    ),
    Planted(
        "table lookup: the shares of the two neighbours are exchanged",
        table_lookup, table_lookup_backward, table_lookup_wrong_shares, _queries, {"table": ("wrong_weights",)},
    ),
    Planted(
        "free energy: shifts the argument in place",
        free_energy, free_energy_backward, free_energy_wrong_shift, _normal((3, 5)), {"x": ("damages_input",)},
    ),
    Planted(
        "row product: divides by the entry",
        row_product, row_product_backward, row_product_wrong_quotient, _row_with_zero, {"x": ("not_finite",)},
    ),
    Planted(
        "maximum norm: looks for the largest entry without its absolute value",
        maximum_norm, maximum_norm_backward, maximum_norm_wrong_place, _some_negative_peaks,
        {"x": ("wrong_routing",)},
    ),
    Planted(
        "linear solve: the matrix is not transposed",
        linear_solve, linear_solve_backward, linear_solve_wrong_matrix,
        lambda rng: (rng.standard_normal((4, 4)) + 3 * np.eye(4), rng.standard_normal((4, 3))),
        {"b": ("operand_transposed",)},
    ),
    Planted(
        "negative log volume: neither the sign nor the transposition",
        negative_log_volume, negative_log_volume_backward, negative_log_volume_wrong_inverse,
        lambda rng: (rng.standard_normal((4, 4)) + 2 * np.eye(4),), {"a": ("axis_swapped", "sign_flipped")},
        twice=True,
    ),
    Planted(
        "matrix exponential: the rule for numbers",
        matrix_exponential, matrix_exponential_backward, matrix_exponential_wrong_scalar_rule,
        lambda rng: (0.8 * rng.standard_normal((3, 3)),), {"a": ("unexplained",)},
    ),
    Planted(
        "cholesky factor: the diagonal of the middle matrix is not halved",
        cholesky_factor, cholesky_factor_backward, cholesky_factor_wrong_diagonal, _normal((4, 4)),
        {"a": ("unexplained",)},
    ),
]
