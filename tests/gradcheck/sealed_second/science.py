"""Second sealed exam: signals, geometry, statistics, physics, graphics, finance, recurrences, matrices."""

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def _n(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


def full_convolution(inputs):
    x, h = inputs
    return np.convolve(x, h)


def full_convolution_backward(inputs, grad_output):
    x, h = inputs
    return np.correlate(grad_output, h, "valid"), np.correlate(grad_output, x, "valid")


def full_convolution_backward_flipped(inputs, grad_output):
    x, h = inputs
    return np.convolve(grad_output, h, "valid"), np.correlate(grad_output, x, "valid")


def causal_fir(inputs):
    """y[t] = sum over k of h[k] x[t - k], zeros before the start."""
    x, h = inputs
    y = np.zeros_like(x)
    for k in range(len(h)):
        y[:, k:] += h[k] * x[:, : x.shape[1] - k]
    return y


def causal_fir_backward(inputs, grad_output):
    x, h = inputs
    n = x.shape[1]
    dx, dh = np.zeros_like(x), np.zeros_like(h)
    for k in range(len(h)):
        dx[:, : n - k] += h[k] * grad_output[:, k:]
        dh[k] = np.vdot(grad_output[:, k:], x[:, : n - k])
    return dx, dh


def causal_fir_backward_taps(inputs, grad_output):
    x, h = inputs
    n = x.shape[1]
    dx, dh = np.zeros_like(x), np.zeros_like(h)
    for k in range(len(h)):
        dx[:, : n - k] += h[k] * grad_output[:, k:]
    for k in range(len(h) - 1):
        dh[k] = np.vdot(grad_output[:, k:], x[:, : n - k])
    return dx, dh


def frames(inputs, hop=2):
    """Overlapping windowed frames of a signal."""
    x, window = inputs
    n = len(window)
    return np.stack([x[a : a + n] * window for a in range(0, len(x) - n + 1, hop)])


def frames_backward(inputs, grad_output, hop=2):
    x, window = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(window)
    for t in range(len(grad_output)):
        part = slice(t * hop, t * hop + len(window))
        dx[part] += grad_output[t] * window
        dw += grad_output[t] * x[part]
    return dx, dw


def frames_backward_assign(inputs, grad_output, hop=2):
    x, window = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(window)
    for t in range(len(grad_output)):
        part = slice(t * hop, t * hop + len(window))
        dx[part] = grad_output[t] * window
        dw += grad_output[t] * x[part]
    return dx, dw


def frames_backward_short(inputs, grad_output, hop=2):
    x, window = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(window)
    for t in range(len(grad_output)):
        dw += grad_output[t] * x[t * hop : t * hop + len(window)]
    for t in range(len(grad_output) - 1):
        dx[t * hop : t * hop + len(window)] += grad_output[t] * window
    return dx, dw


def haar_step(inputs):
    """One level of the Haar transform: averages and details."""
    (x,) = inputs
    a, b = x[:, 0::2], x[:, 1::2]
    return (a + b) * 0.5**0.5, (a - b) * 0.5**0.5


def haar_step_backward(inputs, grad_output):
    (x,) = inputs
    low, high = grad_output
    d = np.empty_like(x)
    d[:, 0::2] = (low + high) * 0.5**0.5
    d[:, 1::2] = (low - high) * 0.5**0.5
    return (d,)


def haar_step_backward_single(inputs, grad_output):
    (x,) = inputs
    low, high = grad_output
    d = np.empty(x.shape, np.float32)
    d[:, 0::2] = (low + high) * 0.5**0.5
    d[:, 1::2] = (low - high) * 0.5**0.5
    return (d,)


def _cosines(n, dtype):
    k = np.arange(n)
    return np.cos(math.pi * (k[None, :] + 0.5) * k[:, None] / n).astype(dtype)


def dct(inputs):
    (x,) = inputs
    n = x.shape[1]
    return x @ _cosines(n, x.dtype).T * (2 / n) ** 0.5


def dct_backward(inputs, grad_output):
    (x,) = inputs
    n = x.shape[1]
    return (grad_output @ _cosines(n, x.dtype) * (2 / n) ** 0.5,)


def dct_backward_scale(inputs, grad_output):
    (x,) = inputs
    return (grad_output @ _cosines(x.shape[1], x.dtype),)


def one_pole(inputs):
    """y[t] = a y[t-1] + x[t], a coefficient for each channel."""
    x, a = inputs
    y = np.empty_like(x)
    last = np.zeros_like(a)
    for t in range(x.shape[1]):
        last = a * last + x[:, t]
        y[:, t] = last
    return y


def one_pole_backward(inputs, grad_output):
    x, a = inputs
    y = one_pole(inputs)
    dx, da, carry = np.empty_like(x), np.zeros_like(a), np.zeros_like(a)
    for t in range(x.shape[1] - 1, -1, -1):
        carry = grad_output[:, t] + a * carry
        dx[:, t] = carry
        if t:
            da += carry * y[:, t - 1]
    return dx, da


def one_pole_backward_direct(inputs, grad_output):
    y = one_pole(inputs)
    return one_pole_backward(inputs, grad_output)[0], (grad_output[:, 1:] * y[:, :-1]).sum(axis=1)


def ewma(inputs, alpha=0.3):
    """Exponentially weighted average along the last axis."""
    (x,) = inputs
    y = x.copy()
    for t in range(1, x.shape[-1]):
        y[..., t] = alpha * x[..., t] + (1 - alpha) * y[..., t - 1]
    return y


def ewma_backward(inputs, grad_output, alpha=0.3):
    (x,) = inputs
    d = np.empty_like(x)
    carry = 0
    for t in range(x.shape[-1] - 1, 0, -1):
        carry = carry * (1 - alpha) + grad_output[..., t]
        d[..., t] = alpha * carry
    d[..., 0] = carry * (1 - alpha) + grad_output[..., 0]
    return (d,)


_MEMORY = {"carry": 0.0}


def ewma_backward_memory(inputs, grad_output, alpha=0.3):
    (x,) = inputs
    d = np.empty_like(x)
    carry = _MEMORY["carry"]
    for t in range(x.shape[-1] - 1, 0, -1):
        carry = carry * (1 - alpha) + grad_output[..., t]
        d[..., t] = alpha * carry
    d[..., 0] = carry * (1 - alpha) + grad_output[..., 0]
    _MEMORY["carry"] = float(np.sum(np.abs(grad_output))) + 1.0
    return (d,)


def cross_product(inputs):
    a, b = inputs
    return np.cross(a, b)


def cross_product_backward(inputs, grad_output):
    a, b = inputs
    return np.cross(b, grad_output), np.cross(grad_output, a)


def cross_product_backward_sign(inputs, grad_output):
    a, b = inputs
    return np.cross(b, grad_output), np.cross(a, grad_output)


def apply_pose(inputs):
    p, r, t = inputs
    return p @ r.T + t


def apply_pose_backward(inputs, grad_output):
    p, r, _ = inputs
    return grad_output @ r, grad_output.T @ p, grad_output.sum(axis=0)


def apply_pose_backward_inverse(inputs, grad_output):
    p, r, _ = inputs
    return grad_output @ r.T, grad_output.T @ p, grad_output.sum(axis=0)


def table_lookup(inputs):
    """Linear interpolation in a table."""
    table, where = inputs
    low = np.floor(where).astype(int)
    f = where - low.astype(where.dtype)
    return (1 - f) * table[low] + f * table[low + 1]


def table_lookup_backward(inputs, grad_output):
    table, where = inputs
    low = np.floor(where).astype(int)
    f = where - low.astype(where.dtype)
    d = np.zeros_like(table)
    np.add.at(d, low, grad_output * (1 - f))
    np.add.at(d, low + 1, grad_output * f)
    return d, grad_output * (table[low + 1] - table[low])


def table_lookup_backward_fractions(inputs, grad_output):
    table, where = inputs
    low = np.floor(where).astype(int)
    f = where - low.astype(where.dtype)
    d = np.zeros_like(table)
    np.add.at(d, low, grad_output * f)
    np.add.at(d, low + 1, grad_output * (1 - f))
    return d, grad_output * (table[low + 1] - table[low])


def barycentric_blend(inputs):
    """Colours of a triangle's corners, blended at some points."""
    colours, corners = inputs  # (P, 3, C), (P, 3)
    return np.einsum("pk,pkc->pc", corners / corners.sum(axis=1, keepdims=True), colours)


def barycentric_blend_backward(inputs, grad_output):
    colours, corners = inputs
    total = corners.sum(axis=1, keepdims=True)
    w = corners / total
    dw = np.einsum("pc,pkc->pk", grad_output, colours)
    return w[:, :, None] * grad_output[:, None], (dw - (dw * w).sum(axis=1, keepdims=True)) / total


def barycentric_blend_backward_turned(inputs, grad_output):
    corners = inputs[1]
    w = corners / corners.sum(axis=1, keepdims=True)
    return np.roll(w, 1, axis=1)[:, :, None] * grad_output[:, None], barycentric_blend_backward(inputs, grad_output)[1]


def polygon_area(inputs):
    """Signed area by the shoelace formula, for several polygons."""
    (p,) = inputs
    q = np.roll(p, -1, axis=1)
    return 0.5 * (p[..., 0] * q[..., 1] - q[..., 0] * p[..., 1]).sum(axis=1)


def _polygon(p, grad_output):
    d = np.empty_like(p)
    d[..., 0] = 0.5 * (np.roll(p[..., 1], -1, axis=1) - np.roll(p[..., 1], 1, axis=1)) * grad_output[:, None]
    d[..., 1] = 0.5 * (np.roll(p[..., 0], 1, axis=1) - np.roll(p[..., 0], -1, axis=1)) * grad_output[:, None]
    return d


def polygon_area_backward(inputs, grad_output):
    return (_polygon(inputs[0], grad_output),)


def polygon_area_backward_twice(inputs, grad_output):
    grad_output *= -0.5
    return (2 * _polygon(inputs[0], grad_output),)


def polar(inputs):
    """Radius and angle."""
    u, v = inputs
    return np.hypot(u, v), np.arctan2(v, u)


def polar_backward(inputs, grad_output):
    u, v = inputs
    gr, ga = grad_output
    r = np.hypot(u, v)
    return (gr * u - ga * v / r) / r, (gr * v + ga * u / r) / r


def polar_backward_exchange(inputs, grad_output):
    du, dv = polar_backward(inputs, grad_output)
    return dv, du


def spherical(inputs):
    r, theta, phi = inputs
    s = np.sin(theta)
    return r * np.stack([s * np.cos(phi), s * np.sin(phi), np.cos(theta)])


def _sphere(inputs, grad_output, c):
    r, theta, phi = inputs
    s = np.sin(theta)
    plane = grad_output[0] * np.cos(phi) + grad_output[1] * np.sin(phi)
    dr = plane * s + grad_output[2] * np.cos(theta)
    return dr, r * (plane * c - grad_output[2] * s), r * s * (grad_output[1] * np.cos(phi) - grad_output[0] * np.sin(phi))


def spherical_backward(inputs, grad_output):
    return _sphere(inputs, grad_output, np.cos(inputs[1]))


def spherical_backward_sine(inputs, grad_output):
    return _sphere(inputs, grad_output, -np.sin(inputs[1]))


def perspective(inputs):
    """Points seen by a pinhole camera with a focal length for each axis."""
    p, f = inputs
    return f * p[:, :2] / p[:, 2:]


def perspective_backward(inputs, grad_output):
    p, f = inputs
    d = np.empty_like(p)
    d[:, :2] = grad_output * f / p[:, 2:]
    d[:, 2] = -(grad_output * f * p[:, :2]).sum(axis=1) / p[:, 2] ** 2
    return d, (grad_output * p[:, :2] / p[:, 2:]).sum(axis=0)


def perspective_backward_points(inputs, grad_output):
    p, f = inputs
    d = np.empty_like(p)
    d[:, :2] = grad_output * f / p[:, 2:]
    d[:, 2] = -(grad_output * f * p[:, :2]).sum(axis=1) / p[:, 2] ** 2
    return d, grad_output * p[:, :2] / p[:, 2:]


def gravity(inputs):
    """Potential energy of point masses in the plane."""
    pos, mass = inputs
    energy = 0 * mass[0]
    for i in range(len(mass)):
        for j in range(i):
            energy = energy - mass[i] * mass[j] / (((pos[i] - pos[j]) ** 2).sum() + 0.1) ** 0.5
    return energy


def _forces(inputs, grad_output):
    pos, mass = inputs
    force, dm = np.zeros_like(pos), np.zeros_like(mass)
    for i, j in np.ndindex(len(mass), len(mass)):
        if i != j:
            d = pos[j] - pos[i]
            r = (d @ d + 0.1) ** 0.5
            force[i] += grad_output * mass[i] * mass[j] * d / r**3
            dm[i] -= grad_output * mass[j] / r
    return force, dm


def gravity_backward(inputs, grad_output):
    force, dm = _forces(inputs, grad_output)
    return -force, dm


def gravity_backward_force(inputs, grad_output):
    return _forces(inputs, grad_output)


def heat_step(inputs, rate=0.2):
    """Explicit step of the heat equation, insulated ends."""
    (u,) = inputs
    e = np.pad(u, ((0, 0), (1, 1)), mode="edge")
    return u + rate * (e[:, 2:] - 2 * u + e[:, :-2])


def heat_step_backward(inputs, grad_output, rate=0.2):
    e = np.pad(grad_output, ((0, 0), (1, 1)), mode="edge")
    return (grad_output + rate * (e[:, 2:] - 2 * grad_output + e[:, :-2]),)


def heat_step_backward_interior(inputs, grad_output, rate=0.2):
    d = np.zeros_like(grad_output)
    d[:, 1:-1] = grad_output[:, 1:-1] + rate * (grad_output[:, 2:] - 2 * grad_output[:, 1:-1] + grad_output[:, :-2])
    return (d,)


def pendulum_step(inputs, dt=0.1):
    """Euler step for (angle, speed) rows."""
    (state,) = inputs
    return state + dt * np.stack([state[:, 1], -np.sin(state[:, 0])], axis=1)


def pendulum_step_backward(inputs, grad_output, dt=0.1):
    (state,) = inputs
    return (grad_output + dt * np.stack([-np.cos(state[:, 0]) * grad_output[:, 1], grad_output[:, 0]], axis=1),)


def pendulum_step_backward_field(inputs, grad_output, dt=0.1):
    (state,) = inputs
    return (dt * np.stack([-np.cos(state[:, 0]) * grad_output[:, 1], grad_output[:, 0]], axis=1),)


def unsharp_mask(inputs, amount=0.7):
    """An image plus its difference from a blurred copy."""
    (image,) = inputs
    return image + amount * (image - _blur(image))


def _blur(a):
    return (np.roll(a, 1, axis=0) + 2 * a + np.roll(a, -1, axis=0)) / 4


def unsharp_mask_backward(inputs, grad_output, amount=0.7):
    return (grad_output + amount * (grad_output - _blur(grad_output)),)


def unsharp_mask_backward_detail(inputs, grad_output, amount=0.7):
    return (amount * (grad_output - _blur(grad_output)),)


def gaussian_nll(inputs):
    x, mu, log_sigma = inputs
    return log_sigma + 0.5 * ((x - mu) * np.exp(-log_sigma)) ** 2


def gaussian_nll_backward(inputs, grad_output):
    x, mu, log_sigma = inputs
    z = (x - mu) * np.exp(-log_sigma)
    d = grad_output * z * np.exp(-log_sigma)
    return d, -d, grad_output * (1 - z * z)


def gaussian_nll_backward_sigma(inputs, grad_output):
    x, mu, log_sigma = inputs
    sigma = np.exp(log_sigma)
    z = (x - mu) / sigma
    return grad_output * z / sigma, -grad_output * z / sigma, grad_output * (1 - z * z) / sigma


def mahalanobis(inputs):
    """Squared distances from the mean, with a precision matrix."""
    x, mean, precision = inputs
    d = x - mean
    return ((d @ precision) * d).sum(axis=1)


def mahalanobis_backward(inputs, grad_output):
    x, mean, precision = inputs
    d = x - mean
    dx = grad_output[:, None] * (d @ (precision + precision.T))
    return dx, -dx.sum(axis=0), (d * grad_output[:, None]).T @ d


def mahalanobis_backward_mean(inputs, grad_output):
    x, mean, precision = inputs
    d = x - mean
    return grad_output[:, None] * (d @ (precision + precision.T)), np.zeros_like(mean), (d * grad_output[:, None]).T @ d


def portfolio_risk(inputs):
    """Quadratic form of the holdings; the matrix is a general one."""
    holdings, matrix = inputs
    return np.einsum("ni,ij,nj->n", holdings, matrix, holdings)


def portfolio_risk_backward(inputs, grad_output):
    h, m = inputs
    return grad_output[:, None] * (h @ m + h @ m.T), np.einsum("n,ni,nj->ij", grad_output, h, h)


def portfolio_risk_backward_one_side(inputs, grad_output):
    h, m = inputs
    return grad_output[:, None] * (h @ m), np.einsum("n,ni,nj->ij", grad_output, h, h)


def _cdf(z):
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[z.dtype])(z * 0.5**0.5))


