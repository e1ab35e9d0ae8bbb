"""Sphinx's configuration: pages in Markdown, a reference from the docstrings, a gallery from the examples.

    python -m sphinx -W --keep-going -b html docs build/docs

The reference and the gallery are written to docs/reference and docs/gallery during the build. Neither the
build nor the site, which has a copy of MathJax, needs a network.
"""

import ast
import inspect
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import indent
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
EXAMPLES = ROOT / "examples"
PICTURES = Path(tempfile.gettempdir()) / f"tinyconv-gallery-{os.getpid()}"

# For this process and for the kernels that run the pages' code.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(EXAMPLES)])
os.environ["TINYCONV_DATA"] = str(EXAMPLES / "data" / "mnist")
os.environ["COLUMNS"] = "100"  # the width of `--help`

project = "tinyconv"
copyright = "the tinyconv contributors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
]
suppress_warnings = ["config.cache"]  # functions below cannot be pickled, so each build reads all pages
html_theme = "furo"
html_title = "tinyconv"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

add_module_names = False
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
napoleon_custom_sections = [(section, "params_style") for section in ("Args", "Attributes")]  # as plain lists
napoleon_use_rtype = False
python_use_unqualified_type_names = True


# The reference: file, title, the module that users import the names from, and where they are defined.
LAYERS, FUNCTIONS = "tinyconv", "tinyconv.functional"
REFERENCE = (
    (
        "layer",
        "Layers: the base class, parameters, Sequential",
        LAYERS,
        "layers.layer layers.attributes layers.sequential",
    ),
    (
        "layers_convolution",
        "Layers: convolutions and linear maps",
        LAYERS,
        "layers.conv layers.unfold layers.linear",
    ),
    ("layers_activation", "Layers: activations", LAYERS, "layers.activation"),
    ("layers_normalization", "Layers: norms and dropout", LAYERS, "layers.norm layers.dropout"),
    ("layers_pooling", "Layers: pooling", LAYERS, "layers.pool"),
    ("layers_shape", "Layers: padding and shapes", LAYERS, "layers.pad layers.shape"),
    ("layers_branches", "Layers: branches, shared layers", LAYERS, "layers.branches layers.shared"),
    ("layers_losses", "Layers: losses", LAYERS, "layers.loss"),
    ("convolution", "Functions: convolutions", FUNCTIONS, "functional.conv.conv2d functional.conv"),
    ("sequences", "Functions: sequences", FUNCTIONS, "functional.one_row"),
    ("linear", "Functions: linear maps", FUNCTIONS, "functional.linear"),
    ("pooling", "Functions: pooling", FUNCTIONS, "functional.pooling"),
    (
        "activation",
        "Functions: activations",
        FUNCTIONS,
        "functional.activation functional.hard functional.gelu functional.prelu functional.softmax",
    ),
    ("normalization", "Functions: norms", FUNCTIONS, "functional.normalization"),
    ("dropout", "Functions: dropout", FUNCTIONS, "functional.dropout"),
    ("losses", "Functions: losses", FUNCTIONS, "functional.losses"),
    (
        "shapes",
        "Functions: padding, sizes and layouts",
        FUNCTIONS,
        "functional.pad functional.interpolate functional.pixel_shuffle functional.shape",
    ),
    (
        "gradients",
        "Gradients: checks, diagnoses, the second order",
        "tinyconv",
        "gradients.gradcheck gradients.diagnose gradients",
    ),
    ("testing", "Testing", "tinyconv.testing", "testing"),
    ("vectors", "Test vectors", "tinyconv.vectors", "vectors"),
    ("reference", "The operations as plain loops", "tinyconv.reference", "reference"),
    ("optim", "Optimisers and schedules", "tinyconv.optim", "optim.optimizers optim.schedules"),
    ("training", "Training", "tinyconv.training", "training.trainer training.run training"),
    ("data", "Data", "tinyconv.data", "data.mnist data.loader data"),
    ("init", "First values of parameters", "tinyconv.init", "init"),
    ("models", "Networks", "tinyconv.models", "models"),
    ("convert", "Conversion", "tinyconv", "convert"),
    ("plots", "Pictures", "tinyconv.plots", "plots"),
)


