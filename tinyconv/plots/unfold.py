"""A picture of a convolution as a matrix product; it needs matplotlib (`pip install tinyconv[plots]`)."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyconv.arguments import IntOrPair, check_arrays, check_ndim, pair
from tinyconv.arrays import Array
from tinyconv.functional import conv2d, fold, unfold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Shape = tuple[int, ...]
Piece = tuple[str, Array] | str  # a matrix with its name, or the sign between two

MOST = 18  # rows and columns of a matrix whose numbers can be read
CELL, CHARACTER, MARGIN, TITLE, HEADING = 0.38, 0.085, 0.25, 0.55, 0.5  # in inches


def unfold_view(
    input: Array,
    weight: Array,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    path: str | os.PathLike[str] | None = None,
) -> "Figure":
    """Draw a convolution and its gradients as products of matrices, with all numbers and shapes.

    Unfolded to columns, an image of L window positions meets the kernels as L samples meet a linear
    layer, and the weight's gradient is summed over them as it is there:

        output = weight @ columns              (O, CKK) @ (N, CKK, L) = (N, O, L)
        grad_weight = sum over n of grad_output[n] @ columns[n].T                = (O, CKK)
        grad_input = fold(weight.T @ grad_output)           fold of (N, CKK, L) = (N, C, H, W)

    The first row is forward, the second backward for an upstream gradient of ones. One window is framed
    in the image, in the columns and in the output. Samples and channels stand under one another.

    Args:
        input: (N, C, H, W), small: no matrix drawn may have more than 18 rows or columns.
        weight: (O, C, KH, KW).
        stride, padding: an int, or a pair for height and width.
        path: the picture's file, if any; its ending says the format.

    Raises:
        ValueError: shapes that do not fit; sizes too large to read.
        TypeError: dtypes that differ or are not floating.
    """
    check_arrays(input=input, weight=weight)
    check_ndim("input", input, (4,), "(N, C, H, W)")
    check_ndim("weight", weight, (4,), "(O, C, KH, KW)")
    window = (weight.shape[2:], 1, pair("padding", padding, minimum=0), pair("stride", stride))
    form = conv2d(input, weight, None, stride, padding).shape
    figure = _draw(
        {
            "Forward": _forward(input, weight, form, window),
            "Backward, from an upstream gradient of ones": _backward(input, weight, form, window),
        }
    )
    _frame_window(figure, input.shape, form, window)
    if path is not None:
        figure.savefig(path, dpi=110)
    return figure


def _forward(input: Array, weight: Array, form: Shape, window: Any) -> list[Piece]:
    columns = unfold(input, *window)
    matrix = weight.reshape(len(weight), columns.shape[1])
    output = matrix @ columns
    _check_readable("input", input, input, columns)
    _check_readable("weight", weight, matrix, output)
    product: list[Piece] = [
        (f"weight {weight.shape} as", matrix),
        "@ columns =",
        (f"output {form} as", output),
    ]
    return [("input", input), "unfold →", ("columns", columns), "", *product]


def _backward(input: Array, weight: Array, form: Shape, window: Any) -> list[Piece]:
    columns = unfold(input, *window)
    matrix = weight.reshape(len(weight), columns.shape[1])
    grad_output = np.ones((*form[:2], columns.shape[2]), input.dtype)
    grad_weight = np.einsum("nol,nrl->or", grad_output, columns)
    grad_columns = matrix.T @ grad_output
    grad_input = fold(grad_columns, input.shape[2:], *window)
    by_weight: list[Piece] = [
        (f"grad_output {form} as", grad_output),
        "@ columnsᵀ,\nsummed over n =",
        (f"grad_weight {weight.shape} as", grad_weight),
    ]
    by_columns: list[Piece] = ["weightᵀ @\ngrad_output =", ("grad_columns", grad_columns)]
    return [*by_weight, "", *by_columns, "fold →", ("grad_input", grad_input)]


def _check_readable(name: str, given: Array, *matrices: Array) -> None:
    """Check the size of `matrices`, which come from the argument `name`."""
    for matrix in matrices:
        if not matrix.size or max(_stacked(matrix).shape) > MOST:
            raise ValueError(
                f"`{name}` (of shape {given.shape}) makes a matrix of shape {matrix.shape}, which must have "
                f"1 to {MOST} rows and columns to be read, samples and channels under one another with a "
                "row between"
            )


def _stacked(array: Array) -> Array:
    """The matrices of `array`, (..., rows, columns), under one another, with a row of NaN between two."""
    rows, columns = array.shape[-2:]
    blocks = np.full((array.size // (rows * columns), rows + 1, columns), np.nan)
    blocks[:, :-1] = array.reshape(-1, rows, columns)
    stacked: Array = blocks.reshape(-1, columns)[:-1]
    return stacked


def _draw(rows: dict[str, list[Piece]]) -> "Figure":
    """Rows of matrices with signs between, each under its heading."""
    from matplotlib.figure import Figure

    heights = [max(_size(piece)[1] for piece in pieces) for pieces in rows.values()]
    width = max(sum(_size(piece)[0] for piece in pieces) for pieces in rows.values()) + 2 * MARGIN
    height = sum(heights) + len(rows) * HEADING + MARGIN
    figure, top = Figure(figsize=(width, height)), height
    for (heading, pieces), tall in zip(rows.items(), heights, strict=True):
        left, middle = MARGIN, top - HEADING - (tall + TITLE) / 2
        figure.text(left / width, (top - MARGIN) / height, heading, weight="bold", va="center")
        for piece in pieces:
            wide = _size(piece)[0]
            center = left + wide / 2
            if isinstance(piece, str):
                figure.text(center / width, middle / height, piece, ha="center", va="center")
            else:
                grid = _stacked(piece[1])
                h, w = CELL * grid.shape[0], CELL * grid.shape[1]
                box = ((center - w / 2) / width, (middle - h / 2) / height, w / width, h / height)
                _draw_matrix(figure.add_axes(box), *piece)
            left += wide
        top -= HEADING + tall
    return figure


def _size(piece: Piece) -> tuple[float, float]:
    """Width and height that a piece takes, its title included."""
    if isinstance(piece, str):
        return max(map(len, piece.split("\n"))) * CHARACTER + 2 * MARGIN, 0.0
    rows, columns = _stacked(piece[1]).shape
    title = max(map(len, _title(*piece).split("\n")))
    return max(columns * CELL, title * CHARACTER), rows * CELL + TITLE


def _title(name: str, array: Array) -> str:
    return f"{name}\n{array.shape}"


def _draw_matrix(axes: "Axes", name: str, array: Array) -> None:
    """Draw all numbers of `array` in cells, red above 0 and blue below it."""
    grid = _stacked(array)
    largest = np.abs(array[np.isfinite(array)]).max(initial=0) or 1
    pale = 2 * largest  # so that the numbers can be read on it
    axes.pcolormesh(np.ma.masked_invalid(grid), cmap="RdBu_r", vmin=-pale, vmax=pale, edgecolors="white")
    axes.set(ylim=(len(grid), 0))
    axes.set_title(_title(name, array), fontsize=9)
    axes.set_axis_off()
    numbers = [f"{value + 0.0:.3g}" for value in array.ravel()]
    fontsize = min(9.0, 72 * CELL / (0.7 * max(map(len, numbers))))
    rows, columns = array.shape[-2:]
    for i, number in enumerate(numbers):
        row = i // columns
        y = row + row // rows  # past the empty rows between matrices
        axes.text(i % columns + 0.5, y + 0.5, number, ha="center", va="center", fontsize=fontsize)


def _frame_window(figure: "Figure", shape: Shape, form: Shape, window: Any) -> None:
    """Frame a window amid the first image, in each channel, and its place in columns and output."""
    image, columns, _, output, *_ = figure.axes
    kernel, _, padding, stride = window
    middle = form[2] // 2, form[3] // 2
    place, taps = middle[0] * form[3] + middle[1], kernel[0] * kernel[1]
    _frame(columns, place, 0, 1, shape[1] * taps)
    _frame(output, place, 0, 1, form[1])
    top, left = (m * s - before for m, s, before in zip(middle, stride, padding, strict=True))
    bottom, right = min(top + kernel[0], shape[2]), min(left + kernel[1], shape[3])
    top, left = max(top, 0), max(left, 0)
    for channel in range(shape[1]):
        _frame(image, left, channel * (shape[2] + 1) + top, right - left, bottom - top)


def _frame(axes: "Axes", x: int, y: int, width: int, height: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, fill=False, linewidth=2.5, clip_on=False))
