"""Convolution and its gradients in TensorFlow's layout, as views of tinyconv's.

TensorFlow stores images as (N, H, W, C) and kernels as (H, W, C, O). Views of inputs and outputs are enough:
nothing is copied, and each gradient has the layout of its array. The numbers below are those of
tf.nn.conv2d(image, kernel, strides=1, padding="VALID") and of tf.GradientTape.

Run it: python examples/tensorflow_layout.py
"""

import numpy as np

import tinyconv.functional as F
from tinyconv.arrays import Array


def conv2d_nhwc(images: Array, kernels: Array) -> Array:
    """Compute tf.nn.conv2d(images, kernels, strides=1, padding="VALID")."""
    return F.nchw_to_nhwc(F.conv2d(F.nhwc_to_nchw(images), F.hwio_to_oihw(kernels)))


def conv2d_nhwc_backward(grad_output: Array, images: Array, kernels: Array) -> tuple[Array, Array]:
    """Return the gradients with respect to `images`, (N, H, W, C), and `kernels`, (H, W, C, O)."""
    x, w, g = F.nhwc_to_nchw(images), F.hwio_to_oihw(kernels), F.nhwc_to_nchw(grad_output)
    grad_x, grad_w, _ = F.conv2d_backward(g, x, w)
    return F.nchw_to_nhwc(grad_x), F.oihw_to_hwio(grad_w)


def main() -> None:
    """Print the result and the gradients of a Sobel kernel on the image 1 ... 9."""
    image = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    sobel = np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).reshape(3, 3, 1, 1)
    output = conv2d_nhwc(image, sobel)
    grad_image, grad_kernel = conv2d_nhwc_backward(np.ones_like(output), image, sobel)
    print(f"output, {output.shape}:", output.ravel())
    print(f"gradient of the image, {grad_image.shape}, which is the kernel:\n{grad_image[0, :, :, 0]}")
    print(f"gradient of the kernel, {grad_kernel.shape}, which is the image:\n{grad_kernel[:, :, 0, 0]}")


if __name__ == "__main__":
    main()
