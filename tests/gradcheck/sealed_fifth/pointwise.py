"""Elementwise units, physics and geometry."""
# ruff: noqa: RUF059  (the packed style names every input)

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# ---------------------------------------------------------------- distances between all points
def distances(inputs):
    """Euclidean distance of every point to every other."""
    (p,) = inputs
    diff = p[:, None, :] - p[None, :, :]
    return np.sqrt((diff * diff).sum(axis=-1))


def distances_right(inputs, grad_output):
    (p,) = inputs
    diff = p[:, None, :] - p[None, :, :]
    d = np.sqrt((diff * diff).sum(axis=-1))
    safe = np.where(d > 0, d, 1).astype(p.dtype)
    pull = (grad_output / safe)[:, :, None] * diff
    return (pull.sum(axis=1) - pull.sum(axis=0),)


def distances_wrong(inputs, grad_output):
    (p,) = inputs
    diff = p[:, None, :] - p[None, :, :]
    d = np.sqrt((diff * diff).sum(axis=-1))
    with np.errstate(all="ignore"):
        pull = grad_output[:, :, None] * diff / d[:, :, None]
    return (pull.sum(axis=1) - pull.sum(axis=0),)


# ---------------------------------------------------------------- hard tanh
def hard_tanh(inputs, bound=1.0):
    """Clip to [-bound, bound]."""
    (x,) = inputs
    return np.clip(x, -bound, bound)


def hard_tanh_right(inputs, grad_output, bound=1.0):
    (x,) = inputs
    return (np.where(np.abs(x) < bound, grad_output, 0).astype(x.dtype),)


def hard_tanh_wrong(inputs, grad_output, bound=1.0):
    (x,) = inputs
    grad_output[np.abs(x) >= bound] = 0
    return (grad_output,)


# ---------------------------------------------------------------- soft rounding
def soft_round(inputs):
    """A smooth staircase through the integers."""
    (x,) = inputs
    return x - np.sin(2 * math.pi * x) / (2 * math.pi)


def soft_round_right(inputs, grad_output):
    (x,) = inputs
    return (grad_output * (1 - np.cos(2 * math.pi * x)),)


def soft_round_wrong(inputs, grad_output):
    (x,) = inputs
    return (np.zeros_like(x),)


# ---------------------------------------------------------------- torque: cross product
def torque(inputs):
    """Lever arm times force, for every body."""
    arm, force = inputs
    return np.cross(arm, force)


def torque_right(inputs, grad_output):
    arm, force = inputs
    return np.cross(force, grad_output), np.cross(grad_output, arm)


def torque_wrong(inputs, grad_output):
    arm, force = inputs
    return np.cross(grad_output, force), np.cross(grad_output, arm)


# ---------------------------------------------------------------- polar angle
def polar_angle(inputs):
    """The angle of (u, v) against the u axis."""
    v, u = inputs
    return np.arctan2(v, u)


def polar_angle_right(inputs, grad_output):
    v, u = inputs
    r2 = u * u + v * v
    return grad_output * u / r2, -grad_output * v / r2


def polar_angle_wrong(inputs, grad_output):
    v, u = inputs
    r2 = u * u + v * v
    return -grad_output * v / r2, grad_output * u / r2


# ---------------------------------------------------------------- reparametrised normal sample
def normal_sample(inputs):
    """mu + sigma * eps with a log-sigma per feature."""
    mu, log_sigma, eps = inputs
    return mu + np.exp(log_sigma) * eps


def normal_sample_right(inputs, grad_output):
    mu, log_sigma, eps = inputs
    sigma = np.exp(log_sigma)
    return grad_output.copy(), (grad_output * eps).sum(axis=0) * sigma, grad_output * sigma


def normal_sample_wrong(inputs, grad_output):
    mu, log_sigma, eps = inputs
    sigma = np.exp(log_sigma)
    return grad_output.copy(), (grad_output * eps).sum(axis=0), grad_output * sigma


# ---------------------------------------------------------------- scaled tanh
def scaled_tanh(inputs, height=1.7, slope=0.6):
    """height * tanh(slope * x)."""
    (x,) = inputs
    return height * np.tanh(slope * x)


