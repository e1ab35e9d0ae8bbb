"""The operators that there are test vectors of: layers, and losses with a prediction and a target."""

import inspect
from typing import Any, NamedTuple

import tinyconv.layers as layers
from tinyconv.signature import constructor

__all__ = ["OPERATORS", "Operator", "signature"]


class Operator(NamedTuple):
    """A layer or loss, the form of its input in options and attributes, and the default of the option size.

    The layer has the name and the arguments of PyTorch's. A loss also has what its targets are: "values",
    "probabilities" or "classes" (indices).

    >>> operator = OPERATORS["cross_entropy"]
    >>> operator.layer.__name__, operator.form, operator.target
    ('CrossEntropyLoss', 'batch classes size', 'classes')
    """

    layer: type[Any]
    form: str
    size: tuple[int, ...] = ()
    target: str = ""


OPERATORS = {
    "conv1d": Operator(layers.Conv1d, "batch in_channels size", (32,)),
    "conv2d": Operator(layers.Conv2d, "batch in_channels size", (32, 32)),
    "conv_transpose2d": Operator(layers.ConvTranspose2d, "batch in_channels size", (32, 32)),
    "unfold": Operator(layers.Unfold, "batch channels size", (32, 32)),
    "fold": Operator(layers.Fold, "batch channels output_size"),  # of the images; the input is their columns
    "max_pool2d": Operator(layers.MaxPool2d, "batch channels size", (32, 32)),
    "avg_pool2d": Operator(layers.AvgPool2d, "batch channels size", (32, 32)),
    "adaptive_avg_pool2d": Operator(layers.AdaptiveAvgPool2d, "batch channels size", (32, 32)),
    "linear": Operator(layers.Linear, "batch size in_features"),
    "batch_norm1d": Operator(layers.BatchNorm1d, "batch num_features size", (32,)),
    "batch_norm2d": Operator(layers.BatchNorm2d, "batch num_features size", (32, 32)),
    "layer_norm": Operator(layers.LayerNorm, "batch size normalized_shape"),
    "group_norm": Operator(layers.GroupNorm, "batch num_channels size", (32, 32)),
    "relu": Operator(layers.ReLU, "batch size", (3, 32, 32)),
    "leaky_relu": Operator(layers.LeakyReLU, "batch size", (3, 32, 32)),
    "elu": Operator(layers.ELU, "batch size", (3, 32, 32)),
    "gelu": Operator(layers.GELU, "batch size", (3, 32, 32)),
    "silu": Operator(layers.SiLU, "batch size", (3, 32, 32)),
    "sigmoid": Operator(layers.Sigmoid, "batch size", (3, 32, 32)),
    "tanh": Operator(layers.Tanh, "batch size", (3, 32, 32)),
    "softplus": Operator(layers.Softplus, "batch size", (3, 32, 32)),
    "softmax": Operator(layers.Softmax, "batch size", (10,)),
    "log_softmax": Operator(layers.LogSoftmax, "batch size", (10,)),
    "mse_loss": Operator(layers.MSELoss, "batch size", (10,), "values"),
    "l1_loss": Operator(layers.L1Loss, "batch size", (10,), "values"),
    "smooth_l1_loss": Operator(layers.SmoothL1Loss, "batch size", (10,), "values"),
    "cross_entropy": Operator(layers.CrossEntropyLoss, "batch classes size", (), "classes"),
    "nll_loss": Operator(layers.NLLLoss, "batch classes size", (), "classes"),
    "binary_cross_entropy": Operator(layers.BCELoss, "batch size", (10,), "probabilities"),
    "binary_cross_entropy_with_logits": Operator(
        layers.BCEWithLogitsLoss, "batch size", (10,), "probabilities"
    ),
}

# Arguments of layers that change no tensor of a case, or the number of outputs.
NOT_ATTRIBUTES = ("algorithm", "inplace", "return_indices")
# Arguments of losses that are arrays; as attributes they say whether there is one, which is then drawn.
FACTORS = ("weight", "pos_weight")


def as_arguments(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes in a JSON file as arguments of a layer: its lists are tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}


def signature(operator: str) -> inspect.Signature:
    """The operator's attributes and their defaults: arguments of its layer's constructor.

    `weight` and `pos_weight` of a loss are True or False here: whether there are such factors.

    >>> str(signature("linear"))
    '(in_features: int, out_features: int, bias: bool = True)'
    """
    made = OPERATORS[operator]
    parameters = [p for name, p in constructor(made.layer).items() if name not in NOT_ATTRIBUTES]
    if made.target:
        parameters = [p.replace(default=False) if p.name in FACTORS else p for p in parameters]
    return inspect.Signature(parameters)