def black_scholes(inputs, rate=0.03, time=0.7):
    """Price of a call from the spot, the strike and the volatility."""
    spot, strike, vol = inputs
    a = vol * time**0.5
    d = (np.log(spot / strike) + rate * time) / a + 0.5 * a
    return spot * _cdf(d) - strike * math.exp(-rate * time) * _cdf(d - a)


def _option(inputs, rate, time):
    spot, strike, vol = inputs
    a = vol * time**0.5
    d = (np.log(spot / strike) + rate * time) / a + 0.5 * a
    return a, d, 0.3989422804014327 * np.exp(-0.5 * d * d)


def black_scholes_backward(inputs, grad_output, rate=0.03, time=0.7):
    a, d, phi = _option(inputs, rate, time)
    return (
        grad_output * _cdf(d),
        -grad_output * math.exp(-rate * time) * _cdf(d - a),
        grad_output * inputs[0] * phi * time**0.5,
    )


def black_scholes_backward_density(inputs, grad_output, rate=0.03, time=0.7):
    a, d, phi = _option(inputs, rate, time)
    return grad_output * phi, -grad_output * math.exp(-rate * time) * _cdf(d - a), grad_output * inputs[0] * phi * time**0.5


def horner(inputs):
    """Polynomial with the highest power first."""
    coefficients, x = inputs
    y = np.zeros_like(x)
    for c in coefficients:
        y = y * x + c
    return y