def public_names(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the classes and functions that users import from `module`."""
    public = import_module(module)
    for name in getattr(public, "__all__", dir(public)):
        value = getattr(public, name)
        documented = inspect.isclass(value) or inspect.isfunction(value)
        if documented and not name.startswith("_") and value.__module__.startswith(module):
            yield name, value


@cache
def families(module: str, homes: str) -> dict[str, list[str]]:
    """Return the names of `module` by the module that defines them, of those in `homes`."""
    found: dict[str, list[str]] = {}
    for home in homes.split():
        for name, value in public_names(module):
            if not f"{value.__module__}.".startswith(f"tinyconv.{home}."):
                continue
            names = found.setdefault(value.__module__, [])
            if name not in names:
                names.append(name)
    return {home: sorted(names, key=lambda name: line(module, name)) for home, names in found.items()}


def line(module: str, name: str) -> int:
    """Return the line of a file in which `name` is defined."""
    return inspect.getsourcelines(inspect.unwrap(getattr(import_module(module), name)))[1]


def reference_page(title: str, module: str, homes: str) -> str:
    """Return a page of the reference: for each family what its module says, a table, and all names."""
    lines = [title, "=" * len(title), ""]
    for home, names in families(module, homes).items():
        heading = home.removeprefix("tinyconv.")
        lines += [heading, "-" * len(heading), "", f".. automodule:: {home}", "   :no-index:", ""]
        lines += [f".. currentmodule:: {module}", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {name}" for name in names] + [""]
        for name in names:
            isclass = inspect.isclass(getattr(import_module(module), name))
            lines += (
                [".. autoclass:: " + name, "   :members:", ""]
                if isclass
                else [".. autofunction:: " + name, ""]
            )
    return "\n".join(lines)


def write_reference(app: Any) -> None:
    """Write the pages of the reference, those that have changed."""
    for file, title, module, homes in REFERENCE:
        path, text = DOCS / "reference" / f"{file}.rst", reference_page(title, module, homes)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# Docstrings are plain text: `code` in single backticks, and indented formulas. Sphinx reads reStructuredText.


def as_rst(text: str) -> str:
    """Return a docstring as reStructuredText: formulas as literal blocks, code in double backticks."""
    blocks, section = [], False
    for block in re.split(r"\n\s*\n", text):
        first, *rest = block.splitlines() or [""]
        heading = re.fullmatch(r"(Args|Returns|Raises|Attributes):", first)
        section = bool(heading) or (section and first.startswith(" "))
        indented = first.startswith(" ") or (first[:2] != "- " and any(line.startswith(" ") for line in rest))
        equation = re.match(r"\w+'?(\[[^\]]*\])? = ", first) and "`" not in block
        if first.startswith(">>>"):
            blocks.append(block)
        elif first.startswith("Source:"):
            blocks.append(inline(" ".join(part.strip() for part in block.splitlines())))
        elif not section and (indented or equation):
            blocks.append(".. code-block:: text\n\n" + indent(block, "    "))
        else:
            blocks.append(inline(block))
    return "\n\n".join(blocks)


def inline(text: str) -> str:
    """Return running text with `code` in double backticks, and without other markup than **bold**."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"(?<!\*)\*(?!\*)|\||(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def short_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> Any:
    """Return a signature with NumPy's `DTypeLike` by its name, and classes as a user writes them."""
    from numpy.typing import DTypeLike
    from sphinx.util.typing import stringify_annotation

    signature = (signature or "").replace(stringify_annotation(DTypeLike, "smart"), "DTypeLike")
    return re.sub(r"<class '([\w.]+)'>", r"\1", signature) or None, returns


def docstring_as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring before napoleon reads its sections; drop those of the fields of named tuples."""
    text = "\n".join(lines)
    lines[:] = [] if text.startswith("Alias for field number") else as_rst(text).splitlines()


# The gallery: each example is run, most of them for a shorter time than by default, and their pictures shown.

SHORT = {
    "autoencoder": "--epochs 3 --subset 10000 --out OUT",
    "dcgan": "--epochs 3 --subset 12000 --out OUT",
    "hessian_eigenvalues": "--images 5000",
    "mnist": "--epochs 1 --subset 10000",
    "pytorch_mnist": "--epochs 1 --subset 3000 --log-interval 20",
    "unfold_view": "--out OUT/view.png",
    "unrolled_restoration": "--epochs 3 --images 1000 --out OUT/digits.png",
    "wgan_gp": "--steps 800 --out OUT",
}


def short_options(gallery_conf: Any, script_vars: dict[str, Any]) -> list[str]:
    """Return the options of an example in the gallery, which needs its `__file__` to find the data."""
    script_vars["example_globals"]["__file__"] = script_vars["src_file"]
    return SHORT.get(Path(script_vars["src_file"]).stem, "").replace("OUT", str(PICTURES)).split()


def pictures(block: Any, block_vars: dict[str, Any], gallery_conf: Any) -> str:
    """Move the pictures that an example has written into the gallery."""
    from sphinx_gallery.scrapers import figure_rst

    paths = []
    for picture in sorted(PICTURES.glob("*.png")):
        paths.append(next(block_vars["image_path_iterator"]))
        Path(paths[-1]).write_bytes(picture.read_bytes())
        picture.unlink()
    return figure_rst(paths, gallery_conf["src_dir"])


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "reset_argv": short_options,
    "image_scrapers": (pictures,),
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,
    "remove_config_comments": True,
    "show_signature": False,
    "download_all_examples": False,
    "notebook_extensions": set(),
}


# What the pages say of files of the repository.


PAGES_OF_FILES = {
    r"examples": "/gallery/index.rst",
    r"examples/(\w+)\.py": r"/gallery/\1.rst",
    r"examples/kernel/README\.md": "/how_to/kernel_in_c.md",
    r"benchmarks/RESULTS\.md": "/project/results.md",
    r"tinyconv/reference": "/reference/reference.rst",
    r"CHANGELOG\.md": "/project/changelog.md",
    r"CONTRIBUTING\.md": "/project/contributing.md",
}


def site_source(app: Any, docname: str, source: list[str]) -> None:
    """Adapt a page's source: links into the repository, and the docstring of an example.

    A link to a file that defines public names leads to their page. Sphinx copies other files.
    """
    if docname.startswith("gallery/") and docname != "gallery/index":
        source[0] = example_page(docname, source[0])
        return
    for file, page in PAGES_OF_FILES.items():
        source[0] = re.sub(rf"\]\((?:\.\./)+{file}(?=[)#])", rf"]({page}", source[0])
    for file, _, module, homes in REFERENCE:
        for home in families(module, homes):
            path = home.replace(".", "/")
            source[0] = re.sub(rf"\]\((?:\.\./)+{path}\.py(?=\))", f"](/reference/{file}.rst", source[0])


def example_page(docname: str, text: str) -> str:
    """Return the gallery's page of an example with its docstring as reStructuredText, and a title."""
    name = Path(docname).name
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))) or ""
    title = re.split(r"(?<=\?) |: |\.$", docstring.splitlines()[0])[0]
    command = f"python examples/{name}.py {SHORT.get(name, '')}".strip()
    page = [
        title,
        "=" * len(title),
        "",
        as_rst(docstring),
        "",
        f"What follows is the output of ``{command}``.",
    ]
    return text.replace(docstring, "\n".join(page))


def before_the_gallery(app: Any) -> None:
    """Draw the picture of examples that have none; leave out folders with a README in Markdown.

    BLAS has one thread from now on, here and in the kernels: its own threads would wait for each other
    wherever another program keeps a core busy.
    """
    import tinyconv as tc
    from tinyconv.arrays import one_blas_thread

    one_blas_thread().__enter__()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    kernels = PICTURES / "default" / "kernels.png"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    tc.plots.image_grid(tc.models.lenet5(pretrained=True).params["0.weight"], 3, kernels)
    app.config.sphinx_gallery_conf["default_thumb_file"] = str(kernels)
    app.config.sphinx_gallery_conf["source_suffix"] = {".rst": "restructuredtext"}


def remove_pictures(app: Any, exception: Exception | None) -> None:
    """Remove the folder of the examples' pictures, which are in the gallery now."""
    shutil.rmtree(PICTURES, ignore_errors=True)


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("builder-inited", before_the_gallery, priority=50)
    app.connect("builder-inited", write_reference, priority=100)
    app.connect("autodoc-process-docstring", docstring_as_rst, priority=100)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("source-read", site_source)
    app.connect("build-finished", remove_pictures)
