"""Pictures: the SVG's geometry, the drawn numbers, and a model that stays as it is."""

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.test_examples import ROOT, run
from tinyconv.arrays import Array
from tinyconv.layers import Layer
from tinyconv.plots import activations, draw, filters, saliency, training_report, unfold_view

SVG = "{http://www.w3.org/2000/svg}"


def block(channels: int, out_channels: int, stride: int = 1) -> tc.Residual:
    body = tc.Sequential(
        tc.Conv2d(channels, out_channels, 3, stride=stride, padding=1, generator=1),
        tc.BatchNorm2d(out_channels),
        tc.ReLU(),
        tc.Conv2d(out_channels, out_channels, 3, padding=1, generator=2),
    )
    if channels == out_channels and stride == 1:
        return tc.Residual(body)
    return tc.Residual(body, tc.Conv2d(channels, out_channels, 1, stride=stride, generator=3))


def resnet() -> tc.Sequential:
    return tc.Sequential(
        {
            "stem": tc.Conv2d(3, 4, 3, padding=1, generator=0),
            "one": block(4, 4),
            "two": tc.Sequential(block(4, 8, 2), tc.ReLU(), tc.MaxPool2d(2), tc.Dropout(generator=4)),
            "pool": tc.AdaptiveAvgPool2d(1),
            "flat": tc.Flatten(),
            "head": tc.Linear(8, 5, generator=5),
        }
    )


def gradient_steps() -> tc.Sequential:
    def energy(seed: int) -> Layer:
        body = tc.Sequential(tc.Conv2d(1, 2, 3, padding=1, generator=seed), tc.Softplus())
        return tc.Objective(body, tc.MSELoss(), np.zeros((1, 2, 5, 5), np.float32))

    steps = tc.GradientStep(energy(0), 0.1), tc.GradientLayer(energy(1))
    return tc.Sequential(*steps, tc.Residual(tc.ReLU()))


@pytest.mark.parametrize("format", ["svg", "dot"])
def test_what_joins_branches_is_written(format: str) -> None:
    joints = {tc.Residual(tc.ReLU()): "add", tc.Concat(tc.Identity()): "", tc.Gate(tc.Sigmoid()): "multiply"}
    joints[tc.Concat(tc.Identity(), tc.ReLU())] = "concatenate"
    for layer, joint in joints.items():
        text = draw(layer, (1, 2), format=format)
        found = [
            word for word in ("add", "concatenate", "multiply") if f">{word}<" in text or f'"{word}"' in text
        ]
        assert found == [joint] * bool(joint)


def test_the_maps_of_branches_are_their_own() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    model = tc.Concat(tc.Identity(), tc.Gate(tc.Sequential(tc.AdaptiveAvgPool2d(1), tc.Sigmoid())))
    figure = tc.plots.activations(model, np.ones((2, 4, 4), np.float32))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split(",")[0] for title in titles if title][-1].startswith("Concat")
    assert any("(1, 4, 4, 4): 4 channels, 0.731 to 1" in title for title in titles)


MODELS: dict[str, tuple[Callable[[], Layer], tuple[int, ...]]] = {
    "lenet5": (tc.models.lenet5, (1, 1, 28, 28)),
    "mnist_cnn": (tc.models.mnist_cnn, (2, 1, 28, 28)),
    "resnet": (resnet, (1, 3, 16, 16)),
    "one layer": (lambda: tc.Conv2d(3, 2, 3), (1, 3, 5, 5)),
    "nothing": (tc.Sequential, (1, 2)),
    "the input twice": (lambda: tc.Residual(tc.Sequential()), (1, 2)),
    "three branches": (
        lambda: tc.Concat(tc.Identity(), tc.Conv2d(2, 3, 1), tc.Sequential(tc.ReLU(), tc.Conv2d(2, 1, 1))),
        (1, 2, 5, 5),
    ),
    "gate": (lambda: tc.Gate(tc.Sequential(tc.AdaptiveAvgPool2d(1), tc.Sigmoid())), (1, 2, 5, 5)),
    "unet": (lambda: tc.models.unet(width=2, depth=2), (1, 1, 8, 8)),
    "gradient steps": (gradient_steps, (1, 1, 5, 5)),
    "long names": (lambda: tc.Sequential({"名" * 40: block(4, 8), "x" * 90: tc.ReLU()}), (1, 4, 5, 5)),
}