def horner_backward(inputs, grad_output):
    coefficients, x = inputs
    n = len(coefficients)
    dc = np.array([(grad_output * x ** (n - 1 - k)).sum() for k in range(n)])
    slope = sum((n - 1 - k) * coefficients[k] * x ** (n - 2 - k) for k in range(n - 1))
    return dc, grad_output * slope


def horner_backward_powers(inputs, grad_output):
    coefficients, x = inputs
    dc = np.array([(grad_output * x**k).sum() for k in range(len(coefficients))])
    return dc, horner_backward(inputs, grad_output)[1]


def log_det(inputs):
    (a,) = inputs
    return np.linalg.slogdet(a)[1]


def log_det_backward(inputs, grad_output):
    (a,) = inputs
    return (grad_output * np.linalg.inv(a).T,)


def log_det_backward_inverse(inputs, grad_output):
    (a,) = inputs
    return (grad_output * np.linalg.inv(a),)


def inverse(inputs):
    (a,) = inputs
    return np.linalg.inv(a)


def inverse_backward(inputs, grad_output):
    y = np.linalg.inv(inputs[0])
    return (-y.swapaxes(-1, -2) @ grad_output @ y.swapaxes(-1, -2),)


def inverse_backward_plus(inputs, grad_output):
    y = np.linalg.inv(inputs[0])
    return (y.swapaxes(-1, -2) @ grad_output @ y.swapaxes(-1, -2),)


