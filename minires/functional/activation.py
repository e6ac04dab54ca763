"""Nonlinearities, element by element, and softmax along an axis."""