def titles_and_sizes(model: Layer, shape: tuple[int, ...], path: str = "") -> list[tuple[str, str]]:
    """What every layer should be labelled with, found with PyTorch's way of naming and nothing of draw's."""
    count = sum(array.size for array in model.params.values())
    output = model.output_shape(shape)
    kind = type(model).__name__
    plural = "" if count == 1 else "s"
    found = [(f"{path[1:]}: {kind}" if path else kind, f"output {output}, {count:,} parameter{plural}")]
    for name, child in model.children.items():
        found += titles_and_sizes(child, shape, f"{path}.{name}")
        shape = child.output_shape(shape) if isinstance(model, tc.Sequential) else shape
    return found


# The graph of the layers

Box = tuple[float, float, float, float]


def box_of_text(element: ET.Element, size: float) -> Box:
    """Left, top, right and bottom; a character is at most 0.62 of the size wide, a wide one twice that."""
    x, y = float(element.attrib["x"]), float(element.attrib["y"])
    characters = sum(2 if ord(c) > 0x2E80 else 1 for c in element.text or "")
    width = characters * 0.62 * size
    left = x - width / 2 if element.attrib["text-anchor"] == "middle" else x
    return left, y - 0.8 * size, left + width, y + 0.25 * size


def box_of_rectangle(element: ET.Element) -> Box:
    x, y, width, height = (float(element.get(key, 0)) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def box_of_line(element: ET.Element) -> Box:
    (x1, x2), (y1, y2) = (sorted(float(element.attrib[axis + end]) for end in "12") for axis in "xy")
    return x1 - 1, y1, x2 + 1, y2


def apart(a: Box, b: Box) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


@pytest.mark.parametrize("name", MODELS)
def test_nothing_overlaps_in_the_svg(name: str) -> None:
    make, shape = MODELS[name]
    root = ET.fromstring(draw(make(), shape))
    texts = [box_of_text(element, float(root.attrib["font-size"])) for element in root.iter(f"{SVG}text")]
    page, *rectangles = map(box_of_rectangle, root.iter(f"{SVG}rect"))
    lines = [box_of_line(element) for element in root.iter(f"{SVG}line")]
    for a, b in combinations(texts, 2):
        assert apart(a, b)
    for a, b in combinations(rectangles, 2):
        assert apart(a, b) or inside(a, b) or inside(b, a)
    for text in texts:
        assert all(apart(text, other) or inside(text, other) for other in rectangles)
        assert all(apart(text, line) for line in lines)
    for box in texts + rectangles + lines:
        assert inside(box, page)


@pytest.mark.parametrize("name", MODELS)
def test_no_arrow_crosses_a_label_or_ends_in_the_open(name: str) -> None:
    make, shape = MODELS[name]
    root = ET.fromstring(draw(make(), shape))
    _, *rectangles = map(box_of_rectangle, root.iter(f"{SVG}rect"))
    edges = {edge for box in rectangles for edge in (box[1], box[3])}
    polygons = list(root.iter(f"{SVG}polygon"))
    assert len(polygons) % 2 == 0
    assert len({polygon.attrib["fill"] for polygon in polygons}) == 2
    for polygon in polygons[2:]:  # after the legend's
        x, tip = map(float, polygon.attrib["points"].split()[0].split(","))
        assert any(abs(tip - edge) < 0.01 for edge in edges), (x, tip)
    leaves = [a for a in rectangles if not any(inside(b, a) and b is not a for b in rectangles)]
    for line in map(box_of_line, root.iter(f"{SVG}line")):
        assert all(apart(line, leaf) for leaf in leaves)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_labelled_once(name: str) -> None:
    make, shape = MODELS[name]
    model = make()
    expected = sorted(titles_and_sizes(model, shape))
    lines = [element.text for element in ET.fromstring(draw(model, shape)).iter(f"{SVG}text")]
    for title, size in expected:
        assert lines.count(title) == 1
        assert lines.count(size) == [other for _, other in expected].count(size)
    labels = re.findall(
        r'^(?:label|n\d+ \[label)="((?:[^"\\]|\\.)*)"', draw(model, shape, format="dot"), re.MULTILINE
    )
    parts = [label.split("\\n") for label in labels]
    found = [(part[0], part[-1]) for part in parts if part[-1].endswith(("parameter", "parameters"))]
    assert sorted(found) == expected


def test_the_dot_text_is_well_formed_and_goes_both_ways() -> None:
    model = tc.Sequential({'say "hi"\\': tc.ReLU(), "two\nlines": block(4, 4)})
    text = draw(model, (1, 4, 5, 5), format="dot")
    string = r'"(?:[^"\\\n]|\\.)*"'
    value = rf"(?:{string}|\w+|#)"
    attributes = rf"\[\w+={value}(?:, \w+={value})*\]"
    statements = [
        r"digraph model \{",
        r"\}",
        r"subgraph cluster_\d+ \{",
        rf"label={string};(?: \w+=\w+;)*",
        rf"n\d+ {attributes};",
        rf"node {attributes};",
        rf"n\d+ -> n\d+ {attributes};",
    ]
    for line in text.splitlines():
        assert any(re.fullmatch(statement, line) for statement in statements), line
    assert text.count("{") == text.count("}")
    assert 'label="say \\"hi\\"\\\\: ReLU\\noutput' in text
    assert 'label="two\\\\nlines: Residual\\noutput' in text
    edges = re.findall(r"(n\d+) -> (n\d+) \[(.*)\]", text)
    forward = {(a, b) for a, b, options in edges if "dashed" not in options}
    assert {(b, a) for a, b, options in edges if "dashed" in options} == forward
    relu, add = (re.findall(rf'(n\d+) \[label="{label}', text)[0] for label in ("say", "add"))
    assert (relu, add) in forward
    assert sum(b == add for _, b in forward) == 2


def test_names_of_any_characters_are_valid_xml() -> None:
    name = "<&\"'>\x00\n\ud800\u202e é"
    root = ET.fromstring(draw(tc.Sequential({name: tc.ReLU()}), (1, 2)))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "<&\"'>\\x00\\n\\ud800\\u202e é: ReLU" in texts


class Unknown(tc.Layer):
    """A layer of a class that draw knows nothing of."""

    def __init__(self, **children: Layer) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape


def drawn_texts(model: Layer) -> list[str | None]:
    """The texts after those of the legend and the input."""
    return [element.text for element in ET.fromstring(draw(model, (1, 2))).iter(f"{SVG}text")][4:]


def test_a_layer_of_an_unknown_kind_is_a_frame_around_its_children() -> None:
    inner = "inner: Linear", "2, 3", "output (1, 3), 9 parameters"
    relu = "relu: ReLU", "output (1, 3), 0 parameters"
    texts = drawn_texts(Unknown(inner=tc.Linear(2, 3), relu=tc.ReLU()))
    assert texts == ["Unknown", "output (1, 2), 9 parameters", *inner, *relu, "output"]
    assert draw(Unknown(inner=tc.Linear(2, 2)), (1, 2), format="dot").count("subgraph") == 1


@pytest.mark.parametrize("second", [tc.Linear(2, 3), tc.Layer()], ids=["unfit", "no output_shape"])
def test_children_that_do_not_follow_one_another_are_left_out(second: Layer) -> None:
    texts = drawn_texts(tc.Sequential(Unknown(one=tc.Linear(2, 3), two=second)))
    assert texts[2] == "0: Unknown"
    assert len(texts) == 5


def test_draw_names_what_is_wrong() -> None:
    model = tc.Sequential(tc.Linear(4, 2), tc.Sequential({"inner": tc.Linear(3, 2)}))
    with pytest.raises(ValueError, match=r"layer '1' \(Sequential\): layer 'inner' \(Linear\): `input`"):
        draw(model, (1, 4))
    with pytest.raises(ValueError, match=r"`format` \(='png'\) must be one of 'svg', 'dot'"):
        draw(model, (1, 4), format="png")
    with pytest.raises(TypeError, match=r"`input_shape` \(=1.5\) must be an integer"):
        draw(model, (1.5, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`model` \(=3\) must be a Layer"):
        draw(3, (1, 4))  # type: ignore[arg-type]


# Kernels, feature maps, gradients


@pytest.fixture
def used() -> tc.Sequential:
    """A model in training, with gradients, running statistics and what a forward keeps."""
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    model = resnet()
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    model.backward(np.ones_like(model.forward(x)))
    model["head"].eval()
    model.forward(x)
    return model


def image(channels: int = 3) -> Array:
    return np.random.default_rng(1).standard_normal((channels, 16, 16)).astype(np.float32)


PICTURES: dict[str, Callable[[tc.Sequential, Path], Any]] = {
    "filters": lambda model, path: filters(model, path),
    "activations": lambda model, path: activations(model, image(), path),
    "saliency": lambda model, path: saliency(model, image(), 3, path),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_written_and_the_model_stays_as_it_is(
    name: str, used: tc.Sequential, tmp_path: Path
) -> None:
    arrays = {**used.params, **used.grads, **{f"buffer {k}": v for k, v in used.buffers.items()}}
    before = {key: array.copy() for key, array in arrays.items()}
    modes = [layer.training for layer in used.modules()]
    figure = PICTURES[name](used, tmp_path / "picture.png")
    assert type(figure).__name__ == "Figure"
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    for key, array in {**used.params, **used.grads}.items():
        assert array is arrays[key]
    for key, array in before.items():
        np.testing.assert_array_equal(arrays[key], array)
    assert [layer.training for layer in used.modules()] == modes
    used.backward(np.ones((4, 5), np.float32))  # what the last forward kept is there
    PICTURES[name](used, None)  # type: ignore[arg-type]


def tiles(axes: Any) -> list[Array]:
    return [np.asarray(tile.get_array()) for tile in axes.images]


def test_activations_are_those_of_each_layer_in_the_written_order(used: tc.Sequential) -> None:
    figure = activations(used, image())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    order = "stem one.body.0 one.body.1 one.body.2 one.body.3 one two.0.body.0 two.0.body.1 two.0.body.2 "
    order += "two.0.body.3 two.0.shortcut two.0 two.1 two.2 two.3 pool"
    assert [title.split(":")[0] for title in titles] == ["image, (1, 3, 16, 16)", *order.split()]
    rows = {title.split(":")[0]: axes for title, axes in zip(titles, figure.axes, strict=True)}
    assert titles[12].startswith("two.0: Residual, (1, 8, 8, 8): 8 channels, ")
    x = image()[None]
    block_output = used[:2].predict(x)
    np.testing.assert_array_equal(tiles(rows["one"]), block_output[0])
    residual = used["two"].children["0"].predict(block_output)
    np.testing.assert_array_equal(tiles(rows["two.1"]), np.maximum(residual, 0)[0])
    np.testing.assert_array_equal(tiles(rows["two.2"]), F.max_pool2d(np.maximum(residual, 0), 2)[0])
    np.testing.assert_array_equal(tiles(rows["two.3"]), tiles(rows["two.2"]))  # dropout drops nothing
    np.testing.assert_allclose(tiles(rows["pool"]), used[:4].predict(x)[0], rtol=1e-6)


def test_activations_say_how_many_channels_are_not_drawn() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    model = tc.Conv2d(1, 20, 3, generator=0)
    _, axes = activations(model, image(1)[None]).axes
    assert axes.get_title(loc="left").startswith("Conv2d, (1, 20, 14, 14): the first 16 of 20 channels, ")
    assert len(axes.images) == 16


@pytest.mark.parametrize(
    ("shape", "says", "count"),
    [
        ((6, 1), "6 kernels, row by row", 6),
        ((300, 3), "the first 256 of 300 kernels, row by row", 256),
        ((2, 5), "2 output channels, 5 input channels", 10),
        ((20, 17), "the first 16 of 20 output channels, the first 16 of 17 input channels", 256),
    ],
)
def test_filters_are_drawn_and_counted(shape: tuple[int, int], says: str, count: int) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    layer = tc.Conv2d(shape[1], shape[0], (3, 2), generator=0)
    axes = filters(layer).axes[0]
    assert axes.get_title() == f"Conv2d, weight {(*shape, 3, 2)}\n{says}"
    drawn, weight = tiles(axes), layer.params["weight"]
    assert len(drawn) == count
    if shape[1] == 3:
        np.testing.assert_allclose(drawn[1], 0.5 + weight[1].transpose(1, 2, 0) / 2 / np.abs(weight).max())
    else:
        np.testing.assert_array_equal(drawn[1], weight[0, 1] if shape[1] > 1 else weight[1, 0])


def test_filters_of_a_model_are_those_of_its_first_convolution(used: tc.Sequential) -> None:
    nested = tc.Sequential(tc.ReLU(), tc.Sequential({"conv": tc.Conv2d(2, 2, 1)}), tc.Conv2d(2, 2, 1))
    assert filters(nested).axes[0].get_title().startswith("1.conv: Conv2d, weight (2, 2, 1, 1)\n")


def test_saliency_is_the_gradient_of_the_logit(used: tc.Sequential) -> None:
    _, heat, _, *_ = saliency(used, image(), 3).axes
    assert heat.get_title() == "|d logit 3 / d image|"
    x = image().astype(np.float64)[None]
    used.to(np.float64).eval()
    step = 1e-6
    for channel, row, column in ((0, 3, 4), (1, 3, 4), (2, 3, 4)):
        shift = np.zeros_like(x)
        shift[0, channel, row, column] = step
        slope = (used.predict(x + shift) - used.predict(x - shift))[0, 3] / (2 * step)
        assert abs(slope) <= tiles(heat)[0][row, column] * (1 + 1e-3)
    logits = used.forward(x)
    gradient = np.abs(used.backward(np.eye(5)[[3]]))[0].max(axis=0)
    np.testing.assert_allclose(tiles(heat)[0], gradient, rtol=1e-3, atol=1e-6)
    chosen = saliency(used, x[0]).axes
    assert f"read as {logits.argmax()} (" in chosen[0].get_title()
    assert chosen[1].get_title() == f"|d logit {logits.argmax()} / d image|"


def test_pictures_of_gradient_layers_leave_them_as_they_are() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    x = np.random.default_rng(0).standard_normal((1, 1, 5, 5)).astype(np.float32)
    model = tc.Sequential(gradient_steps(), tc.Flatten())
    model.params["0.0.step_size"][...] = 10
    gradients = []
    for look in (False, True):
        model.zero_grad()
        output = model.forward(x)
        if look:
            titles = [
                axes.get_title(loc="left").split(":")[0] for axes in activations(model, 2 * x).figure.axes
            ]
            assert titles == ["image, (1, 1, 5, 5)", "0.0", "0.1", "0.2.body", "0.2"]
            saliency(model, 2 * x)
        gradients.append([model.backward(np.ones_like(output)), *model.grads.values()])
    for without, with_pictures in zip(*gradients, strict=True):
        np.testing.assert_array_equal(without, with_pictures)


def test_a_gradient_of_zero_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    model = tc.Sequential(tc.Flatten(), tc.Linear(256, 2))
    model.load_state_dict({name: np.zeros_like(value) for name, value in model.params.items()})
    saliency(model, np.zeros((1, 16, 16), np.float32), path=tmp_path / "zero.png")


@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (2, 5)])
def test_the_scale_of_filters_is_that_of_the_finite_values(shape: tuple[int, int]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    layer = tc.Conv2d(shape[1], shape[0], 2, generator=0)
    weight = layer.params["weight"]
    weight[0, 0, 0], weight[1, 0] = [np.nan, np.inf], 0.25
    weight[1, 0, 0, 0] = -3
    axes = filters(layer).axes[0]
    assert f", 2 of {weight.size} values not finite\n" in axes.get_title()
    if shape[1] == 3:
        np.testing.assert_array_equal(tiles(axes)[0][0], 0)
        np.testing.assert_allclose(tiles(axes)[1][0, 0, 0], 0)
    else:
        assert axes.images[0].get_clim() == (-3, 3)
        assert axes.images[0].get_cmap().get_bad().tolist() == [0, 0, 0, 1]
    weight[...] = np.nan
    filters(layer)


def test_a_diverged_model_is_drawn_or_named(used: tc.Sequential, tmp_path: Path) -> None:
    used.params["one.body.0.weight"][...] = np.nan
    activations(used, image(), tmp_path / "activations.png")
    with pytest.raises(FloatingPointError, match=r"the gradient of logit 2 with respect to `image` is not"):
        saliency(used, image(), 2)
    used.params["one.body.0.weight"][...] = 0
    used.params["one.body.0.bias"][...] = [np.nan, np.nan, -2, 3]
    rows = {axes.get_title(loc="left").split(":")[0]: axes for axes in activations(used, image()).axes}
    assert rows["one.body.0"].images[0].get_clim() == (-2, 3)


def test_network_pictures_refuse_nonsense(used: tc.Sequential) -> None:
    with pytest.raises(ValueError, match=r"`layer_or_model` \(=ReLU\(\)\) must be a Conv2d or have one"):
        filters(tc.ReLU())
    with pytest.raises(TypeError, match=r"`layer_or_model` \(=None\) must be a Layer"):
        filters(None)  # type: ignore[arg-type]
    for picture in (activations, saliency):
        with pytest.raises(
            ValueError, match=r"`image` \(of shape \(16, 16\)\) must have the form \(C, H, W\)"
        ):
            picture(used, image()[0])
        with pytest.raises(ValueError, match=r"`image` \(of shape \(2, 3, 16, 16\)\) must"):
            picture(used, np.stack([image(), image()]))
        with pytest.raises(TypeError, match=r"`image` must be of dtype float32 or float64, got uint8"):
            picture(used, image().astype(np.uint8))
        with pytest.raises(ValueError, match=r"layer 'stem' \(Conv2d\): "):
            picture(used, image(1))
        with pytest.raises(TypeError, match=r"`model` \(=1\) must be a Layer"):
            picture(1, image())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`model` .* must have a layer with an output of the form"):
        activations(tc.Flatten(), image())
    with pytest.raises(
        ValueError, match=r"`model` must return \(1, classes\) for one image, not \(1, 4, 16, 16\)"
    ):
        saliency(used[:1], image())
    with pytest.raises(ValueError, match=r"`target_class` \(=5\) must be less than the 5 classes"):
        saliency(used, image(), 5)
    with pytest.raises(ValueError, match=r"`target_class` \(=-1\) must be at least 0"):
        saliency(used, image(), -1)
    broadcast = tc.Residual(tc.Conv2d(3, 1, 1))
    with pytest.raises(ValueError, match=r"`body` .* must give equal shapes"):
        activations(broadcast, image())


# Convolution as matrices


def numbers(figure: Any) -> dict[str, Array]:
    """Each matrix's numbers as they are drawn, by its name, in the shape that its title says."""
    found = {}
    for axes in figure.axes:
        name, shape = axes.get_title().rsplit("\n", 1)
        places = [text.get_position() for text in axes.texts]
        assert places == sorted(places, key=lambda place: (place[1], place[0]))
        values = np.array([float(text.get_text()) for text in axes.texts])
        sizes = shape[: shape.index(")")]
        found[name.split()[0]] = values.reshape(tuple(int(size) for size in re.findall(r"\d+", sizes)))
    return found


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((1, 1, 4, 4), (1, 1, 3, 3), 1, 1),
        ((1, 1, 4, 4), (2, 1, 2, 2), 1, 0),
        ((2, 2, 3, 3), (3, 2, 2, 1), (2, 1), (1, 0)),
        ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0),
    ],
)
def test_the_drawn_numbers_are_the_convolution_and_its_gradients(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: Any, padding: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-3, 4, shape).astype(np.float64) for shape in (size, kernel))
    figure = unfold_view(x, w, stride, padding, tmp_path / "view.png")
    drawn = numbers(figure)
    assert figure.axes[4].get_title().endswith("), chosen as 1, 2, 3, …")
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")
    output = F.conv2d(x, w, None, stride, padding)
    upstream = np.arange(1.0, 1.0 + output.size).reshape(output.shape)
    expected = {
        "input": x,
        "columns": F.unfold(x, kernel[2:], 1, padding, stride),
        "weight": w.reshape(len(w), -1),
        "output": output.reshape(*output.shape[:2], -1),
        "grad_output": upstream.reshape(*output.shape[:2], -1),
        "grad_weight": F.conv2d_weight(x, kernel, upstream, stride, padding).reshape(len(w), -1),
        "grad_columns": w.reshape(len(w), -1).T @ upstream.reshape(*output.shape[:2], -1),
        "grad_input": F.conv2d_input(size, w, upstream, stride, padding),
    }
    assert list(drawn) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(drawn[name], values, err_msg=name)


