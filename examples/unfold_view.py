"""Why is my weight gradient of shape (784, 9, 784)? A convolution is a linear layer over its windows.

`unfold` copies every window of an image into a column. For a 28x28 image and a 3x3 kernel, padding 1, there
are L = 784 windows of C * KH * KW = 9 values. To the kernel each window is one sample, as to a linear layer:

    columns = unfold(input)                                    (N, 9, 784)
    output  = W @ columns                         (O, 9) @ (N, 9, 784) = (N, O, 784), that is (N, O, 28, 28)

A linear layer has the same weights for all samples, so its weight's gradient is a sum over the samples. Here
they are the windows of all images, and the sum is over positions l and images n; the matrix product does it:

    grad_W       = sum over n of grad_output[n] @ columns[n].T          (O, 784) @ (784, 9) = (O, 9)
    grad_columns = W.T @ grad_output                              (9, O) @ (N, O, 784) = (N, 9, 784)
    grad_input   = fold(grad_columns)                                                (N, 1, 28, 28)

The shape (784, 9, 784) comes from a product without that sum: grad_output as (784, 1, 1) times columns
(1, 9, 784) broadcasts to every position's gradient with every position's window. Only the pairs of one and
the same position belong together, and they are to be added up: 784 of the 784 * 784 pairs.

    python examples/unfold_view.py                   the shapes, and the check against conv2d's gradients
    python examples/unfold_view.py --out view.png    a picture of all matrices for a 3x3 image, a 2x2 kernel
                                                     and a grad_output of 1 ... 4: docs/convolution.svg
"""

import argparse

import numpy as np

import tinyconv.functional as F
from tinyconv.arrays import Array

KERNEL, PADDING = 3, 1


def products(x: Array, w: Array, grad_output: Array) -> dict[str, Array]:
    """Every step forward and backward, and the mistake at the end; `grad_output` is (N, O, L)."""
    columns = F.unfold(x, KERNEL, padding=PADDING)
    matrix = w.reshape(len(w), -1)
    grad_columns = np.einsum("or,nol->nrl", matrix, grad_output)
    return {
        "x": x,
        "columns = unfold(x)": columns,
        "W, the kernel as a matrix": matrix,
        "output = W @ columns": np.einsum("or,nrl->nol", matrix, columns),
        "grad_output": grad_output,
        "grad_W = grad_output @ columns.T, summed over n": np.einsum("nol,nrl->or", grad_output, columns),
        "grad_columns = W.T @ grad_output": grad_columns,
        "grad_x = fold(grad_columns)": F.fold(grad_columns, x.shape[2:], KERNEL, padding=PADDING),
        "without the sum: grad_output * columns, broadcast": grad_output.reshape(-1, 1, 1) * columns,
    }


def compare(x: Array, w: Array, grad_output: Array, steps: dict[str, Array]) -> None:
    """Print how far the products are from the gradients of conv2d, and what the mistake holds."""
    *_, grad_w, _, grad_x, outer = steps.values()
    image_form = grad_output.reshape(len(x), len(w), *x.shape[2:])
    expected_w = F.conv2d_weight(x, w.shape, image_form, padding=PADDING).reshape(grad_w.shape)
    expected_x = F.conv2d_input(x.shape, w, image_form, padding=PADDING)
    diagonal = np.einsum("lrl->r", outer)
    print(f"grad_W and conv2d_weight differ by {np.abs(grad_w - expected_w).max():.1e}")
    print(f"grad_x and conv2d_input differ by {np.abs(grad_x - expected_x).max():.1e}")
    print(f"grad_W and the sum over equal positions differ by {np.abs(grad_w - diagonal).max():.1e}")


def draw(path: str) -> None:
    """Draw the matrices of a 2x2 kernel over the 3x3 image 1 ... 9, for a gradient 1 ... 4."""
    from tinyconv.plots import unfold_view

    image = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    kernel = np.array([[1.0, 0.0], [2.0, -1.0]]).reshape(1, 1, 2, 2)
    unfold_view(image, kernel, path=path)
    print(f"picture: {path}")


def main() -> None:
    """Print the shapes and the comparison; with --out also draw a picture."""
    parser = argparse.ArgumentParser(description="A convolution and its gradients as products of matrices.")
    parser.add_argument("--out", help="file for a picture (needs matplotlib); its ending says the format")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 1, 28, 28)), rng.normal(size=(1, 1, KERNEL, KERNEL))
    grad_output = rng.normal(size=(1, 1, 28 * 28))
    steps = products(x, w, grad_output)
    for step, result in steps.items():
        print(f"{step:<52}{result.shape}")
    compare(x, w, grad_output, steps)
    if args.out:
        draw(args.out)


if __name__ == "__main__":
    main()
