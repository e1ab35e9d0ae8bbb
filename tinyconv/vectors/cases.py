"""The cases of the conformance suite, and the flags that name the mistakes that they catch.

A case gets a flag where a kernel with that mistake gives other values. Whoever changes a case, or what is
drawn for it, counts `VERSION` up.
"""

from typing import Any, NamedTuple

VERSION = 1

FLAGS = {
    "Attribute": "A number of the formula (a slope, alpha, beta) is not the default.",
    "BatchSum": "Gradients of parameters are sums over the batch, not means or those of one entry.",
    "CeilMode": "Windows that end outside count if they begin in the image or the padding before it.",
    "ChannelOrder": "Input and output channels differ in number: weights are stored as PyTorch's are.",
    "ClassWeights": "Each loss has a weight; a mean over classes divides by the sum of the weights.",
    "CountIncludePad": "Whether zeros of the padding count in a mean: never those that ceil_mode adds.",
    "CumulativeAverage": "momentum is None: running statistics are plain averages over all batches so far.",
    "Dilation": "Taps of the kernel are more than one pixel apart.",
    "DivisorOverride": "The sum of a window is divided by a given number.",
    "Eps": "eps is large, so that it matters that it is added to the variance, below the root.",
    "Groups": "Channels are convolved or normalised in groups.",
    "HugeValues": "Values are 1000 and differ little: the largest is subtracted before exp.",
    "IgnoreIndex": "Ignored targets count neither in the sum nor in the divisor of the mean.",
    "KernelRotation": "The kernel is not symmetric: rotating it by 180 degrees gives other values.",
    "Kink": "Values lie on both sides of the point where a formula changes to another one.",
    "LabelSmoothing": "A part of each target is spread over all classes.",
    "LargeMean": "The mean is 1000 standard deviations: E[x^2] - E[x]^2 cancels; two passes are exact.",
    "LeadingDimensions": "There are more dimensions than the usual number.",
    "NegativeInput": "All values are negative: the padding of a maximum is minus infinity, not 0.",
    "NoBias": "There is no bias, or there are no scale and shift.",
    "OddStride": "The stride leaves rows or columns at the end unread: their gradient is there, and 0.",
    "OutputPadding": "The output has rows and columns at one side that few or no taps reach.",
    "Overlap": "Windows overlap: the gradient of a pixel is a sum over all windows that read it.",
    "Padding": "There are zeros around the image: one more or fewer shifts everything by a pixel.",
    "PaddingLarge": "The padding is as wide as the kernel or wider: some outputs see padding alone.",
    "PaddingMode": "The padding mirrors the image; its gradient goes back to the pixels that it copies.",
    "PaddingSame": 'padding is "same" and the kernel even: one zero more at the end than at the beginning.',
    "PointwiseKernel": "The kernel has one tap, for which kernels often have a special path.",
    "PosWeight": "Positive targets have a weight of their own, one for each class.",
    "RectangularKernel": "Height and width differ in kernel, stride, padding and image.",
    "Reduction": "Losses are summed, or not reduced at all, instead of the mean.",
    "RunningStatistics": "Running statistics move by momentum; the running variance is divided by n - 1.",
    "Saturation": "Values are so large that exp overflows, or that a function is constant in its dtype.",
    "SoftTargets": "Targets are probabilities, not only 0 and 1.",
    "Stride": "Windows are more than one pixel apart; gradients spread over the pixels in between.",
    "SummedAxes": "Sums are over certain axes only: batch, channels and pixels differ in length.",
    "Ties": "Several values of a window are the largest: the gradient goes to the first of them alone.",
    "UnevenWindows": "The output's size does not divide the input's: windows differ in size and overlap.",
    "ZeroInput": "Some values are exactly 0, or equal to the target, where the derivative is a convention.",
}


class SuiteCase(NamedTuple):
    """What `make_case` is given, and the names of the flags, with spaces between."""

    operator: str
    name: str
    attributes: dict[str, Any]
    input_shape: tuple[int, ...]
    flags: str
    values: str = "normal"


