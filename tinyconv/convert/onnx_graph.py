"""Building of an ONNX graph with the onnx package's helpers."""

from typing import Any

import numpy as np

from tinyconv import __version__
from tinyconv.arrays import Array, moved
from tinyconv.convert.place import inside
from tinyconv.layers import Layer

OPSET = 18  # December 2022; onnxruntime supports it since 1.14
INPUT, OUTPUT = "input", "output"


class Graph:
    """Nodes and initializers, in the order in which they are added.

    Attributes:
        dtype: that of the input, the output and, by default, constants.
        place: that of the layer whose nodes are being added; their names begin with it.
        places: id of a layer of the model -> its place.
    """

    def __init__(self, onnx: Any, dtype: "np.dtype[Any]", places: dict[int, str]) -> None:
        self.dtype, self.place, self.places = dtype, "", places
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        name = inside(self.place, f"{op_type}_{len(self._nodes)}")
        node = self._onnx.helper.make_node(op_type, inputs, [name], name, **attributes)
        self._nodes.append(node)
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant, of the graph's dtype by default; return its name."""
        name = inside(self.place, f"constant_{len(self._initializers)}")
        return self._initializer(name, np.asarray(value, self.dtype if dtype is None else dtype))

    def integers(self, *values: int) -> str:
        """Add a constant vector of int64; return its name."""
        return self.constant(values, np.int64)

    def state(self, layer: Layer, name: str) -> str:
        """Add a parameter or buffer of the layer in `place`, under its name in the model's state."""
        value = {**layer.params, **layer.buffers}[name]
        return self._initializer(inside(self.place, name), moved(value, np))

    def _initializer(self, name: str, value: Array) -> str:
        value = np.array(value, order="C")
        self._initializers[name] = self._onnx.numpy_helper.from_array(value, name)
        return name

    def model(self, output: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> bytes:
        """Return the checked file's content; the first dimension of both shapes is dynamic.

        Raises:
            ValueError: onnx rejects the graph.
        """
        helper = self._onnx.helper
        if output == INPUT:
            output = self.node("Identity", INPUT)
        self._nodes[-1].output[0] = OUTPUT
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        ends = [
            [helper.make_tensor_value_info(name, kind, ["batch", *shape[1:]])]
            for name, shape in ((INPUT, input_shape), (OUTPUT, output_shape))
        ]
        graph = helper.make_graph(self._nodes, "tinyconv", *ends, list(self._initializers.values()))
        producer = {"producer_name": "tinyconv", "producer_version": __version__}
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model_gen_version(graph, opset_imports=opsets, **producer)
        try:
            self._onnx.checker.check_model(model, full_check=True)
        except (self._onnx.checker.ValidationError, self._onnx.shape_inference.InferenceError) as error:
            raise ValueError(f"onnx refuses the graph of `model`: {error}") from error
        content: bytes = model.SerializeToString(deterministic=True)
        return content
