"""Stateless maths on arrays, with the names and semantics of torch.nn.functional.

For every operation `op` there is `op_backward(grad_output, ...what op was given)` beside it, which
returns the gradients in the order of the inputs. It takes the input of `op`, not its output. Where
backward would have to compute much again, `op_saved` returns the output together with what
`op_saved_backward` then takes.

The functions of the second order have names as well: `op_jvp` is the tangent of `op`, and
`op_backward_jvp(grad_output_dot, tangents of the inputs, grad_output, inputs, ...)` the tangent of
`op_backward`. They are left out where another function of this module computes the same: a linear map is its
own tangent, and so is its backward; a function with a symmetric Jacobian (an elementwise one, softmax) has
its backward as its tangent.
"""

from tinyconv.functional.activation import *
from tinyconv.functional.conv.conv1d import *
from tinyconv.functional.conv.conv2d import *
from tinyconv.functional.conv.conv_transpose2d import *
from tinyconv.functional.conv.unfold import *
from tinyconv.functional.dropout import *
from tinyconv.functional.gelu import *
from tinyconv.functional.hard import *
from tinyconv.functional.interpolate import *
from tinyconv.functional.linear import *
from tinyconv.functional.losses.binary_cross_entropy import *
from tinyconv.functional.losses.cross_entropy import *
from tinyconv.functional.losses.elementwise import *
from tinyconv.functional.losses.margin import *
from tinyconv.functional.normalization.batch_norm import *
from tinyconv.functional.normalization.group_norm import *
from tinyconv.functional.normalization.instance_norm import *
from tinyconv.functional.normalization.layer_norm import *
from tinyconv.functional.normalization.normalize import *
from tinyconv.functional.one_row import *
from tinyconv.functional.pad import *
from tinyconv.functional.pixel_shuffle import *
from tinyconv.functional.pooling.adaptive_max_pool import *
from tinyconv.functional.pooling.avg_pool import *
from tinyconv.functional.pooling.max_pool import *
from tinyconv.functional.pooling.max_unpool import *
from tinyconv.functional.prelu import *
from tinyconv.functional.shape import *
from tinyconv.functional.softmax import *