def _channels(inputs: int, outputs: int, kernel_size: Any, **others: Any) -> dict[str, Any]:
    return {"in_channels": inputs, "out_channels": outputs, "kernel_size": kernel_size, **others}


_LINEAR = "KernelRotation ChannelOrder BatchSum"
_CONVOLUTIONS = [
    SuiteCase("conv1d", "plain", _channels(3, 4, 3), (2, 3, 9), _LINEAR),
    SuiteCase("conv1d", "stride", _channels(2, 3, 3, stride=2), (2, 2, 10), f"{_LINEAR} Stride OddStride"),
    SuiteCase("conv1d", "padding", _channels(2, 3, 3, padding=4), (2, 2, 7), f"{_LINEAR} PaddingLarge"),
    SuiteCase(
        "conv1d", "dilation", _channels(2, 3, 3, dilation=2, padding=1), (2, 2, 11), f"{_LINEAR} Dilation"
    ),
    SuiteCase("conv1d", "groups", _channels(4, 6, 3, groups=2), (2, 4, 8), "KernelRotation BatchSum Groups"),
    SuiteCase("conv1d", "same", _channels(2, 3, 4, padding="same"), (2, 2, 8), f"{_LINEAR} PaddingSame"),
    SuiteCase("conv2d", "plain", _channels(3, 4, 3), (2, 3, 7, 7), _LINEAR),
    SuiteCase(
        "conv2d", "pointwise", _channels(3, 4, 1), (2, 3, 5, 5), "ChannelOrder BatchSum PointwiseKernel"
    ),
    SuiteCase(
        "conv2d",
        "rectangular",
        _channels(3, 2, (2, 4), stride=(1, 2), padding=(2, 1)),
        (2, 3, 6, 9),
        f"{_LINEAR} RectangularKernel Padding Stride",
    ),
    SuiteCase("conv2d", "stride", _channels(3, 4, 3, stride=2), (2, 3, 8, 10), f"{_LINEAR} Stride OddStride"),
    SuiteCase(
        "conv2d", "padding_large", _channels(2, 3, 3, padding=4), (2, 2, 5, 5), f"{_LINEAR} PaddingLarge"
    ),
    SuiteCase(
        "conv2d",
        "dilation",
        _channels(2, 3, 3, dilation=(2, 1), padding=1),
        (2, 2, 8, 7),
        f"{_LINEAR} Dilation Padding",
    ),
    SuiteCase(
        "conv2d",
        "groups",
        _channels(4, 6, 3, groups=2, stride=2, padding=1, bias=False),
        (2, 4, 7, 8),
        "KernelRotation BatchSum Groups NoBias Padding Stride",
    ),
    SuiteCase(
        "conv2d",
        "reflect",
        _channels(2, 3, 3, padding=2, padding_mode="reflect"),
        (2, 2, 6, 5),
        f"{_LINEAR} PaddingMode",
    ),
    SuiteCase("conv_transpose2d", "plain", _channels(3, 4, 3), (2, 3, 5, 4), f"{_LINEAR} Overlap"),
    SuiteCase(
        "conv_transpose2d",
        "stride",
        _channels(2, 3, (3, 2), stride=(2, 3), padding=(1, 0)),
        (2, 2, 5, 4),
        f"{_LINEAR} Stride RectangularKernel Padding",
    ),
    SuiteCase(
        "conv_transpose2d",
        "output_padding",
        _channels(2, 3, 3, stride=2, padding=1, output_padding=1),
        (2, 2, 4, 4),
        f"{_LINEAR} Stride Padding OutputPadding",
    ),
    SuiteCase(
        "conv_transpose2d",
        "groups",
        _channels(4, 6, 3, groups=2, bias=False),
        (2, 4, 4, 5),
        "KernelRotation BatchSum Groups NoBias",
    ),
    SuiteCase(
        "conv_transpose2d", "dilation", _channels(2, 3, 3, dilation=2), (2, 2, 4, 4), f"{_LINEAR} Dilation"
    ),
    SuiteCase("unfold", "plain", {"kernel_size": 3}, (2, 2, 5, 6), "Overlap ChannelOrder"),
    SuiteCase(
        "unfold",
        "stride",
        {"kernel_size": (3, 2), "stride": (2, 3)},
        (2, 3, 8, 9),
        "RectangularKernel Stride OddStride",
    ),
    SuiteCase(
        "unfold", "padding", {"kernel_size": 2, "padding": 1, "dilation": 2}, (2, 2, 5, 5), "Padding Dilation"
    ),
    SuiteCase(
        "fold", "plain", {"output_size": (5, 6), "kernel_size": 3}, (2, 18, 12), "Overlap ChannelOrder"
    ),
    SuiteCase(
        "fold",
        "stride",
        {"output_size": (8, 9), "kernel_size": (3, 2), "stride": (2, 3)},
        (2, 18, 9),
        "RectangularKernel Stride OddStride",
    ),
    SuiteCase(
        "fold",
        "padding",
        {"output_size": (5, 5), "kernel_size": 2, "padding": 1, "dilation": 2},
        (2, 8, 25),
        "Padding Dilation",
    ),
    SuiteCase("linear", "plain", {"in_features": 7, "out_features": 5}, (4, 7), "ChannelOrder BatchSum"),
    SuiteCase(
        "linear", "no_bias", {"in_features": 6, "out_features": 6, "bias": False}, (3, 6), "BatchSum NoBias"
    ),
    SuiteCase(
        "linear", "dimensions", {"in_features": 5, "out_features": 3}, (2, 3, 5), "BatchSum LeadingDimensions"
    ),
]