def test_a_window_and_its_gradient_are_framed_at_the_same_places() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    figure: Any = unfold_view(np.ones((1, 2, 4, 3)), np.ones((2, 2, 3, 2)))
    frames: list[Any] = [[patch.get_bbox().bounds for patch in axes.patches] for axes in figure.axes]
    image, columns, weight, output, grad_output, grad_weight, grad_columns, grad_image = frames
    assert weight == grad_weight == []
    assert image == grad_image == [(1, 1, 2, 3), (1, 6, 2, 3)]
    assert columns == grad_columns == [(3, 0, 1, 12)]
    assert output == grad_output == [(3, 0, 1, 2)]


def test_the_upstream_gradient_may_be_given() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    x, w, upstream = (np.full((1, 1, size, size), float(size)) for size in (3, 2, 2))
    figure = unfold_view(x, w, grad_output=upstream)
    np.testing.assert_array_equal(numbers(figure)["grad_output"], upstream.reshape(1, 1, 4))
    assert "chosen" not in figure.axes[4].get_title()
    with pytest.raises(ValueError, match=r"`grad_output` \(of shape \(1, 1, 3, 3\)\) must have the shape"):
        unfold_view(x, w, grad_output=x)
    with pytest.raises(TypeError, match="`grad_output`"):
        unfold_view(x, w, grad_output=upstream.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "texts", "units"),
    [
        ([0, -0.0, 1, -2.5], "0 0 1 -2.5", ""),
        ([-1080, 9999, 0.123, -0.001], "-1080 9999 0.12 0", ""),
        ([-9.999, 99.96, -99.94, 12.34], "-10 100 -99.9 12.3", ""),
        ([10800, -9999.6, 1, 0], "1.08 -1 0 0", ", in units of 10⁴"),
        ([0.05, -0.0123, 0, 0.001], "5 -1.23 0 0.1", ", in units of 10⁻²"),
        ([1e-320, 0, 0, 0], "0 0 0 0", ", in units of 10⁻³⁰⁰"),
        ([1.5e308, -1e308, 0, 0], "1.5 -1 0 0", ", in units of 10³⁰⁸"),
        ([np.nan, np.inf, -np.inf, 2e12], "nan inf -inf 2", ", in units of 10¹²"),
    ],
)
def test_numbers_are_short(values: list[float], texts: str, units: str) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    one = np.ones((1, 1, 1, 1))
    with np.errstate(all="ignore"):
        axes = unfold_view(
            np.array(values).reshape(1, 1, 1, 4), one, grad_output=np.zeros((1, 1, 1, 4))
        ).axes[0]
    assert " ".join(text.get_text() for text in axes.texts) == texts
    assert axes.get_title() == f"input\n(1, 1, 1, 4){units}"


