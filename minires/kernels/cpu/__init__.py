"""The hot loops in blocked NumPy: channels-last memory, and work small enough to stay in the cache."""

from minires.kernels.cpu.blas import matmul as matmul
from minires.kernels.cpu.conv import conv2d as conv2d
from minires.kernels.cpu.conv import conv2d_weight as conv2d_weight
from minires.kernels.cpu.conv import conv_transpose2d as conv_transpose2d
from minires.kernels.cpu.crop import draw_batch as draw_batch
from minires.kernels.cpu.elements import add as add
from minires.kernels.cpu.elements import put_add as put_add
from minires.kernels.cpu.elements import put_last as put_last
from minires.kernels.cpu.gate import gated_residual as gated_residual
from minires.kernels.cpu.gate import gated_residual_backward as gated_residual_backward
from minires.kernels.cpu.loss import cross_entropy as cross_entropy
from minires.kernels.cpu.loss import cross_entropy_backward as cross_entropy_backward
from minires.kernels.cpu.norm import batch_norm as batch_norm
from minires.kernels.cpu.norm import batch_norm_backward as batch_norm_backward
from minires.kernels.cpu.norm import batch_statistics as batch_statistics
from minires.kernels.cpu.optim import clip_by_norm as clip_by_norm
from minires.kernels.cpu.optim import for_blocks as for_blocks
from minires.kernels.cpu.optim import fused_update as fused_update
from minires.kernels.cpu.optim import gradient_norm as gradient_norm
from minires.kernels.cpu.pool import max_pool as max_pool
from minires.kernels.cpu.pool import max_pool_gather as max_pool_gather
from minires.kernels.cpu.pool import max_pool_scatter as max_pool_scatter
from minires.kernels.cpu.resize import pick as pick
from minires.kernels.cpu.resize import resample as resample
from minires.kernels.cpu.tally import tally as tally