_POOLS = [
    SuiteCase("max_pool2d", "plain", {"kernel_size": 2}, (2, 3, 6, 8), ""),
    SuiteCase(
        "max_pool2d", "overlap", {"kernel_size": 3, "stride": 2}, (2, 2, 8, 10), "Overlap OddStride Stride"
    ),
    SuiteCase("max_pool2d", "ties", {"kernel_size": 3, "stride": 1}, (2, 2, 7, 7), "Ties Overlap", "rounded"),
    SuiteCase(
        "max_pool2d",
        "padding",
        {"kernel_size": 3, "padding": 1},
        (2, 2, 7, 7),
        "Padding NegativeInput",
        "negative",
    ),
    SuiteCase(
        "max_pool2d",
        "ceil_mode",
        {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True},
        (2, 2, 8, 7),
        "CeilMode Overlap",
    ),
    SuiteCase(
        "max_pool2d",
        "dilation",
        {"kernel_size": (2, 3), "stride": 1, "dilation": (3, 2)},
        (2, 2, 8, 9),
        "Dilation RectangularKernel",
    ),
    SuiteCase("avg_pool2d", "plain", {"kernel_size": 2}, (2, 3, 6, 8), ""),
    SuiteCase(
        "avg_pool2d",
        "overlap",
        {"kernel_size": (3, 2), "stride": (2, 1)},
        (2, 2, 8, 6),
        "Overlap OddStride RectangularKernel",
    ),
    SuiteCase(
        "avg_pool2d",
        "count_padding",
        {"kernel_size": 3, "padding": 1},
        (2, 2, 7, 7),
        "Padding CountIncludePad",
    ),
    SuiteCase(
        "avg_pool2d",
        "count_pixels",
        {"kernel_size": 3, "padding": 1, "count_include_pad": False},
        (2, 2, 7, 7),
        "Padding CountIncludePad",
    ),
    SuiteCase(
        "avg_pool2d",
        "ceil_mode",
        {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True},
        (2, 2, 8, 7),
        "CeilMode CountIncludePad Overlap",
    ),
    SuiteCase(
        "avg_pool2d",
        "divisor",
        {"kernel_size": 3, "stride": 2, "divisor_override": 5},
        (2, 2, 7, 7),
        "DivisorOverride",
    ),
    SuiteCase("adaptive_avg_pool2d", "even", {"output_size": 3}, (2, 2, 6, 9), "RectangularKernel"),
    SuiteCase(
        "adaptive_avg_pool2d", "uneven", {"output_size": (3, 5)}, (2, 2, 7, 8), "UnevenWindows Overlap"
    ),
    SuiteCase("adaptive_avg_pool2d", "global", {"output_size": 1}, (2, 3, 5, 4), ""),
    SuiteCase(
        "adaptive_avg_pool2d", "larger", {"output_size": (7, None)}, (2, 2, 4, 5), "UnevenWindows Overlap"
    ),
]

