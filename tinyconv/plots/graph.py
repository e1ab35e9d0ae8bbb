"""The graph of a model's layers as text: SVG, with its own layout, or DOT for Graphviz."""

import pathlib
import textwrap
import unicodedata
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from tinyconv.arguments import instance, integer, one_of
from tinyconv.files import write_whole
from tinyconv.layers import Layer, Sequential
from tinyconv.layers.branches import Branches
from tinyconv.layers.layer import ERRORS
from tinyconv.plots.figure import Path, format_of

Column = tuple["Node", ...]

FORMATS = ("svg", "dot")

FORWARD, BACKWARD = "forward: values", "backward: gradients"
COLOR = {FORWARD: "#1f5fa8", BACKWARD: "#c4481c"}
DASHES = {FORWARD: "none", BACKWARD: "5 3"}
FRAME, HEADER, WITH_PARAMETERS, WITHOUT = "#ffffff", "#e8e6ef", "#e3eefa", "#f3f3f0"

# In pixels. A character of a monospaced font is at most 0.62 of the font's size wide.
FONT, CHARACTER, LINE, PADDING = 12, 0.62 * 12, 17, 10
GAP, BESIDE, ADD = 34, 24, 26
NARROWEST = 40


class Node(NamedTuple):
    """A box: its label and, side by side, the columns in it, which are joined if there are several."""

    label: tuple[str, ...]
    fill: str = WITHOUT
    columns: tuple[Column, ...] = ()
    joint: str = ""  # how they are joined

    @property
    def header(self) -> float:
        """Return the height of the label."""
        return len(self.label) * LINE + 2 * PADDING

    @property
    def inside(self) -> float:
        """Return the width of all columns."""
        return sum(map(_width, self.columns)) + BESIDE * (len(self.columns) - 1)

    @property
    def width(self) -> float:
        """Return the width of the box."""
        label = max(map(_characters, self.label)) * CHARACTER
        return max(label, self.inside) + 2 * PADDING

    @property
    def height(self) -> float:
        """Return the height of the box."""
        inside = max((_height(column) for column in self.columns), default=0.0)
        return self.header + inside + (ADD + GAP if len(self.columns) > 1 else 0)


class Drawing(str):
    """The text of a drawing, which a notebook shows as the picture that it describes."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


def draw(
    model: Layer, input_shape: tuple[int, ...], path: Path = None, *, format: str | None = None
) -> Drawing:
    """Draw the graph of a model's layers, with the paths of forward and backward.

    Every layer shows its name (that of its parameters in the state), class, arguments, output shape and
    number of parameters; those with parameters are blue. A layer with children is a frame around them. The
    branches of a Residual, Concat or Gate are drawn side by side. Other children are drawn one under another,
    with the shapes that they have if each takes the output of the one before; a layer of another class than
    Sequential whose children do not fit in this way is one box.

    Args:
        model: any layer.
        input_shape: shape of the input, with the batch: (1, 1, 28, 28).
        path: the drawing's file, if any, which ends in .svg or .dot.
        format: "svg", which every browser shows, or "dot" for Graphviz; by default from the ending of `path`,
            or "svg".

    Returns:
        The text of the file, which a notebook shows as the picture.

    Raises:
        ValueError: the shapes do not fit, and the message names the layer; an unknown `format`, or another
            than the ending of `path`; an unknown ending of `path`.
        TypeError: `model` is not a Layer.
        OSError: the file cannot be written.

    >>> from tinyconv import Linear
    >>> svg = draw(Linear(4, 2), (1, 4))
    >>> svg[:4], "output (1, 2), 10 parameters" in svg
    ('<svg', True)
    """
    format = _format(format, path)
    instance("model", model, Layer)
    shape = tuple(integer("input_shape", size, minimum=0) for size in input_shape)
    chain = (Node(("input", str(shape))), _node(model, "", shape), Node(("output",)))
    svg = _svg(chain)
    drawing = Drawing(svg if format == "svg" else _Dot().text(chain))
    drawing.svg = svg
    if path is not None:
        write_whole(pathlib.Path(path), drawing.encode())
    return drawing


def _format(format: str | None, path: Path) -> str:
    """The format from the arguments."""
    if format is not None:
        one_of("format", format, FORMATS)
    if path is None:
        return format or "svg"
    ending = format_of(path, FORMATS)
    if format not in (None, ending):
        raise ValueError(f"`format` (={format!r}) must be {ending!r}, as `path` (={str(path)!r}) ends")
    return ending


def _node(layer: Layer, path: str, shape: tuple[int, ...]) -> Node:
    """The box of `layer`, whose input has `shape`."""
    output, count = layer.output_shape(shape), sum(array.size for array in layer.params.values())
    size = f"output {output}, {count:,} parameter{'' if count == 1 else 's'}"
    title = f"{path}: {type(layer).__name__}" if path else type(layer).__name__
    fill = WITH_PARAMETERS if count else WITHOUT
    columns = _columns(layer, f"{path}." if path else "", shape)
    lines = (title, *textwrap.wrap(layer.extra_repr(), 48), size)
    joint = layer.joint if isinstance(layer, Branches) else ""
    return Node(tuple(map(_printable, lines)), FRAME if columns else fill, columns, joint)


def _columns(layer: Layer, prefix: str, shape: tuple[int, ...]) -> tuple[Column, ...]:
    """The boxes in that of `layer`."""
    if isinstance(layer, Branches):
        branches = layer.branches()
        return tuple(() if one is None else (_node(one, prefix + name, shape),) for name, one in branches)
    if not layer.children and not isinstance(layer, Sequential):
        return ()
    try:
        return (tuple(_chain(layer, prefix, shape)),)
    except ERRORS:
        if isinstance(layer, Sequential):
            raise
        return ()  # only the layer knows the inputs of its children


def _chain(layers: Layer, prefix: str, shape: tuple[int, ...]) -> Iterator[Node]:
    for name, layer in layers.children.items():
        yield _node(layer, prefix + name, shape)
        shape = layer.output_shape(shape)


def _printable(text: str) -> str:
    """`text` with escape sequences for characters that XML forbids or that would break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# SVG


