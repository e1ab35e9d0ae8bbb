"""A picture of a convolution as a matrix product; it needs matplotlib (`pip install tinyconv[plots]`)."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyconv.arguments import IntOrPair, check_arrays, check_ndim, check_shape, pair
from tinyconv.arrays import Array
from tinyconv.functional import conv2d, fold, unfold
from tinyconv.plots.figure import Path, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tinyconv.plots.shown import Figure

Shape = tuple[int, ...]

MOST = 18  # rows and columns of a matrix whose numbers can be read
CELL, CHARACTER, MARGIN, TITLE, HEADING = 0.38, 0.085, 0.2, 0.65, 0.5  # in inches


class Matrix(NamedTuple):
    """A matrix to draw, or several to draw under one another, and its title."""

    name: str
    values: Array
    note: str = ""

    @property
    def exponent(self) -> int:
        """Return the power of ten in whose units the numbers are short; 0 if they already are."""
        largest = float(np.abs(self.values[np.isfinite(self.values)]).max(initial=0))
        if largest == 0 or 0.1 <= largest < 9999.5:
            return 0
        return max(math.floor(math.log10(largest)), -300)  # division by 10^-300 is still possible

    @property
    def drawn(self) -> Array:
        """Return the numbers in the units in the title."""
        return self.values.astype(np.float64) / 10.0**self.exponent

    @property
    def title(self) -> str:
        """Return two lines: the name; the shape, the units and the note."""
        power = str(self.exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        units = f", in units of 10{power}" if self.exponent else ""
        return f"{self.name}\n{self.values.shape}{units}{self.note}"


Piece = Matrix | str  # or the sign between two


def unfold_view(
    input: Array,
    weight: Array,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    path: Path = None,
    grad_output: Array | None = None,
) -> "Figure":
    """Draw a convolution and its gradients as products of matrices, with all numbers and shapes.

    Unfolded to columns, an image of L window positions is multiplied by the kernels as L samples are in a
    linear layer, and the weight's gradient is summed over them as there:

        output = weight @ columns              (O, CKK) @ (N, CKK, L) = (N, O, L)
        grad_weight = sum over n of grad_output[n] @ columns[n].T                = (O, CKK)
        grad_input = fold(weight.T @ grad_output)           fold of (N, CKK, L) = (N, C, H, W)

    The first row is forward, the others are the two gradients. One window is framed in the image, in the
    columns and in the output, and at the same places of their gradients. Samples and channels are drawn under
    one another. Numbers are rounded to at most five characters; those of a matrix of large or tiny ones are
    in units of a power of ten, which its title has.

    Args:
        input: (N, C, H, W), small: each drawn matrix may have at most 18 rows and columns.
        weight: (O, C, KH, KW).
        stride, padding: an int, or a pair for height and width.
        path: the picture's file, if any; its ending is the format, one of matplotlib's.
        grad_output: the upstream gradient, of the output's shape; None for 1, 2, 3, ... row by row, which
            distinguishes its elements.

    Raises:
        ValueError: shapes that do not fit; sizes too large to read; an unknown ending of `path`.
        TypeError: dtypes that differ or are not floating.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    >>> figure = unfold_view(np.ones((1, 1, 3, 3)), np.ones((2, 1, 2, 2)))
    >>> [axes.get_title().splitlines()[0] for axes in figure.axes]
    ['input', 'columns', 'weight', 'output', 'grad_output', 'grad_weight', 'grad_columns', 'grad_input']
    """
    check_arrays(input=input, weight=weight, **({} if grad_output is None else {"grad_output": grad_output}))
    check_ndim("input", input, (4,), "(N, C, H, W)")
    check_ndim("weight", weight, (4,), "(O, C, KH, KW)")
    window = (weight.shape[2:], 1, pair("padding", padding, minimum=0), pair("stride", stride))
    form = conv2d(input, weight, None, stride, padding).shape
    upstream = _upstream(grad_output, form, input.dtype)
    figure = _draw(_rows(input, weight, upstream, form, window))
    _frame_window(figure, input.shape, form, window)
    return saved(figure, path)


def _upstream(grad_output: Array | None, form: Shape, dtype: np.dtype[Any]) -> Matrix:
    """`grad_output`, checked, or its default, as (N, O, L)."""
    note = ""
    if grad_output is None:
        grad_output = np.arange(1, 1 + math.prod(form), dtype=dtype).reshape(form)
        note = ", chosen as 1, 2, 3, …"
    check_shape("grad_output", grad_output, form, "of the output")
    return Matrix(f"grad_output\n{form} as", grad_output.reshape(*form[:2], math.prod(form[2:])), note)


def _rows(input: Array, weight: Array, upstream: Matrix, form: Shape, window: Any) -> dict[str, list[Piece]]:
    """The rows of the picture, by their headings."""
    columns = unfold(input, *window)
    matrix = weight.reshape(len(weight), columns.shape[1])
    output = matrix @ columns
    _check_readable("input", input, input, columns)
    _check_readable("weight", weight, matrix, output)
    grad_weight = np.einsum("nol,nrl->or", upstream.values, columns)
    grad_columns = matrix.T @ upstream.values
    return {
        "Forward": [
            Matrix("input", input),
            "unfold →",
            Matrix("columns", columns),
            "",
            Matrix(f"weight\n{weight.shape} as", matrix),
            "@ columns =",
            Matrix(f"output\n{form} as", output),
        ],
        "Gradient with respect to weight": [
            upstream,
            "@ columnsᵀ,\nsummed over n =",
            Matrix(f"grad_weight\n{weight.shape} as", grad_weight),
        ],
        "Gradient with respect to input": [
            "weightᵀ @ grad_output =",
            Matrix("grad_columns", grad_columns),
            "fold →",
            Matrix("grad_input", fold(grad_columns, input.shape[2:], *window)),
        ],
    }


def _check_readable(name: str, given: Array, *matrices: Array) -> None:
    """Check the size of `matrices`, which come from the argument `name`."""
    for matrix in matrices:
        if not matrix.size or max(_stacked(matrix).shape) > MOST:
            raise ValueError(
                f"`{name}` (of shape {given.shape}) gives a matrix of shape {matrix.shape}, which must have "
                f"1 to {MOST} rows and columns to be read, samples and channels under one another with a "
                "row between"
            )


def _stacked(array: Array) -> Array:
    """The matrices of `array`, (..., rows, columns), under one another, with a row of NaN between two."""
    rows, columns = array.shape[-2:]
    blocks = np.full((array.size // (rows * columns), rows + 1, columns), np.nan)
    blocks[:, :-1] = array.reshape(-1, rows, columns)
    return blocks.reshape(-1, columns)[:-1]


def _draw(rows: dict[str, list[Piece]]) -> "Figure":
    """Rows of matrices with signs between, each under its heading."""
    heights = [max(_size(piece)[1] for piece in pieces) for pieces in rows.values()]
    width = max(sum(_size(piece)[0] for piece in pieces) for pieces in rows.values()) + 2 * MARGIN
    height = sum(heights) + len(rows) * HEADING + MARGIN
    figure, top = new_figure(width, height, layout=None), height
    for (heading, pieces), tall in zip(rows.items(), heights, strict=True):
        left, middle = MARGIN, top - HEADING - (tall + TITLE) / 2
        figure.text(left / width, (top - HEADING + MARGIN) / height, heading, weight="bold", va="center")
        for piece in pieces:
            wide = _size(piece)[0]
            center = left + wide / 2
            if isinstance(piece, str):
                figure.text(center / width, middle / height, piece, ha="center", va="center")
            else:
                grid = _stacked(piece.values)
                h, w = CELL * grid.shape[0], CELL * grid.shape[1]
                box = ((center - w / 2) / width, (middle - h / 2) / height, w / width, h / height)
                _draw_matrix(figure.add_axes(box), piece)
            left += wide
        top -= HEADING + tall
    return figure


def _size(piece: Piece) -> tuple[float, float]:
    """Width and height of a piece, including its title."""
    if isinstance(piece, str):
        return max(map(len, piece.split("\n"))) * CHARACTER + 2 * MARGIN, 0.0
    rows, columns = _stacked(piece.values).shape
    title = max(map(len, piece.title.split("\n")))
    return max(columns * CELL, title * CHARACTER), rows * CELL + TITLE


def _draw_matrix(axes: "Axes", matrix: Matrix) -> None:
    """Draw all numbers of `matrix` in cells, red above 0 and blue below 0."""
    numbers = matrix.drawn
    grid = _stacked(numbers)
    largest = np.abs(numbers[np.isfinite(numbers)]).max(initial=0) or 1
    pale = 2 * largest  # so that the numbers can be read on it
    axes.pcolormesh(np.ma.masked_invalid(grid), cmap="RdBu_r", vmin=-pale, vmax=pale, edgecolors="white")
    axes.set(ylim=(len(grid), 0))
    axes.set_title(matrix.title, fontsize=9)
    axes.set_axis_off()
    rows, columns = numbers.shape[-2:]
    for i, number in enumerate(numbers.ravel().tolist()):
        row = i // columns
        y = row + row // rows  # past the empty rows between matrices
        axes.text(i % columns + 0.5, y + 0.5, _short(number), ha="center", va="center", fontsize=8.5)


def _short(number: float) -> str:
    """`number`, which is less than 10000, in at most five characters, which fit a cell."""
    decimals = 2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0
    return f"{round(number, decimals) + 0.0:.4g}"  # + 0.0 turns -0 into 0


def _frame_window(figure: "Figure", shape: Shape, form: Shape, window: Any) -> None:
    """Frame a window of the first image, in each channel, and its place in columns, output and gradients."""
    image, columns, _, output, grad_output, _, grad_columns, grad_image = figure.axes
    kernel, _, padding, stride = window
    middle = form[2] // 2, form[3] // 2
    place, taps = middle[0] * form[3] + middle[1], kernel[0] * kernel[1]
    top, left = (m * s - before for m, s, before in zip(middle, stride, padding, strict=True))
    bottom, right = min(top + kernel[0], shape[2]), min(left + kernel[1], shape[3])
    top, left = max(top, 0), max(left, 0)
    for axes in (columns, grad_columns):
        _frame(axes, place, 0, 1, shape[1] * taps)
    for axes in (output, grad_output):
        _frame(axes, place, 0, 1, form[1])
    for axes in (image, grad_image):
        for channel in range(shape[1]):
            _frame(axes, left, channel * (shape[2] + 1) + top, right - left, bottom - top)


def _frame(axes: "Axes", x: int, y: int, width: int, height: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, fill=False, linewidth=2.5, clip_on=False))