_NORM = "BatchSum SummedAxes"
_NORMALIZATIONS = [
    SuiteCase("batch_norm1d", "features", {"num_features": 5}, (8, 5), f"{_NORM} RunningStatistics"),
    SuiteCase("batch_norm1d", "signals", {"num_features": 3}, (4, 3, 6), f"{_NORM} RunningStatistics"),
    SuiteCase(
        "batch_norm1d",
        "eps",
        {"num_features": 4, "eps": 0.5, "momentum": 0.3},
        (6, 4),
        f"{_NORM} Eps RunningStatistics",
    ),
    SuiteCase("batch_norm1d", "large_mean", {"num_features": 3}, (8, 3, 4), f"{_NORM} LargeMean", "offset"),
    SuiteCase("batch_norm2d", "plain", {"num_features": 3}, (2, 3, 4, 5), f"{_NORM} RunningStatistics"),
    SuiteCase(
        "batch_norm2d",
        "momentum_none",
        {"num_features": 3, "momentum": None},
        (2, 3, 4, 4),
        f"{_NORM} CumulativeAverage",
    ),
    SuiteCase(
        "batch_norm2d",
        "eps",
        {"num_features": 2, "eps": 0.5, "momentum": 0.3},
        (3, 2, 4, 3),
        f"{_NORM} Eps RunningStatistics",
    ),
    SuiteCase(
        "batch_norm2d",
        "no_affine",
        {"num_features": 3, "affine": False},
        (2, 3, 4, 4),
        "SummedAxes NoBias RunningStatistics",
    ),
    SuiteCase(
        "batch_norm2d", "large_mean", {"num_features": 3}, (2, 3, 4, 4), f"{_NORM} LargeMean", "offset"
    ),
    SuiteCase("layer_norm", "plain", {"normalized_shape": (8,)}, (4, 8), _NORM),
    SuiteCase(
        "layer_norm", "dimensions", {"normalized_shape": (4, 5)}, (2, 3, 4, 5), f"{_NORM} LeadingDimensions"
    ),
    SuiteCase("layer_norm", "eps", {"normalized_shape": (8,), "eps": 0.5}, (4, 8), f"{_NORM} Eps"),
    SuiteCase(
        "layer_norm",
        "no_affine",
        {"normalized_shape": (6,), "elementwise_affine": False},
        (3, 6),
        "SummedAxes NoBias",
    ),
    SuiteCase(
        "layer_norm", "large_mean", {"normalized_shape": (16,)}, (4, 16), f"{_NORM} LargeMean", "offset"
    ),
    SuiteCase("group_norm", "plain", {"num_groups": 2, "num_channels": 6}, (2, 6, 4, 3), f"{_NORM} Groups"),
    SuiteCase("group_norm", "one_group", {"num_groups": 1, "num_channels": 4}, (3, 4, 3, 3), _NORM),
    SuiteCase(
        "group_norm",
        "eps",
        {"num_groups": 2, "num_channels": 4, "eps": 0.5},
        (2, 4, 5),
        f"{_NORM} Groups Eps",
    ),
    SuiteCase(
        "group_norm",
        "large_mean",
        {"num_groups": 3, "num_channels": 6},
        (2, 6, 3, 3),
        f"{_NORM} Groups LargeMean",
        "offset",
    ),
]


def _elementwise(operator: str, attributes: dict[str, Any] | None, flags: str) -> list[SuiteCase]:
    """Ordinary values, zeros, large ones, and attributes that are not the defaults."""
    cases = [
        SuiteCase(operator, "plain", {}, (4, 40), flags),
        SuiteCase(operator, "zeros", {}, (4, 25), "ZeroInput", "rounded"),
        SuiteCase(operator, "large", {}, (4, 25), "Saturation", "large"),
    ]
    if attributes:
        cases.append(SuiteCase(operator, "attribute", attributes, (2, 3, 4, 5), "Attribute"))
    return cases