def test_no_two_texts_overlap_in_the_view_and_every_number_fits_its_cell() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    rng = np.random.default_rng(0)
    for x, w in (
        (rng.normal(size=(1, 1, 4, 4)) * 1e-7, -rng.normal(size=(1, 1, 2, 2))),
        (rng.normal(size=(1, 1, 5, 3)), rng.normal(size=(5, 1, 1, 1))),
        (rng.normal(size=(2, 2, 3, 3)), rng.normal(size=(2, 2, 2, 2)) * 1e6),
        (np.full((1, 1, 3, 3), -8888.0), np.full((1, 1, 2, 2), -8.88)),
    ):
        figure = unfold_view(x, w)
        canvas: Any = figure.canvas
        renderer = canvas.get_renderer()
        texts = [text for axes in figure.axes for text in (axes.title, *axes.texts)] + figure.texts
        boxes: list[Any] = [text.get_window_extent(renderer).extents for text in texts]
        for a, b in combinations(boxes, 2):
            assert apart(a, b)
        page: Any = figure.bbox.extents
        for box in boxes:
            assert inside(box, page)
        for axes in figure.axes:
            cell = axes.bbox.width / axes.get_xlim()[1]
            assert all(text.get_window_extent(renderer).width < cell for text in axes.texts)


def test_what_cannot_be_read_or_does_not_fit_is_refused() -> None:
    one = np.ones((1, 1, 3, 3))
    with pytest.raises(
        ValueError, match=r"`input` \(of shape \(1, 1, 28, 28\)\) gives a matrix of shape .*18"
    ):
        unfold_view(np.ones((1, 1, 28, 28)), one)
    with pytest.raises(ValueError, match=r"`input` .* gives a matrix of shape \(1, 9, 25\), which must have"):
        unfold_view(np.ones((1, 1, 5, 5)), one, padding=1)
    with pytest.raises(ValueError, match=r"`weight` .* gives a matrix of shape \(20, 9\), which must have"):
        unfold_view(one, np.ones((20, 1, 3, 3)))
    with pytest.raises(ValueError, match=r"`input` .* gives a matrix of shape \(0, 1, 3, 3\)"):
        unfold_view(one[:0], one)
    with pytest.raises(ValueError, match=r"`input` \(of shape \(3, 3\)\) must have the form \(N, C, H, W\)"):
        unfold_view(one[0, 0], one)
    with pytest.raises(ValueError, match=r"channels"):
        unfold_view(np.ones((1, 2, 3, 3)), one)
    with pytest.raises(TypeError, match=r"`weight` \(of dtype float32\)"):
        unfold_view(one, one.astype(np.float32))
    with pytest.raises(ValueError, match=r"`stride` \(=0\) must be at least 1"):
        unfold_view(one, one, stride=0)