def scaled_tanh_right(inputs, grad_output, height=1.7, slope=0.6):
    (x,) = inputs
    t = np.tanh(slope * x)
    return (grad_output * height * slope * (1 - t * t),)


def scaled_tanh_wrong(inputs, grad_output, height=1.7, slope=0.6):
    (x,) = inputs
    t = slope * x
    return (grad_output * height * slope * (1 - t * t),)


# ---------------------------------------------------------------- softplus
def softplus(inputs):
    """log(1 + exp(x))."""
    (x,) = inputs
    return np.log1p(np.exp(x))


def softplus_right(inputs, grad_output):
    (x,) = inputs
    return (grad_output * sigmoid(x),)


def softplus_wrong(inputs, grad_output):
    (x,) = inputs
    y = np.log1p(np.exp(x))
    return (grad_output * sigmoid(y),)


# ---------------------------------------------------------------- cube root
def cube_root(inputs):
    """The real cube root."""
    (x,) = inputs
    return np.cbrt(x)


def cube_root_right(inputs, grad_output):
    (x,) = inputs
    y = np.cbrt(x)
    return (grad_output / (3 * y * y),)


def cube_root_wrong(inputs, grad_output):
    (x,) = inputs
    return (grad_output / (3 * x * x),)


# ---------------------------------------------------------------- air drag
def drag(inputs):
    """Half the density times speed squared times area."""
    rho, v, area = inputs
    return 0.5 * rho * v * v * area


def drag_right(inputs, grad_output):
    rho, v, area = inputs
    return grad_output * 0.5 * v * v * area, grad_output * rho * v * area, grad_output * 0.5 * rho * v * v


def drag_wrong(inputs, grad_output):
    rho, v, area = inputs
    return grad_output * 0.5 * v * v, grad_output * rho * v * area, grad_output * 0.5 * rho * v * v


# ---------------------------------------------------------------- highway gate
def highway(inputs):
    """z * h + (1 - z) * x."""
    z, h, x = inputs
    return z * h + (1 - z) * x


def highway_right(inputs, grad_output):
    z, h, x = inputs
    return grad_output * (h - x), grad_output * z, grad_output * (1 - z)


def highway_wrong(inputs, grad_output):
    z, h, x = inputs
    return grad_output * (h - x), grad_output.copy(), grad_output * (1 - z)


# ---------------------------------------------------------------- PReLU
def prelu(inputs):
    """A slope per channel on the negative side; x is (N, C, L)."""
    x, slope = inputs
    return np.where(x > 0, x, slope[None, :, None] * x)


def prelu_right(inputs, grad_output):
    x, slope = inputs
    dx = np.where(x > 0, grad_output, grad_output * slope[None, :, None])
    return dx, (grad_output * np.where(x > 0, 0, x)).sum(axis=(0, 2)).astype(x.dtype)


def prelu_wrong(inputs, grad_output):
    x, slope = inputs
    dx = np.where(x > 0, grad_output, grad_output * slope[None, :, None])
    dslope = np.zeros_like(slope)
    dslope += (grad_output * np.where(x > 0, 0, x)).sum()
    return dx, dslope


# ---------------------------------------------------------------- dropout with a seed
def dropout(inputs, keep=0.6, seed=11):
    """Inverted dropout; the mask comes from the seed."""
    (x,) = inputs
    mask = np.random.default_rng(seed).random(x.shape) < keep
    return x * mask / keep


def dropout_right(inputs, grad_output, keep=0.6, seed=11):
    (x,) = inputs
    mask = np.random.default_rng(seed).random(x.shape) < keep
    return (grad_output * mask / keep,)


def dropout_wrong(inputs, grad_output, keep=0.6, seed=11):
    (x,) = inputs
    mask = np.random.default_rng().random(x.shape) < keep
    return (grad_output * mask / keep,)


# ---------------------------------------------------------------- electrostatic energy
def coulomb(inputs):
    """The energy of point charges, every pair once."""
    p, q = inputs
    total = p.dtype.type(0)
    for i in range(len(q)):
        for j in range(i):
            d = p[i] - p[j]
            total = total + q[i] * q[j] / np.sqrt((d * d).sum())
    return np.asarray(total)