_ACTIVATIONS = [
    *_elementwise("relu", None, "Kink"),
    *_elementwise("leaky_relu", {"negative_slope": 0.3}, "Kink"),
    *_elementwise("elu", {"alpha": 0.5}, "Kink"),
    *_elementwise("gelu", {"approximate": "tanh"}, ""),
    *_elementwise("silu", None, ""),
    *_elementwise("sigmoid", None, ""),
    *_elementwise("tanh", None, ""),
    *_elementwise("softplus", {"beta": 2.0, "threshold": 1.5}, ""),
    *(
        case
        for operator in ("softmax", "log_softmax")
        for case in (
            SuiteCase(operator, "plain", {"dim": -1}, (4, 10), "SummedAxes"),
            SuiteCase(operator, "channels", {"dim": 1}, (2, 5, 3, 2), "SummedAxes LeadingDimensions"),
            SuiteCase(operator, "large", {"dim": 1}, (6, 8), "Saturation", "large"),
            SuiteCase(operator, "offset", {"dim": 1}, (4, 8), "HugeValues Saturation", "offset"),
        )
    ),
]


def _of_elements(operator: str, attributes: dict[str, Any] | None) -> list[SuiteCase]:
    """The three reductions of a loss of real numbers, hits, and attributes that are not the defaults."""
    cases = [
        SuiteCase(operator, "mean", {}, (4, 10), ""),
        SuiteCase(operator, "sum", {"reduction": "sum"}, (4, 10), "Reduction"),
        SuiteCase(operator, "none", {"reduction": "none"}, (2, 3, 4), "Reduction LeadingDimensions"),
        SuiteCase(operator, "zeros", {}, (4, 10), "ZeroInput", "rounded"),
    ]
    if attributes:
        cases.append(SuiteCase(operator, "attribute", attributes, (4, 10), "Attribute Kink"))
    return cases


_IGNORED, _NEGATIVE = {"ignore_index": 3}, {"ignore_index": -1}
_LOSSES = [
    *_of_elements("mse_loss", None),
    *_of_elements("l1_loss", None),
    *_of_elements("smooth_l1_loss", {"beta": 0.5}),
    *(
        case
        for operator in ("cross_entropy", "nll_loss")
        for case in (
            SuiteCase(operator, "mean", {}, (8, 6), ""),
            SuiteCase(operator, "sum", {"reduction": "sum"}, (8, 6), "Reduction"),
            SuiteCase(operator, "pixels", {"reduction": "none"}, (2, 5, 3, 4), "Reduction LeadingDimensions"),
            SuiteCase(operator, "weights", {"weight": True}, (8, 6), "ClassWeights"),
            SuiteCase(
                operator, "ignore_index", {"weight": True, **_IGNORED}, (8, 6), "ClassWeights IgnoreIndex"
            ),
            SuiteCase(operator, "ignore_outside", _NEGATIVE, (9, 6), "IgnoreIndex"),
        )
    ),
    SuiteCase(
        "cross_entropy",
        "label_smoothing",
        {"weight": True, "label_smoothing": 0.2, **_IGNORED},
        (8, 6),
        "LabelSmoothing ClassWeights IgnoreIndex",
    ),
    SuiteCase("cross_entropy", "large", {}, (8, 6), "Saturation", "large"),
    *(
        case
        for operator in ("binary_cross_entropy", "binary_cross_entropy_with_logits")
        for case in (
            SuiteCase(operator, "mean", {}, (4, 10), "SoftTargets"),
            SuiteCase(operator, "sum", {"reduction": "sum"}, (4, 10), "Reduction SoftTargets"),
            SuiteCase(
                operator, "none", {"reduction": "none", "weight": True}, (3, 4), "Reduction ClassWeights"
            ),
            SuiteCase(operator, "large", {}, (4, 10), "Saturation", "large"),
        )
    ),
    SuiteCase(
        "binary_cross_entropy_with_logits",
        "pos_weight",
        {"weight": True, "pos_weight": True},
        (4, 5),
        "PosWeight SoftTargets",
    ),
]

CASES = (*_CONVOLUTIONS, *_POOLS, *_NORMALIZATIONS, *_ACTIVATIONS, *_LOSSES)