def test_the_example_prints_every_shape_and_agrees(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    printed = run(str(ROOT / "examples" / "unfold_view.py"), "--out", str(tmp_path / "view.png"))
    answer = "\n".join(printed.splitlines()[:5])
    assert answer.startswith("Why (784, 9, 784)?")
    assert "(grad_output @ columns.swapaxes(-2, -1)).sum(axis=0)" in answer
    assert re.search(r"columns\.T @ output +\(784, 9, 784\)", printed)
    for shape in ("(1, 1, 28, 28)", "(1, 9, 784)", "(1, 9)", "(1, 1, 784)", "(784, 9, 784)"):
        assert shape in printed
    differences = re.findall(r"differ by (\S+)", printed)
    assert len(differences) == 3
    assert all(float(difference) < 1e-11 for difference in differences)
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")


WITHOUT_MATPLOTLIB: dict[str, Callable[[], Any]] = {
    "filters": lambda: filters(tc.Conv2d(1, 2, 3)),
    "activations": lambda: activations(tc.Conv2d(1, 2, 3), image(1)),
    "saliency": lambda: saliency(tc.Sequential(tc.Flatten(), tc.Linear(256, 2)), image(1)),
    "unfold_view": lambda: unfold_view(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))),
    "training_report": lambda: training_report(
        tc.training.History(), np.ones((1, 2, 2)), np.zeros(1, int), np.ones((1, 2)), "report.png"
    ),
}


@pytest.mark.parametrize("name", WITHOUT_MATPLOTLIB)
def test_without_matplotlib_a_picture_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ["matplotlib", *(module for module in sys.modules if module.startswith("matplotlib."))]:
        monkeypatch.setitem(sys.modules, module, None)
    message = "pictures need matplotlib: pip install 'tinyconv[plots]'"
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        WITHOUT_MATPLOTLIB[name]()


def test_draw_needs_no_matplotlib() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import tinyconv, tinyconv.plots\n"
        "print(tinyconv.plots.draw(tinyconv.models.lenet5(), (1, 1, 28, 28))[:4])"
    )
    assert run("-c", code).strip() == "<svg"
