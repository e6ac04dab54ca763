"""minires: read it in an evening, verify every gradient yourself, train the real paper's network with it.

``import minires as mr`` offers Tensors and the engine; the ops are in ``mr.functional``, layers in ``mr.nn``, the paper's
networks in ``mr.models``, and so on. Names, arguments and defaults are PyTorch's wherever PyTorch has the thing.
"""

from minires import functional as functional
from minires.autograd import *  # noqa: F403
from minires.creation import *  # noqa: F403
from minires.random import manual_seed as manual_seed
from minires.tensor import *  # noqa: F403

__version__ = "0.1.0"