def _characters(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def _width(column: Column) -> float:
    return max((node.width for node in column), default=NARROWEST)


def _height(column: Column) -> float:
    """Height of the boxes of a column, with an arrow before each and one after the last."""
    return sum(GAP + node.height for node in column) + GAP


def _svg(chain: Column) -> str:
    top = LINE + 2 * PADDING
    width = max(_width(chain), 54 * CHARACTER) + 2 * PADDING
    height = top + _height(chain) - 2 * GAP + PADDING
    first, axis = chain[0], width / 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" '
        f'font-size="{FONT}">\n<title>{escape(chain[1].label[0])}</title>\n'
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>'
    )
    body = [*_legend(), *_box(first, axis, top), *_column(chain[1:], axis, top + first.height)]
    return "\n".join([head, *body, "</svg>\n"])


def _legend() -> Iterator[str]:
    left = float(PADDING)
    for kind in (FORWARD, BACKWARD):
        yield _arrow(kind, left, LINE, left + 40, LINE)
        yield _text(kind, left + 48, LINE + 4, "start")
        left += 48 + (len(kind) + 3) * CHARACTER


def _box(node: Node, axis: float, top: float) -> Iterator[str]:
    """The box of `node` and its content, centred at `axis`."""
    yield _rectangle(axis - node.width / 2, top, node.width, node.height, node.fill)
    if node.columns:
        yield _rectangle(axis - node.width / 2, top, node.width, node.header, HEADER)
    for i, line in enumerate(node.label):
        baseline = top + PADDING + (i + 0.75) * LINE
        yield _text(line, axis, baseline, "middle", bold=i == 0)
    left, start, bottom = axis - node.inside / 2, top + node.header, top + node.height
    if len(node.columns) > 1:
        yield from _arrows(axis, bottom - GAP, bottom)
        bottom -= GAP + ADD
        yield _rectangle(left, bottom, node.inside, ADD, WITHOUT)
        yield _text(node.joint, axis, bottom + ADD / 2 + 4, "middle")
    for column in node.columns:
        yield from _column(column, left + _width(column) / 2, start, bottom)
        left += _width(column) + BESIDE


def _column(column: Column, axis: float, top: float, bottom: float | None = None) -> Iterator[str]:
    """Boxes one under another, with arrows from the last one to `bottom`, if it is not None."""
    for node in column:
        yield from _arrows(axis, top, top + GAP)
        yield from _box(node, axis, top + GAP)
        top += GAP + node.height
    if bottom is not None:
        yield from _arrows(axis, top, bottom)


def _arrows(axis: float, top: float, bottom: float) -> Iterator[str]:
    yield _arrow(FORWARD, axis - 7, top, axis - 7, bottom)
    yield _arrow(BACKWARD, axis + 7, bottom, axis + 7, top)


def _arrow(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight arrow, along one of the axes."""
    length = abs(x2 - x1) + abs(y2 - y1)
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    x, y = x2 - 7 * dx, y2 - 7 * dy
    head = f"{x2:g},{y2:g} {x - 4 * dy:g},{y - 4 * dx:g} {x + 4 * dy:g},{y + 4 * dx:g}"
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x:g}" y2="{y:g}" stroke="{COLOR[kind]}" stroke-width="1.6" '
        f'stroke-dasharray="{DASHES[kind]}"/><polygon points="{head}" fill="{COLOR[kind]}"/>'
    )


def _rectangle(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" '
        f'fill="{fill}" stroke="#8a8f98"/>'
    )


def _text(line: str, x: float, y: float, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{weight}>{escape(line)}</text>'


# DOT


class _Dot:
    """Writes the boxes in their clusters first, then the edges between them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.edges: list[str] = []
        self.boxes = self.clusters = 0

    def text(self, chain: Column) -> str:
        first, *rest = chain
        self.column(tuple(rest), self.box(first))
        legend = f"solid blue, {FORWARD}; dashed red, {BACKWARD}"
        head = [
            "digraph model {",
            f"label={_quoted(legend)}; labelloc=t; fontname=monospace;",
            "node [shape=box, style=filled, fontname=monospace];",
        ]
        return "\n".join([*head, *self.lines, *self.edges, "}\n"])

    def column(self, column: Column, source: str) -> str:
        """Write the boxes one after another, beginning from `source`; return the last one."""
        for node in column:
            source = self.cluster(node, source) if node.columns else self.box(node, source)
        return source

    def cluster(self, node: Node, source: str) -> str:
        self.lines.append(f"subgraph cluster_{self.clusters} {{")
        self.clusters += 1
        self.lines.append(f"label={_quoted(*node.label)};")
        ends = [self.column(column, source) for column in node.columns]
        end = ends[0] if len(ends) == 1 else self.box(Node((node.joint,)), *ends)
        self.lines.append("}")
        return end

    def box(self, node: Node, *sources: str) -> str:
        name = f"n{self.boxes}"
        self.boxes += 1
        self.lines.append(f'{name} [label={_quoted(*node.label)}, fillcolor="{node.fill}"];')
        for source in sources:
            self.edges.append(f'{source} -> {name} [color="{COLOR[FORWARD]}"];')
            self.edges.append(
                f'{name} -> {source} [color="{COLOR[BACKWARD]}", style=dashed, constraint=false];'
            )
        return name


def _quoted(*lines: str) -> str:
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
