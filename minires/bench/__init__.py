"""How fast a training step is, beside PyTorch's, and how near each kernel comes to what the machine can do.

``minires bench`` is the front door (:mod:`minires.bench.command`). A comparison is only worth something if both sides do
the same work: so both start from the same weights, compute with the same precision, and their losses are compared before
anything is timed; they take turns; the spread is shown beside the median; and what could not be measured is said.
"""