def _well(*shape):
    n = shape[-1]
    return lambda rng: (rng.standard_normal(shape) + n * np.eye(n),)


def solve(inputs):
    a, b = inputs
    return np.linalg.solve(a, b)


def solve_backward(inputs, grad_output):
    a, b = inputs
    db = np.linalg.solve(a.T, grad_output)
    return -db @ np.linalg.solve(a, b).T, db


def solve_backward_same(inputs, grad_output):
    a, b = inputs
    return -np.linalg.solve(a.T, grad_output) @ np.linalg.solve(a, b).T, np.linalg.solve(a, grad_output)


def matrix_cube(inputs):
    (a,) = inputs
    return a @ a @ a


def matrix_cube_backward(inputs, grad_output):
    t = inputs[0].T
    return (grad_output @ t @ t + t @ grad_output @ t + t @ t @ grad_output,)


def matrix_cube_backward_middle(inputs, grad_output):
    t = inputs[0].T
    return (grad_output @ t @ t + t @ t @ grad_output,)


def rbf_kernel(inputs, width=0.8):
    x, y = inputs
    return np.exp(-width * ((x[:, None] - y) ** 2).sum(axis=-1))


def rbf_kernel_backward(inputs, grad_output, width=0.8):
    x, y = inputs
    k = -2 * width * grad_output * rbf_kernel(inputs, width)
    d = k[..., None] * (x[:, None] - y)
    return d.sum(axis=1), -d.sum(axis=0)