def coulomb_pull(p, q):
    n = len(q)
    diff = p[:, None, :] - p[None, :, :]
    r = np.sqrt((diff * diff).sum(axis=-1)) + np.eye(n, dtype=p.dtype)
    off = 1 - np.eye(n, dtype=p.dtype)
    return diff, off / r


def coulomb_right(inputs, grad_output):
    p, q = inputs
    diff, inv = coulomb_pull(p, q)
    force = (-q[:, None] * q[None, :] * inv**3)[:, :, None] * diff
    return grad_output * force.sum(axis=1), grad_output * (inv @ q)


def coulomb_wrong(inputs, grad_output):
    p, q = inputs
    diff, inv = coulomb_pull(p, q)
    force = (-q[:, None] * q[None, :] * inv**3)[:, :, None] * diff
    return grad_output * (force.sum(axis=1) - force.sum(axis=0)), grad_output * (inv @ q)


# ---------------------------------------------------------------- resistors in parallel
def parallel(inputs):
    """a * b / (a + b) for every a with every b."""
    a, b = inputs
    return a * b / (a + b)


def parallel_right(inputs, grad_output):
    a, b = inputs
    s = (a + b) ** 2
    return (grad_output * b * b / s).sum(axis=1, keepdims=True), (grad_output * a * a / s).sum(axis=0)


def parallel_wrong(inputs, grad_output):
    a, b = inputs
    s = (a + b) ** 2
    return (grad_output * b * b / s).sum(axis=1, keepdims=True), grad_output * a * a / s


# ---------------------------------------------------------------- feature-wise modulation
def modulate(inputs):
    """tanh of a scale and a shift per channel; x is (N, C, L)."""
    x, gamma, beta = inputs
    return np.tanh(gamma[:, None] * x + beta[:, None])


def modulate_right(inputs, grad_output):
    x, gamma, beta = inputs
    y = np.tanh(gamma[:, None] * x + beta[:, None])
    gz = grad_output * (1 - y * y)
    return gz * gamma[:, None], (gz * x).sum(axis=(0, 2)), gz.sum(axis=(0, 2))


def modulate_wrong(inputs, grad_output):
    x, gamma, beta = inputs
    y = np.tanh(gamma[:, None] * x + beta[:, None])
    gz = grad_output * (1 - y * y)
    return gz * gamma[:, None], gz * x, gz.sum(axis=(0, 2))


# ---------------------------------------------------------------- one step of a pendulum
def pendulum(inputs, dt=0.2):
    """One explicit Euler step; a row is (angle, speed)."""
    (s,) = inputs
    rate = np.stack([s[:, 1], -np.sin(s[:, 0])], axis=1)
    return s + dt * rate


def pendulum_right(inputs, grad_output, dt=0.2):
    (s,) = inputs
    ds = grad_output.copy()
    ds[:, 0] -= dt * np.cos(s[:, 0]) * grad_output[:, 1]
    ds[:, 1] += dt * grad_output[:, 0]
    return (ds,)


def pendulum_wrong(inputs, grad_output, dt=0.2):
    (s,) = inputs
    ds = np.zeros_like(s)
    ds[:, 0] -= dt * np.cos(s[:, 0]) * grad_output[:, 1]
    ds[:, 1] += dt * grad_output[:, 0]
    return (ds,)


def away_from_zero(rng, shape, low=0.4, high=2.0):
    return rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape)


def clip_values(rng):
    x = rng.uniform(-0.8, 0.8, (4, 5))
    x[::2] = away_from_zero(rng, (2, 5), 1.2, 2.0)
    return (x,)


