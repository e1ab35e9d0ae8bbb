"""The sharpest directions of a trained network: the largest eigenvalues of the loss's Hessian, with SciPy.

LeNet-5 has 61,706 parameters, so its Hessian has nearly 4e9 entries. But SciPy's eigsh (Lanczos) needs only
products H v, and hessian_vector_product computes each exactly at the cost of about three gradients.
hessian_operator concatenates the parameters into one vector for it:

    operator = tc.hessian_operator(model, criterion, x, target)
    eigenvalues, eigenvectors = eigsh(operator, k=3, which="LA")

The largest eigenvalue bounds the learning rate: on the quadratic model of the loss, gradient descent
multiplies the part along an eigenvector by 1 - lr * eigenvalue in each step, so this part grows if lr > 2 /
eigenvalue.

Run it: python examples/hessian_eigenvalues.py
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

import tinyconv as tc
from tinyconv.arrays import Array
from tinyconv.recipes import positive

DATA = Path(__file__).parent / "data" / "mnist"


def flatten(arrays: Mapping[str, Array]) -> Array:
    """Return all arrays as one vector."""
    return np.concatenate([array.ravel() for array in arrays.values()])


def largest(operator: LinearOperator, k: int) -> tuple[Array, Array]:
    """Return the `k` largest eigenvalues, in descending order, and their eigenvectors as columns."""
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    values, vectors = eigsh(operator, k=k, which="LA", v0=start)
    return values[::-1], vectors[:, ::-1]


def gradient(model: tc.Layer, criterion: tc.Loss, x: Array, target: Array) -> Array:
    """Return the gradient of criterion(model(x), target) with respect to all parameters."""
    model.zero_grad()
    criterion(model(x), target)
    model.backward_params(criterion.backward())
    return flatten(model.grads)


def after_descent(operator: LinearOperator, vector: Array, lr: float, steps: int) -> float:
    """Return the distance from the minimum along `vector`, at first 1, after steps on the quadratic model."""
    for _ in range(steps):
        vector = vector - lr * operator.matvec(vector)
    return float(np.linalg.norm(vector))


def trained(images: int) -> tuple[tc.Layer, Array, Array]:
    """Return LeNet-5 in float64, trained on as many images, and a batch of test images with labels."""
    mnist = tc.data.load_mnist(DATA)
    x, test_x = (tc.data.normalize(part) for part in (mnist.train_images[:images], mnist.test_images[:256]))
    model = tc.models.lenet5(generator=0)
    trainer = tc.Trainer(model, tc.CrossEntropyLoss(), tc.optim.SGD(model, lr=0.05, momentum=0.9))
    trainer.fit((x, mnist.train_labels[:images]), batch_size=64, generator=0)
    return model.eval().to(np.float64), test_x.astype(np.float64), mnist.test_labels[:256]


def main() -> None:
    """Print the largest eigenvalues, the curvature along the gradient, and the bound of the learning rate."""
    parser = argparse.ArgumentParser(description="The largest eigenvalues of a trained network's Hessian.")
    parser.add_argument("--images", type=positive, default=20_000, help="training images (default: 20000)")
    model, x, target = trained(parser.parse_args().images)
    criterion = tc.CrossEntropyLoss()
    operator = tc.hessian_operator(model, criterion, x, target)
    print(f"loss on {len(x)} test images: {float(criterion(model.predict(x), target)):.4f}")
    values, vectors = largest(operator, k=3)
    print("largest eigenvalues of its Hessian:", ", ".join(f"{value:.4g}" for value in values))
    slope = gradient(model, criterion, x, target)
    print(f"curvature along the gradient: {slope @ operator.matvec(slope) / (slope @ slope):.4g}")
    print(f"largest stable learning rate, 2 / eigenvalue: {2 / values[0]:.4g}")
    print("on the quadratic model, 20 steps of gradient descent along the first eigenvector take 1 to")
    for factor in (0.95, 1.05):
        lr = factor * 2 / values[0]
        print(f"    {after_descent(operator, vectors[:, 0], lr, 20):.3g} with the learning rate {lr:.4g}")


if __name__ == "__main__":
    main()
