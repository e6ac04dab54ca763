"""The hot loops on the GPU: the names and signatures of :mod:`minires.kernels.cpu`, each where it is fast.

What has CUDA code of its own falls back to :mod:`minires.kernels.cuda.plain` for complex numbers and integers.
"""

from minires.kernels.cuda.blas import matmul as matmul
from minires.kernels.cuda.conv import conv2d as conv2d
from minires.kernels.cuda.conv import conv2d_weight as conv2d_weight
from minires.kernels.cuda.conv import conv_transpose2d as conv_transpose2d
from minires.kernels.cuda.crop import draw_batch as draw_batch
from minires.kernels.cuda.elements import add as add
from minires.kernels.cuda.elements import put_add as put_add
from minires.kernels.cuda.elements import put_last as put_last
from minires.kernels.cuda.gate import gated_residual as gated_residual
from minires.kernels.cuda.gate import gated_residual_backward as gated_residual_backward
from minires.kernels.cuda.loss import cross_entropy as cross_entropy
from minires.kernels.cuda.loss import cross_entropy_backward as cross_entropy_backward
from minires.kernels.cuda.norm import batch_norm as batch_norm
from minires.kernels.cuda.norm import batch_norm_backward as batch_norm_backward
from minires.kernels.cuda.norm import batch_statistics as batch_statistics
from minires.kernels.cuda.optim import clip_by_norm as clip_by_norm
from minires.kernels.cuda.optim import for_blocks as for_blocks
from minires.kernels.cuda.optim import fused_update as fused_update
from minires.kernels.cuda.optim import gradient_norm as gradient_norm
from minires.kernels.cuda.pool import max_pool as max_pool
from minires.kernels.cuda.pool import max_pool_gather as max_pool_gather
from minires.kernels.cuda.pool import max_pool_scatter as max_pool_scatter
from minires.kernels.cuda.resize import pick as pick
from minires.kernels.cuda.resize import resample as resample
from minires.kernels.cuda.tally import tally as tally