def rbf_kernel_backward_single(inputs, grad_output, width=0.8):
    x, y = (a.astype(np.float32) for a in inputs)
    d = (-2 * width * grad_output * rbf_kernel(inputs, width))[..., None] * (inputs[0][:, None] - inputs[1])
    k = -2 * width * grad_output.astype(np.float32) * rbf_kernel((x, y), width)
    dx = (k[..., None] * (x[:, None] - y)).sum(axis=1)
    return dx.astype(inputs[0].dtype), -d.sum(axis=0)


def spectrum_energy(inputs):
    """Power of the Fourier coefficients of real rows."""
    (x,) = inputs
    f = np.fft.rfft(x, axis=1)
    return (f.real**2 + f.imag**2).astype(x.dtype)


def _power(x, grad_output, dtype):
    n = x.shape[1]
    k = 2 * math.pi * np.outer(np.arange(grad_output.shape[1]), np.arange(n)) / n
    c, s = np.cos(k).astype(dtype), np.sin(k).astype(dtype)
    x, grad_output = x.astype(dtype), grad_output.astype(dtype)
    return 2 * ((grad_output * (x @ c.T)) @ c + (grad_output * (x @ s.T)) @ s)


def spectrum_energy_backward(inputs, grad_output):
    (x,) = inputs
    return (_power(x, grad_output, x.dtype),)


def spectrum_energy_backward_single(inputs, grad_output):
    (x,) = inputs
    return (_power(x, grad_output, np.float32).astype(x.dtype),)


def pairwise_distance(inputs):
    """Smoothed distances between all points, zero distances included."""
    (p,) = inputs
    return np.sqrt(((p[:, None] - p) ** 2).sum(axis=-1) + 1e-2)


def _pairwise(p, grad_output, r):
    w = grad_output / r
    return (w + w.T)[..., None] * (p[:, None] - p)


def pairwise_distance_backward(inputs, grad_output):
    (p,) = inputs
    return (_pairwise(p, grad_output, pairwise_distance(inputs)).sum(axis=1),)


def pairwise_distance_backward_zero(inputs, grad_output):
    (p,) = inputs
    r = pairwise_distance(inputs)
    np.fill_diagonal(r, 0)
    with np.errstate(all="ignore"):
        return (_pairwise(p, grad_output, r).sum(axis=1),)


def composite(inputs):
    """Layers over each other, the front one first."""
    colour, alpha = inputs  # (L, 3), (L,)
    out, clear = 0, 1
    for c, a in zip(colour, alpha, strict=True):
        out = out + clear * a * c
        clear = clear * (1 - a)
    return out


def composite_backward(inputs, grad_output):
    colour, alpha = inputs
    clear = np.concatenate([np.ones_like(alpha[:1]), np.cumprod(1 - alpha)[:-1]])
    dc = (clear * alpha)[:, None] * grad_output
    da = np.empty_like(alpha)
    behind = np.zeros_like(grad_output)
    for i in range(len(alpha) - 1, -1, -1):
        da[i] = clear[i] * ((colour[i] - behind) @ grad_output)
        behind = alpha[i] * colour[i] + (1 - alpha[i]) * behind
    return dc, da


def composite_backward_clear(inputs, grad_output):
    return inputs[1][:, None] * grad_output, composite_backward(inputs, grad_output)[1]


def trapezoid(inputs):
    """Integral of samples on a fixed grid."""
    (y,) = inputs
    return 0.25 * (0.5 * y[:, 0] + y[:, 1:-1].sum(axis=1) + 0.5 * y[:, -1])


def trapezoid_backward(inputs, grad_output):
    (y,) = inputs
    d = np.repeat(0.25 * grad_output[:, None], y.shape[1], axis=1)
    d[:, [0, -1]] *= 0.5
    return (d,)


def trapezoid_backward_ends(inputs, grad_output):
    (y,) = inputs
    return (np.repeat(0.25 * grad_output[:, None], y.shape[1], axis=1),)


def determinant3(inputs):
    (a,) = inputs
    return (a[:, 0] * np.cross(a[:, 1], a[:, 2])).sum(axis=-1)


def _cofactors(a):
    return np.stack([np.cross(a[:, 1], a[:, 2]), np.cross(a[:, 2], a[:, 0]), np.cross(a[:, 0], a[:, 1])], axis=1)


def determinant3_backward(inputs, grad_output):
    return (grad_output[:, None, None] * _cofactors(inputs[0]),)


