"""PyTorch's own lists of samples, walked in full: OpInfo for the functions, ModuleInfo for the layers.

Every sample runs through PyTorch and through ours; values, shapes, dtypes, gradients, and what either
writes into its arguments must agree. Every listed error must be refused by both. What the API cannot
express is left out by the rules of `skip_reason` and counted, never by name; what differs by more than the
tolerance, but is only rounding by the rule of `is_rounding`, is counted as well. The table of the counts is
printed at the end of the run, by conftest.py.
"""

import copy
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyconv
import tinyconv.functional as F
from tests.compare import assert_close, both_refuse
from tinyconv.arrays import Array

# The arguments whose gradients our backward returns, in this order: PyTorch's operators.
_FUNCTIONS = {
    "input weight bias": "conv1d conv2d conv_transpose2d linear batch_norm layer_norm group_norm "
    "instance_norm conv_transpose1d",
    "input target": "mse_loss l1_loss smooth_l1_loss cross_entropy nll_loss binary_cross_entropy "
    "binary_cross_entropy_with_logits huber_loss kl_div",
    "input1 input2 target": "margin_ranking_loss",
    "input1 input2": "cosine_embedding_loss",
    "anchor positive negative": "triplet_margin_loss",
    "input weight": "prelu",
    "input": "relu6 hardtanh hardswish selu mish normalize pixel_shuffle pixel_unshuffle "
    "max_pool1d avg_pool1d adaptive_max_pool2d "
    "unfold avg_pool2d adaptive_avg_pool2d max_pool2d max_unpool2d relu leaky_relu elu gelu silu "
    "softplus pad interpolate upsample_nearest upsample_bilinear dropout dropout2d hinge_embedding_loss",
}
OPERATORS = {
    f"nn.functional.{name}": tuple(gradients.split())
    for gradients, names in _FUNCTIONS.items()
    for name in names.split()
} | dict.fromkeys(("sigmoid", "tanh", "softmax", "log_softmax", "flatten", "unflatten"), ("input",))

# The variants that are ours, where not all are; the same operator under another name.
VARIANTS = {"nn.functional.interpolate": ("nearest", "nearest-exact", "linear", "bilinear", "trilinear")}
RENAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "nn.functional.upsample_nearest": ("interpolate", {"mode": "nearest"}),
    "nn.functional.upsample_bilinear": ("interpolate", {"mode": "bilinear", "align_corners": True}),
}

_MODULES = """
    Conv1d Conv2d ConvTranspose1d ConvTranspose2d Linear
    AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d MaxPool2d MaxPool1d AvgPool1d
    BatchNorm1d BatchNorm2d LayerNorm GroupNorm InstanceNorm2d
    ReLU6 Hardtanh Hardswish SELU Mish PReLU
    ReLU LeakyReLU ELU GELU SiLU Softplus Sigmoid Tanh Softmax LogSoftmax
    MSELoss L1Loss SmoothL1Loss CrossEntropyLoss NLLLoss BCELoss BCEWithLogitsLoss
    HuberLoss KLDivLoss HingeEmbeddingLoss MarginRankingLoss CosineEmbeddingLoss
    ZeroPad2d ConstantPad2d ReflectionPad2d ReplicationPad2d CircularPad2d
"""
MODULES = _MODULES.split()


@cache
def pytorch() -> Any:
    """PyTorch (torch) and its lists (op_db, module_db)."""
    reason = "PyTorch and what its own tests import (expecttest, hypothesis) are the oracle"
    names = ("torch", *(f"torch.testing._internal.common_{m}" for m in ("methods_invocations", "modules")))
    torch, operators, modules = (pytest.importorskip(name, reason=reason) for name in names)
    return SimpleNamespace(torch=torch, op_db=operators.op_db, module_db=modules.module_db)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The samples are so small that PyTorch's threads would only wait for each other."""
    torch = pytorch().torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Case(NamedTuple):
    """One sample: how to show it, why it is left out (None if it is not), and its check.

    The check says whether the sample agrees up to rounding only; it raises if it does not agree.
    """

    label: str
    skip: str | None
    check: Callable[[], bool]


