"""1,797 handwritten digits of 8 × 8 pixels (UCI optdigits), which scikit-learn ships: no download."""

import torch

from lifelong.data.examples import Examples
from lifelong.data.source import Source, with_test_part


def digits(test_fraction: float = 0.2) -> Source:
    """8 × 8 grey images, 0..16 scaled to 0..255; a fixed stratified share of them is the test set."""
    from sklearn.datasets import load_digits  # half a second: only for who asks

    data = load_digits()
    images = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    examples = Examples(images, torch.from_numpy(data.target).to(torch.int64))
    return with_test_part("digits", examples, [str(d) for d in range(10)], test_fraction)