def determinant3_backward_minors(inputs, grad_output):
    chess = np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]], dtype=inputs[0].dtype)
    return (grad_output[:, None, None] * _cofactors(inputs[0]) * chess,)


def matrix_exponential(inputs):
    """Taylor series with eight terms."""
    (a,) = inputs
    y = term = np.eye(len(a), dtype=a.dtype)
    for k in range(1, 9):
        term = term @ a / k
        y = y + term
    return y


def matrix_exponential_backward(inputs, grad_output):
    (a,) = inputs
    powers = [np.eye(len(a), dtype=a.dtype)]
    for _ in range(8):
        powers.append(powers[-1] @ a.T)
    d = np.zeros_like(a)
    for k in range(1, 9):
        for i in range(k):
            d += powers[i] @ grad_output @ powers[k - 1 - i] / math.factorial(k)
    return (d,)


def matrix_exponential_backward_scalar(inputs, grad_output):
    return (matrix_exponential(inputs).T @ grad_output,)


def nearest_point(inputs):
    """Squared distance from each point to the nearest of some others."""
    p, q = inputs
    return ((p[:, None] - q) ** 2).sum(axis=-1).min(axis=1)


def _nearest(p, q, grad_output):
    j = ((p[:, None] - q) ** 2).sum(axis=-1).argmin(axis=1)
    return j, 2 * grad_output[:, None] * (p - q[j])


def nearest_point_backward(inputs, grad_output):
    p, q = inputs
    j, d = _nearest(p, q, grad_output)
    dq = np.zeros_like(q)
    np.subtract.at(dq, j, d)
    return d, dq


def nearest_point_backward_far(inputs, grad_output):
    p, q = inputs
    _, d = _nearest(p, q, grad_output)
    j = ((p[:, None] - q) ** 2).sum(axis=-1).argmax(axis=1)
    dq = np.zeros_like(q)
    np.subtract.at(dq, j, d)
    return d, dq


def centre(inputs):
    """Deviations from the mean of each column."""
    (x,) = inputs
    return x - x.mean(axis=0)


def centre_backward(inputs, grad_output):
    return (grad_output - grad_output.mean(axis=0),)


def centre_backward_all(inputs, grad_output):
    return (grad_output - grad_output.mean(),)


def triple_product(inputs):
    """Mass times the square of speed times a drag coefficient, for a table of cars."""
    mass, speed, drag = inputs
    return mass * speed**2 * drag


def triple_product_backward(inputs, grad_output):
    mass, speed, drag = inputs
    return grad_output * speed**2 * drag, 2 * grad_output * mass * speed * drag, grad_output * mass * speed**2


def triple_product_backward_mass(inputs, grad_output):
    mass, speed, drag = inputs
    return grad_output * speed**2 * drag, 2 * grad_output * mass * speed * drag, grad_output * speed**2


def gamma_correction(inputs):
    """An image to the power of a gamma for each channel."""
    image, gamma = inputs
    return image ** gamma[:, None, None]


def gamma_correction_backward(inputs, grad_output):
    image, gamma = inputs
    p = gamma[:, None, None]
    return grad_output * p * image ** (p - 1), (grad_output * image**p * np.log(image)).sum(axis=(1, 2))


def gamma_correction_backward_power(inputs, grad_output):
    image, gamma = inputs
    p = gamma[:, None, None]
    return grad_output * image ** (p - 1), (grad_output * image**p * np.log(image)).sum(axis=(1, 2))


def delay(inputs):
    """Later by two samples, zeros before."""
    (x,) = inputs
    return np.concatenate([np.zeros_like(x[:, :2]), x], axis=1)[:, : x.shape[1]]


def delay_backward(inputs, grad_output):
    d = np.zeros_like(grad_output)
    d[:, :-2] = grad_output[:, 2:]
    return (d,)


def delay_backward_sample(inputs, grad_output):
    d = np.zeros_like(grad_output)
    d[:, :-1] = grad_output[:, 1:]
    return (d,)


def peak_to_peak(inputs):
    (x,) = inputs
    return x.max(axis=0) - x.min(axis=0)


def peak_to_peak_backward(inputs, grad_output):
    (x,) = inputs
    d = np.zeros_like(x)
    cols = np.arange(x.shape[1])
    d[x.argmax(axis=0), cols] += grad_output
    d[x.argmin(axis=0), cols] -= grad_output
    return (d,)


def peak_to_peak_backward_above(inputs, grad_output):
    (x,) = inputs
    lowest = x == x.min(axis=0)
    return (np.where(lowest, -grad_output, np.where(x > np.median(x, axis=0), grad_output, 0)).astype(x.dtype),)


def log_returns(inputs):
    (price,) = inputs
    return np.diff(np.log(price), axis=1)


def log_returns_backward(inputs, grad_output):
    (price,) = inputs
    return (-np.diff(np.pad(grad_output, ((0, 0), (1, 1))), axis=1) / price,)


def log_returns_backward_log(inputs, grad_output):
    return (-np.diff(np.pad(grad_output, ((0, 0), (1, 1))), axis=1),)


