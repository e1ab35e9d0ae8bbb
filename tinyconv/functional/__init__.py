"""Stateless maths on arrays, with the names and semantics of torch.nn.functional.

For every operation `op` there is `op_backward(grad_output, ...what op was given)` beside it, which
returns the gradients in the order of the inputs. Where backward would have to compute much again,
`op_saved` returns the output together with what `op_saved_backward` then takes.
"""

from tinyconv.functional.activation import (
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
)
from tinyconv.functional.conv import (
    conv2d,
    conv2d_backward,
    conv2d_bias,
    conv2d_input,
    conv2d_weight,
)
from tinyconv.functional.dropout import dropout, dropout_saved, dropout_saved_backward
from tinyconv.functional.linear import (
    linear,
    linear_backward,
    linear_bias,
    linear_input,
    linear_weight,
)
from tinyconv.functional.loss import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_saved,
    cross_entropy_saved_backward,
    mse_loss,
    mse_loss_backward,
)
from tinyconv.functional.norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_saved,
    batch_norm_saved_backward,
)
from tinyconv.functional.pool import (
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_saved,
    max_pool2d_saved_backward,
)
from tinyconv.functional.shape import flatten, flatten_backward
from tinyconv.functional.unfold import fold, fold_backward, unfold, unfold_backward

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_saved",
    "batch_norm_saved_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_saved",
    "cross_entropy_saved_backward",
    "dropout",
    "dropout_saved",
    "dropout_saved_backward",
    "flatten",
    "flatten_backward",
    "fold",
    "fold_backward",
    "linear",
    "linear_backward",
    "linear_bias",
    "linear_input",
    "linear_weight",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_saved",
    "max_pool2d_saved_backward",
    "mse_loss",
    "mse_loss_backward",
    "relu",
    "relu_backward",
    "unfold",
    "unfold_backward",
]