# From PyTorch's values to ours


def to_numpy(value: Any) -> Any:
    """The same for ours: a copy of each tensor with its strides, NumPy's dtypes, plain tuples."""
    torch = pytorch().torch
    if isinstance(value, torch.Tensor):
        return copy.deepcopy(value.detach()).numpy()
    if isinstance(value, torch.dtype):
        return np.dtype(str(value).removeprefix("torch."))
    if isinstance(value, (tuple, list)):
        return (list if isinstance(value, list) else tuple)(map(to_numpy, value))
    return {key: to_numpy(v) for key, v in value.items()} if isinstance(value, dict) else value


def is_tensor(value: Any) -> bool:
    return isinstance(value, pytorch().torch.Tensor)


def shown(args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
    """The arguments of a sample in short: a tensor as its dtype and shape."""
    named = [*(("", value) for value in args), *((f"{key}=", value) for key, value in kwargs.items())]
    return ", ".join(
        f"{name}{str(v.dtype)[6:]}{list(v.shape)}" if is_tensor(v) else f"{name}{v}" for name, v in named
    )


def skip_reason(inputs: Iterable[Any]) -> str | None:
    """Why the API cannot express a sample with these inputs, if it cannot."""
    torch = pytorch().torch
    tensors = [value for value in inputs if is_tensor(value)]
    for tensor in tensors:
        if tensor.layout != torch.strided:
            return str(tensor.layout)
        if tensor.dtype not in (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool):
            return str(tensor.dtype)  # complex, quantised, half precision
    return None if tensors else "no input"


def results(outputs: Any, tensors: Mapping[str, Any], cotangent: Array) -> dict[str, Array]:
    """PyTorch's outputs, and its gradients of the first one by the `tensors` that it depends on."""
    torch = pytorch().torch
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    upstream = torch.tensor(cotangent).to(outputs[0].dtype)
    grads = torch.autograd.grad(outputs[0], list(tensors.values()), upstream, allow_unused=True)
    found = {f"output {i}": to_numpy(output) for i, output in enumerate(outputs)}
    found |= {
        f"gradient with respect to `{name}`": to_numpy(g)
        for name, g in zip(tensors, grads, strict=True)
        if g is not None
    }
    assert len(found) > len(outputs), "PyTorch gives no gradient"
    return found


def doubled(value: Any) -> Any:
    """A tensor of float32 in float64; anything else as it is."""
    if not is_tensor(value) or value.dtype != pytorch().torch.float32:
        return value
    return value.detach().double().requires_grad_(value.requires_grad)


def compare_all(
    ours: dict[str, Any], theirs: dict[str, Array], exactly: Callable[[], dict[str, Array]], cotangent: Array
) -> bool:
    """Compare all that PyTorch gives, and say whether some of it agrees up to rounding only.

    `exactly` gives the same in float64.
    """
    rounded = False
    for name, expected in theirs.items():
        assert ours.get(name) is not None, f"no {name}"
        try:
            assert_close(ours[name], expected, name)
        except AssertionError:
            cancelling = 0.0 if name.startswith("output") else abs(cotangent).max()
            if not is_rounding(ours[name], expected, exactly()[name], cancelling):
                raise
            rounded = True
    return rounded


def is_rounding(actual: Array, expected: Array, exact: Array, cancelling: float) -> bool:
    """Whether a difference is one of rounding: where terms cancel, PyTorch's own result is off as well.

    Then ours must not be off by more than twice as much, plus 8 roundings of the terms that cancel: in a
    gradient they are as large as the cotangent.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    allowed = 2 * abs(expected - exact).max() + 8 * np.finfo(expected.dtype).eps * cancelling
    return bool(abs(actual - exact).max() <= allowed)


def random_cotangent(outputs: Any) -> Array:
    """What is handed back for the first output."""
    output = outputs[0] if isinstance(outputs, tuple) else outputs
    return np.asarray(np.random.default_rng(9).standard_normal(output.shape), output.dtype)


def quietly(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The call, without PyTorch's warnings (ours are errors here)."""
    with warnings.catch_warnings(action="ignore"):
        return call(*args, **kwargs)


# The functions


def ours(operator: str, suffix: str = "") -> Callable[..., Any]:
    """Our function for PyTorch's operator, or with "_backward" its backward."""
    name, options = RENAMED.get(operator, (operator.rpartition(".")[2], {}))
    return partial(getattr(F, name + suffix), **options)


def variants(operator: str) -> list[Any]:
    """PyTorch's entries of this operator."""
    entries = [op for op in pytorch().op_db if op.name == operator]
    return [op for op in entries if op.variant_test_name in VARIANTS.get(operator, (op.variant_test_name,))]


def check_sample(op: Any, sample: Any) -> bool:
    """Compare the output, the gradients, and the arguments afterwards."""
    forward, backward = ours(op.name), ours(op.name, "_backward")
    parameters = inspect.signature(forward).parameters
    inputs = (sample.input, *sample.args)
    options = {key: v for key, v in sample.kwargs.items() if key in parameters or v is not None}
    args, kwargs = to_numpy(inputs), to_numpy(options)
    outputs = forward(*args, **kwargs)
    cotangent = random_cotangent(outputs)

    def theirs(convert: Callable[[Any], Any]) -> dict[str, Array]:
        values, keywords = [convert(v) for v in inputs], {k: convert(v) for k, v in sample.kwargs.items()}
        named = {**dict(zip(parameters, values, strict=False)), **keywords}
        wanted = {name: v for name, v in named.items() if is_tensor(v) and v.requires_grad}
        return results(quietly(op, *values, **keywords), wanted, cotangent)

    expected = theirs(lambda value: value)
    grads = backward(cotangent, *args, **{k: v for k, v in kwargs.items() if k != "return_indices"})
    by_name = zip(OPERATORS[op.name], grads if isinstance(grads, tuple) else (grads,), strict=True)
    actual = {f"gradient with respect to `{name}`": grad for name, grad in by_name}
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    actual |= {f"output {i}": output for i, output in enumerate(outputs)}
    rounded = compare_all(actual, expected, partial(theirs, doubled), cotangent)
    for array, value in zip((*args, *kwargs.values()), (*inputs, *options.values()), strict=True):
        if is_tensor(value):
            assert_close(array, to_numpy(value), "argument afterwards")
    return rounded


def check_dropout(op: Any, sample: Any) -> bool:
    """Compare what is not random; where it is, what each side keeps must be input / (1 - p)."""
    p, training, x = sample.kwargs.get("p", 0.5), sample.kwargs.get("training", True), to_numpy(sample.input)
    layer = getattr(tinyconv, "Dropout2d" if op.name.endswith("2d") else "Dropout")(p, generator=0)
    output = layer.train(training).forward(x)
    assert_close(ours(op.name)(x, p, training, generator=0), output, "function and layer")
    cotangent = random_cotangent(output)
    found = results(quietly(op, sample.input, **sample.kwargs), {"input": sample.input}, cotangent)
    expected, expected_grad = found.values()
    grad = layer.backward(cotangent)
    if not training or p in (0, 1):
        assert_close(output, expected, "output")
        assert_close(grad, expected_grad, "gradient")
        return False
    for values, grads in ((output, grad), (expected, expected_grad)):
        kept = values != 0
        if op.name.endswith("2d"):
            inside = tuple(range(2, x.ndim))
            np.testing.assert_array_equal(kept.all(inside), kept.any(inside), "whole channels")
        assert_close(values, np.where(kept, x / (1 - p), 0), "output")
        assert_close(grads, np.where(kept, cotangent / (1 - p), 0), "gradient")
    return False


def check_error(op: Any, error: Any) -> bool:
    """Both refuse; our message names an argument."""
    args, kwargs = (error.sample_input.input, *error.sample_input.args), error.sample_input.kwargs
    our = partial(ours(op.name), *to_numpy(args), **to_numpy(kwargs))
    both_refuse(our, partial(quietly, op, *args, **kwargs), r"`\w+`")
    return False


def op_samples(operator: str, dtype: Any) -> Iterator[Case]:
    """All samples of all variants of an operator."""
    check = check_dropout if "dropout" in operator else check_sample
    for op in variants(operator):
        if dtype in op.dtypes:
            for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
                args, kwargs = (sample.input, *sample.args), sample.kwargs
                label = f"{op.variant_test_name}({shown(args, kwargs)})"
                yield Case(label, skip_reason([*args, *kwargs.values()]), partial(check, op, sample))


def op_errors(operator: str) -> Iterator[Case]:
    """All listed errors of an operator."""
    for op in variants(operator):
        for error in op.error_inputs("cpu") if op.error_inputs_func else ():
            sample = error.sample_input
            label = f"{operator}({shown((sample.input, *sample.args), sample.kwargs)})"
            yield Case(label, None, partial(check_error, op, error))


# The layers and losses


def build(module: str, constructor: Any, dtype: Any) -> Any:
    """Our layer or loss with the arguments of PyTorch's."""
    kind = getattr(tinyconv, module)
    own = {"dtype": to_numpy(dtype)} if "dtype" in inspect.signature(kind).parameters else {}
    return kind(*to_numpy(constructor.args), **to_numpy(constructor.kwargs), **own)


def module_info(module: str) -> Any:
    """PyTorch's entry of this module."""
    return next(info for info in pytorch().module_db if info.name == f"nn.{module}")


def forward_inputs(entry: Any) -> list[Any]:
    """What forward is given; its one keyword is the input. Of a tensor that is given twice, a copy."""
    if not entry.forward_input:
        return []
    inputs: list[Any] = [*entry.forward_input.args, *entry.forward_input.kwargs.values()]
    return inputs[:1] + [copy.deepcopy(v.detach()) if v is inputs[0] else v for v in inputs[1:]]


def check_module(info: Any, entry: Any, dtype: Any, training: bool) -> bool:
    """Compare the output, the gradients of the input and the parameters, and the buffers afterwards."""
    constructor, inputs = entry.constructor_input, forward_inputs(entry)
    layer = build(info.name[3:], constructor, dtype)
    theirs = quietly(info.module_cls, *constructor.args, **constructor.kwargs).to(dtype).train(training)
    if isinstance(layer, tinyconv.Layer):
        layer.train(training).load_state_dict(to_numpy(dict(theirs.state_dict())))
    double = copy.deepcopy(theirs).double()
    outputs = layer.forward(*to_numpy(inputs))
    cotangent, names = random_cotangent(outputs), getattr(layer, "inputs", ("input",))

    def run(module: Any, inputs: Sequence[Any]) -> dict[str, Array]:
        tensors = {**dict(zip(names, inputs, strict=False)), **dict(module.named_parameters())}
        return results(quietly(module, *inputs), tensors, cotangent)

    expected = run(theirs, inputs)
    grads = layer.backward(cotangent)
    by_name = zip(names, grads if isinstance(grads, tuple) else (grads,), strict=True)
    actual = {f"gradient with respect to `{name}`": grad for name, grad in by_name}
    if isinstance(layer, tinyconv.Layer):
        actual |= {f"gradient with respect to `{name}`": grad for name, grad in layer.grads.items()}
        assert list(layer.grads) == [name for name, _ in theirs.named_parameters()]
        for name, buffer in theirs.named_buffers():
            assert_close(layer.buffers[name], to_numpy(buffer), f"buffer `{name}`")
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    actual |= {f"output {i}": output for i, output in enumerate(outputs)}
    return compare_all(actual, expected, lambda: run(double, [doubled(value) for value in inputs]), cotangent)


def check_module_error(info: Any, error: Any, dtype: Any) -> bool:
    """Both refuse, ours no later than PyTorch's; our message names an argument."""
    entry = error.module_error_input
    constructor, inputs = entry.constructor_input, forward_inputs(entry)
    constructs = error.error_on.name == "CONSTRUCTION_ERROR"

    def theirs() -> Any:
        module = info.module_cls(*constructor.args, **constructor.kwargs)
        return constructs or module(*inputs)

    def our() -> Any:
        layer = build(info.name[3:], constructor, dtype)
        return constructs or layer.forward(*to_numpy(inputs))

    both_refuse(our, partial(quietly, theirs), r"`\w+`")
    return False


def module_samples(module: str, dtype: Any) -> Iterator[Case]:
    """All samples of a module, in training and in evaluation."""
    info = module_info(module)
    form = {"device": "cpu", "dtype": dtype, "requires_grad": True}
    for training in (True, False):
        for entry in info.module_inputs_func(info, **form, training=training):
            constructor, inputs = entry.constructor_input, forward_inputs(entry)
            label = f"({shown(constructor.args, constructor.kwargs)})({shown(inputs, {})}), {training=}"
            skip = skip_reason([*inputs, *constructor.args, *constructor.kwargs.values()])
            yield Case(label, skip, partial(check_module, info, entry, dtype, training))


def module_errors(module: str) -> Iterator[Case]:
    """All listed errors of a module."""
    info, dtype = module_info(module), pytorch().torch.float32  # of the modules
    form = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": True}
    for error in info.module_error_inputs_func(info, **form) if info.module_error_inputs_func else ():
        entry = error.module_error_input
        constructor = shown(entry.constructor_input.args, entry.constructor_input.kwargs)
        label = f"{module}({constructor})({shown(forward_inputs(entry), {})})"
        yield Case(label, None, partial(check_module_error, info, error, dtype))


# The tests

NAMES: dict[str, Iterable[str]] = {"OpInfo": OPERATORS, "ModuleInfo": MODULES}
SAMPLES = {"OpInfo": op_samples, "ModuleInfo": module_samples}
ERRORS = {"OpInfo": op_errors, "ModuleInfo": module_errors}


def walk(cases: Sequence[Case], record: Callable[[str, object], None], **where: str) -> list[str]:
    """Run the cases' checks, record the counts for conftest.py's table, and return what failed."""
    skipped = Counter(case.skip for case in cases if case.skip)
    failures, rounding = [], 0
    for case in cases:
        try:
            if not case.skip:
                rounding += case.check()
        except (Exception, pytest.fail.Exception) as error:
            message = " ".join(str(error).split())[:400]
            failures.append(f"{case.label}\n    {type(error).__name__}: {message}")
    listed = len(cases) - skipped.total()
    counts = {
        "listed": listed,
        "passed": listed - len(failures),
        "rounding": rounding,
        "skipped": dict(skipped),
    }
    record("pytorch samples", {**where, **counts})
    return failures


def listed(generate: Callable[..., Iterable[Case]], *args: Any) -> list[Case]:
    """The cases, the same in every run."""
    pytorch().torch.manual_seed(0)
    return quietly(list, generate(*args))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in NAMES for name in NAMES[table]])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_agrees_on_pytorchs_samples(table: str, name: str, dtype: str, record_property: Any) -> None:
    cases = listed(SAMPLES[table], name, getattr(pytorch().torch, dtype))
    assert not all(case.skip for case in cases), "no sample to check"
    failures = walk(cases, record_property, table=table, operator=name, column=dtype)
    assert not failures, "\n".join([f"{len(failures)} samples differ:", *failures[:5]])


@pytest.mark.parametrize("table", NAMES)
def test_refuses_pytorchs_error_inputs(table: str, record_property: Any) -> None:
    failures = []
    for name in NAMES[table]:
        if cases := listed(ERRORS[table], name):
            failures += walk(cases, record_property, table=table, operator=name, column="error inputs")
    assert not failures, "\n".join([f"{len(failures)} errors differ:", *failures[:5]])