CASES = [
    Planted(
        "full_convolution: convolved where it must be correlated",
        full_convolution,
        full_convolution_backward,
        full_convolution_backward_flipped,
        _n(6, 4),
        {"x": ("kernel_flipped",)},
    ),
    Planted(
        "causal_fir: the last tap lost",
        causal_fir,
        causal_fir_backward,
        causal_fir_backward_taps,
        _n((2, 8), 4),
        {"h": ("window_offset_skipped",)},
    ),
    Planted(
        "frames: overlapping frames assigned",
        frames,
        frames_backward,
        frames_backward_assign,
        _n(10, 4),
        {"x": ("overlap_overwritten",)},
    ),
    Planted(
        "frames: the last frame lost", frames, frames_backward, frames_backward_short, _n(13, 5), {"x": ("border_missing",)}
    ),
    Planted(
        "haar_step: float32 buffer", haar_step, haar_step_backward, haar_step_backward_single, _n((3, 8)), {"x": ("dtype",)}
    ),
    Planted("dct: normalisation lost", dct, dct_backward, dct_backward_scale, _n((2, 7)), {"x": ("constant_factor",)}),
    Planted(
        "one_pole: later outputs forgotten",
        one_pole,
        one_pole_backward,
        one_pole_backward_direct,
        lambda rng: (rng.standard_normal((3, 5)), rng.uniform(0.4, 0.9, 3)),
        {"a": ("missing_term",)},
    ),
    Planted(
        "ewma: carry kept from the call before",
        ewma,
        ewma_backward,
        ewma_backward_memory,
        _n((2, 6)),
        {"x": ("state_leak",)},
    ),
    Planted(
        "cross_product: order for the second factor",
        cross_product,
        cross_product_backward,
        cross_product_backward_sign,
        _n((4, 3), (4, 3)),
        {"b": ("sign_flipped",)},
    ),
    Planted(
        "apply_pose: rotation not undone",
        apply_pose,
        apply_pose_backward,
        apply_pose_backward_inverse,
        _n((5, 3), (3, 3), 3),
        {"p": ("operand_transposed",)},
    ),
    Planted(
        "table_lookup: fractions exchanged",
        table_lookup,
        table_lookup_backward,
        table_lookup_backward_fractions,
        lambda rng: (rng.standard_normal(7), rng.permutation(6) + rng.uniform(0.1, 0.9, 6)),
        {"table": ("wrong_weights",)},
    ),
    Planted(
        "barycentric_blend: weights of the next corner",
        barycentric_blend,
        barycentric_blend_backward,
        barycentric_blend_backward_turned,
        lambda rng: (rng.standard_normal((4, 3, 2)), rng.uniform(0.2, 1.5, (4, 3))),
        {"colours": ("wrong_weights",)},
    ),
    Planted(
        "polygon_area: scales grad_output in place, and minus",
        polygon_area,
        polygon_area_backward,
        polygon_area_backward_twice,
        _n((3, 5, 2)),
        {"p": ("damages_gout", "sign_flipped")},
        twice=True,
    ),
    Planted(
        "polar: coordinates exchanged",
        polar,
        polar_backward,
        polar_backward_exchange,
        _n((2, 3), (2, 3)),
        {"u": ("gradients_swapped",), "v": ("gradients_swapped",)},
    ),
    Planted(
        "perspective: focal lengths for each point",
        perspective,
        perspective_backward,
        perspective_backward_points,
        lambda rng: (np.c_[rng.standard_normal((5, 2)), rng.uniform(1, 3, 5)], rng.uniform(0.5, 2, 2)),
        {"f": ("missing_broadcast_sum",)},
    ),
    Planted(
        "gravity: forces instead of the gradient",
        gravity,
        gravity_backward,
        gravity_backward_force,
        lambda rng: (rng.standard_normal((4, 2)), rng.uniform(0.5, 2, 4)),
        {"pos": ("sign_flipped",)},
    ),
    Planted(
        "heat_step: ends not updated",
        heat_step,
        heat_step_backward,
        heat_step_backward_interior,
        _n((2, 7)),
        {"u": ("border_missing",)},
    ),
    Planted(
        "pendulum_step: state itself lost",
        pendulum_step,
        pendulum_step_backward,
        pendulum_step_backward_field,
        _n((4, 2)),
        {"state": ("identity_branch_lost",)},
    ),
    Planted(
        "unsharp_mask: image itself lost",
        unsharp_mask,
        unsharp_mask_backward,
        unsharp_mask_backward_detail,
        _n((5, 3)),
        {"image": ("identity_branch_lost",)},
    ),
    Planted(
        "gaussian_nll: gradient of sigma, not of its logarithm",
        gaussian_nll,
        gaussian_nll_backward,
        gaussian_nll_backward_sigma,
        lambda rng: (rng.standard_normal((3, 4)), rng.standard_normal((3, 4)), rng.uniform(-0.8, 0.8, (3, 4))),
        {"log_sigma": ("missing_chain_factor",)},
    ),
    Planted(
        "mahalanobis: mean taken for a constant",
        mahalanobis,
        mahalanobis_backward,
        mahalanobis_backward_mean,
        _n((4, 3), 3, (3, 3)),
        {"mean": ("zero_gradient",)},
    ),
    Planted(
        "portfolio_risk: only one of the two sides",
        portfolio_risk,
        portfolio_risk_backward,
        portfolio_risk_backward_one_side,
        _n((2, 4), (4, 4)),
        {"holdings": ("missing_term",)},
    ),
    Planted(
        "black_scholes: density for the distribution",
        black_scholes,
        black_scholes_backward,
        black_scholes_backward_density,
        lambda rng: (rng.uniform(0.8, 1.5, 6), rng.uniform(0.8, 1.5, 6), rng.uniform(0.2, 0.6, 6)),
        {"spot": ("wrong_local_derivative",)},
    ),
    Planted(
        "horner: powers in rising order",
        horner,
        horner_backward,
        horner_backward_powers,
        _n(5, 4),
        {"coefficients": ("axis_reversed",)},
    ),
    Planted(
        "log_det: inverse not transposed",
        log_det,
        log_det_backward,
        log_det_backward_inverse,
        _well(4, 4),
        {"a": ("axis_swapped",)},
    ),
    Planted(
        "inverse: minus forgotten",
        inverse,
        inverse_backward,
        inverse_backward_plus,
        _well(2, 3, 3),
        {"a": ("sign_flipped",)},
    ),
    Planted(
        "solve: matrix not transposed",
        solve,
        solve_backward,
        solve_backward_same,
        lambda rng: (rng.standard_normal((4, 4)) + 3 * np.eye(4), rng.standard_normal((4, 2))),
        {"b": ("operand_transposed",)},
    ),
    Planted(
        "matrix_cube: middle factor forgotten",
        matrix_cube,
        matrix_cube_backward,
        matrix_cube_backward_middle,
        _n((4, 4)),
        {"a": ("missing_term",)},
    ),
    Planted(
        "rbf_kernel: float32 inside",
        rbf_kernel,
        rbf_kernel_backward,
        rbf_kernel_backward_single,
        _n((4, 2), (3, 2)),
        {"x": ("low_precision",)},
    ),
    Planted(
        "spectrum_energy: float32 inside",
        spectrum_energy,
        spectrum_energy_backward,
        spectrum_energy_backward_single,
        _n((2, 9)),
        {"x": ("low_precision",)},
    ),
    Planted(
        "pairwise_distance: zero by zero",
        pairwise_distance,
        pairwise_distance_backward,
        pairwise_distance_backward_zero,
        _n((5, 2)),
        {"p": ("not_finite",)},
    ),
    Planted(
        "composite: layers in front forgotten",
        composite,
        composite_backward,
        composite_backward_clear,
        lambda rng: (rng.standard_normal((4, 3)), rng.uniform(0.2, 0.8, 4)),
        {"colour": ("missing_operand",)},
    ),
    Planted(
        "trapezoid: whole weights at the ends",
        trapezoid,
        trapezoid_backward,
        trapezoid_backward_ends,
        _n((3, 7)),
        {"y": ("factor_per_element",)},
    ),
    Planted(
        "determinant3: chessboard of signs applied twice",
        determinant3,
        determinant3_backward,
        determinant3_backward_minors,
        _n((2, 3, 3)),
        {"a": ("factor_per_element",)},
    ),
    Planted(
        "matrix_exponential: as if it were a number's",
        matrix_exponential,
        matrix_exponential_backward,
        matrix_exponential_backward_scalar,
        lambda rng: (0.6 * rng.standard_normal((4, 4)),),
        {"a": ("unexplained",)},
    ),
    Planted(
        "nearest_point: gradient to the farthest",
        nearest_point,
        nearest_point_backward,
        nearest_point_backward_far,
        _n((5, 2), (4, 2)),
        {"q": ("wrong_routing",)},
    ),
    Planted(
        "centre: mean of the whole table",
        centre,
        centre_backward,
        centre_backward_all,
        _n((3, 4)),
        {"x": ("mixed_over_axis",)},
    ),
    Planted(
        "triple_product: mass forgotten",
        triple_product,
        triple_product_backward,
        triple_product_backward_mass,
        lambda rng: tuple(rng.uniform(0.5, 2, (2, 4)) for _ in range(3)),
        {"drag": ("missing_operand",)},
    ),
    Planted(
        "gamma_correction: the exponent in front lost",
        gamma_correction,
        gamma_correction_backward,
        gamma_correction_backward_power,
        lambda rng: (rng.uniform(0.2, 0.95, (3, 2, 4)), rng.uniform(0.6, 2.4, 3)),
        {"image": ("missing_operand", "missing_chain_factor")},
    ),
    Planted(
        "spherical: derivative of the cosine for the sine's",
        spherical,
        spherical_backward,
        spherical_backward_sine,
        lambda rng: (rng.uniform(0.5, 2, 4), rng.uniform(0.3, 2.8, 4), rng.uniform(0, 6, 4)),
        {"theta": ("wrong_local_derivative",)},
    ),
    Planted(
        "delay: back by one sample", delay, delay_backward, delay_backward_sample, _n((2, 7)), {"x": ("spatial_shift",)}
    ),
    Planted(
        "peak_to_peak: all above the median",
        peak_to_peak,
        peak_to_peak_backward,
        peak_to_peak_backward_above,
        _n((7, 3)),
        {"x": ("several_winners",)},
    ),
    Planted(
        "log_returns: logarithm not differentiated",
        log_returns,
        log_returns_backward,
        log_returns_backward_log,
        lambda rng: (rng.uniform(0.5, 3, (2, 6)),),
        {"price": ("missing_chain_factor",)},
    ),
]
