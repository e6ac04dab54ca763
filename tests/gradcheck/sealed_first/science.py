"""First sealed exam: formulas from physics and numerics."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def trapezoid(inputs, step=0.5):
    """Integral of equally spaced values by the trapezoid rule, one per row."""
    (f,) = inputs
    return step * (f[:, 1:] + f[:, :-1]).sum(1) / 2


def trapezoid_backward(inputs, grad_output, step=0.5):
    (f,) = inputs
    weights = np.full(f.shape[1], step, f.dtype)
    weights[[0, -1]] /= 2
    return (grad_output[:, None] * weights,)


def trapezoid_backward_ends_in_full(inputs, grad_output, step=0.5):
    (f,) = inputs
    return (grad_output[:, None] * np.full(f.shape[1], step, f.dtype),)


def trapezoid_inputs(rng):
    return (rng.normal(size=(3, 7)),)


def repulsion(inputs):
    """Energy of point charges: charge times charge over distance, each pair once."""
    place, charge = inputs
    energy = place.dtype.type(0)
    for i in range(len(charge)):
        for j in range(i):
            energy = energy + charge[i] * charge[j] / np.sqrt(((place[i] - place[j]) ** 2).sum())
    return energy


def _repulsion_grads(inputs, g, reaction):
    place, charge = inputs
    dplace, dcharge = np.zeros_like(place), np.zeros_like(charge)
    for i in range(len(charge)):
        for j in range(i):
            arrow = place[i] - place[j]
            r = np.sqrt((arrow**2).sum())
            force = g * charge[i] * charge[j] * arrow / r**3
            dplace[i] -= force
            if reaction:
                dplace[j] += force
            dcharge[i] += g * charge[j] / r
            dcharge[j] += g * charge[i] / r
    return dplace, dcharge


def repulsion_backward(inputs, grad_output):
    return _repulsion_grads(inputs, grad_output, True)


def repulsion_backward_without_reaction(inputs, grad_output):
    return _repulsion_grads(inputs, grad_output, False)


def repulsion_inputs(rng):
    return rng.normal(size=(4, 3)) + np.arange(4)[:, None], rng.uniform(0.5, 2, 4)


def heat_step(inputs, rate=0.2):
    """One explicit step of the heat equation on a ring of rods: u + rate * (left + right - 2 u)."""
    (u,) = inputs
    return u + rate * (np.roll(u, 1, 1) + np.roll(u, -1, 1) - 2 * u)


def heat_step_backward(inputs, grad_output, rate=0.2):
    g = grad_output
    return (g + rate * (np.roll(g, 1, 1) + np.roll(g, -1, 1) - 2 * g),)


def heat_step_backward_laplacian_only(inputs, grad_output, rate=0.2):
    g = grad_output
    return (rate * (np.roll(g, 1, 1) + np.roll(g, -1, 1) - 2 * g),)


def heat_step_inputs(rng):
    return (rng.normal(size=(2, 6)),)


def polar(inputs):
    """From radius and angle to x and y."""
    radius, angle = inputs
    return radius * np.cos(angle), radius * np.sin(angle)


def polar_backward(inputs, grad_output):
    radius, angle = inputs
    gx, gy = grad_output
    return gx * np.cos(angle) + gy * np.sin(angle), radius * (gy * np.cos(angle) - gx * np.sin(angle))


def polar_backward_angle_without_radius(inputs, grad_output):
    _radius, angle = inputs
    gx, gy = grad_output
    return gx * np.cos(angle) + gy * np.sin(angle), gy * np.cos(angle) - gx * np.sin(angle)


def polar_inputs(rng):
    return rng.uniform(0.4, 2, 5), rng.uniform(0, 6, 5)


def advect(inputs, speed=2):
    """Carry a periodic profile along by whole cells and damp it."""
    profile, damping = inputs
    return np.roll(profile, speed, axis=1) * np.exp(-damping)


def advect_backward(inputs, grad_output, speed=2):
    profile, damping = inputs
    e = np.exp(-damping)
    return np.roll(grad_output * e, -speed, axis=1), -grad_output * np.roll(profile, speed, axis=1) * e


def advect_backward_same_direction(inputs, grad_output, speed=2):
    profile, damping = inputs
    e = np.exp(-damping)
    return np.roll(grad_output * e, speed, axis=1), -grad_output * np.roll(profile, speed, axis=1) * e


def advect_inputs(rng):
    return rng.normal(size=(2, 9)), rng.uniform(0.1, 1, (2, 9))


CASES = [
    Planted("trapezoid rule: the ends count in full", trapezoid, trapezoid_backward, trapezoid_backward_ends_in_full,
            trapezoid_inputs, {"f": ("factor_per_element",)}),
    Planted("repulsion: no reaction, only the first of a pair gets the force", repulsion, repulsion_backward,
            repulsion_backward_without_reaction, repulsion_inputs, {"place": ("missing_term",)}),
    Planted("heat step: the Laplacian without the old temperature", heat_step, heat_step_backward,
            heat_step_backward_laplacian_only, heat_step_inputs, {"u": ("identity_branch_lost",)}),
    Planted("polar: the angle's gradient lacks the radius", polar, polar_backward, polar_backward_angle_without_radius,
            polar_inputs, {"angle": ("missing_operand",)}),
    Planted("advection: rolled in the same direction in the backward", advect, advect_backward,
            advect_backward_same_direction, advect_inputs, {"profile": ("spatial_shift",)}),
]