CASES = [
    Planted(
        "pairwise distances: the diagonal divides zero by zero", distances, distances_right, distances_wrong,
        lambda rng: (rng.normal(size=(5, 3)),), {"p": ("not_finite",)},
    ),
    Planted(
        "hard tanh: masks the upstream in place and hands it back", hard_tanh, hard_tanh_right, hard_tanh_wrong,
        clip_values, {"x": ("damages_gout", "aliases_gout")}, {"bound": 1.0}, twice=True,
    ),
    Planted(
        "soft rounding: taken for a rounding with no slope", soft_round, soft_round_right, soft_round_wrong,
        lambda rng: (rng.normal(size=(3, 7)),), {"x": ("zero_gradient",)},
    ),
    Planted(
        "torque: cross product in the wrong order", torque, torque_right, torque_wrong,
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3))), {"arm": ("sign_flipped",)},
    ),
    Planted(
        "polar angle: the two gradients are returned in the other order", polar_angle, polar_angle_right, polar_angle_wrong,
        lambda rng: (away_from_zero(rng, (3, 4)), away_from_zero(rng, (3, 4))),
        {"v": ("gradients_swapped",), "u": ("gradients_swapped",)},
    ),
    Planted(
        "normal sample: the exponential of log sigma is forgotten",
        normal_sample, normal_sample_right, normal_sample_wrong,
        lambda rng: (rng.normal(size=(4, 6)), rng.normal(size=6), rng.normal(size=(4, 6))),
        {"log_sigma": ("missing_chain_factor",)},
    ),
    Planted(
        "scaled tanh: the argument instead of the result is squared", scaled_tanh, scaled_tanh_right, scaled_tanh_wrong,
        lambda rng: (rng.normal(size=(5, 4)) * 1.5,), {"x": ("wrong_local_derivative",)}, {"height": 1.7, "slope": 0.6},
    ),
    Planted(
        "softplus: sigmoid of the output", softplus, softplus_right, softplus_wrong,
        lambda rng: (rng.normal(size=(2, 9)),), {"x": ("wrong_local_derivative",)},
    ),
    Planted(
        "cube root: x in place of y", cube_root, cube_root_right, cube_root_wrong,
        lambda rng: (away_from_zero(rng, (13,)),), {"x": ("wrong_local_derivative",)},
    ),
    Planted(
        "air drag: the density's gradient forgets the area", drag, drag_right, drag_wrong,
        lambda rng: (rng.uniform(0.5, 2, 7), rng.normal(size=7) + 2, rng.uniform(0.3, 2, 7)), {"rho": ("missing_operand",)},
    ),
    Planted(
        "highway: the gate is not applied to the new state", highway, highway_right, highway_wrong,
        lambda rng: (rng.uniform(0.1, 0.9, (3, 5)), rng.normal(size=(3, 5)), rng.normal(size=(3, 5))),
        {"h": ("missing_operand",)},
    ),
    Planted(
        "prelu: the slopes get one sum over all channels", prelu, prelu_right, prelu_wrong,
        lambda rng: (away_from_zero(rng, (2, 3, 7)), rng.uniform(0.1, 0.5, 3)), {"slope": ("mixed_over_axis",)},
    ),
    Planted(
        "dropout: the backward draws a new mask", dropout, dropout_right, dropout_wrong,
        lambda rng: (rng.normal(size=(6, 5)),), {"x": ("nondeterministic",)}, {"keep": 0.6, "seed": 11},
    ),
    Planted(
        "coulomb energy: every pair pulls twice", coulomb, coulomb_right, coulomb_wrong,
        lambda rng: (rng.normal(size=(5, 3)) * 2, away_from_zero(rng, (5,))), {"p": ("constant_factor",)},
    ),
    Planted(
        "parallel resistors: the row is not summed", parallel, parallel_right, parallel_wrong,
        lambda rng: (rng.uniform(0.5, 3, (5, 1)), rng.uniform(0.5, 3, 4)), {"b": ("missing_broadcast_sum",)},
    ),
    Planted(
        "modulation: the scale's gradient is left at full size", modulate, modulate_right, modulate_wrong,
        lambda rng: (rng.normal(size=(2, 3, 5)), rng.normal(size=3), rng.normal(size=3)),
        {"gamma": ("missing_broadcast_sum",)},
    ),
    Planted(
        "pendulum step: the old state is forgotten", pendulum, pendulum_right, pendulum_wrong,
        lambda rng: (rng.normal(size=(5, 2)),), {"s": ("identity_branch_lost",)}, {"dt": 0.2},
    ),
]
