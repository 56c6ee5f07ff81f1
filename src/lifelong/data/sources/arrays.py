"""Arrays of one's own, saved by NumPy (.npz) or PyTorch (.pt): images, features, embeddings or token ids.

    np.savez("mine.npz", images=images, labels=labels)
    python train.py dataset/source=arrays dataset.source.path=mine.npz

or, to have it by name, configs/dataset/source/mine.yaml of three lines:

    defaults: [arrays, _self_]
    path: /data/mine.npz
    classes: [cat, dog]
"""

import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.source import Source, fraction_held_out, with_test_part

UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)
"""What reading a file that is none of ours raises, beside errors of zip, zlib and pickle."""


def arrays(path: str, classes: Sequence[str] | None = None, test_fraction: float | None = None) -> Source:
    """What the file holds as images or inputs and labels, and as test_images or test_inputs and test_labels if it has
    a test part.

    images: uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3. inputs: (N, ...) as they are, floats
    (features, embeddings), integers (token ids) or uint8 (pixels). labels: integers (N,), 0 and up.
    A .pt file is memory-mapped; it may be larger than memory where it holds a test part and images as (N, H, W) or
    (N, C, H, W), or inputs as floats of at most 32 bits, int64 or uint8: all else is copied. An .npz file is read.

    Args:
        classes: names of the labels 0, 1, …; None: the numbers up to the largest label.
        test_fraction: without a test part, the stratified share held out; None: a fifth.

    Raises:
        ValueError: a file that cannot be read or holds something else, labels without a name, a setting not allowed.
    """
    file = Path(path).expanduser().resolve()
    if file.suffix not in (".npz", ".pt"):
        raise ValueError(f"dataset.source.path must be an .npz or .pt file, got {path!r}")
    if not file.is_file():
        raise ValueError(f"dataset.source.path must be a file that is there, got {path!r}")
    content = _content(file)
    kind = "images" if "images" in content else "inputs"
    has_test = f"test_{kind}" in content
    fraction = fraction_held_out(test_fraction, has_test, f"where the file holds test_{kind}")
    try:
        parts = [_examples(content, kind, prefix) for prefix in ("", "test_")[: 1 + has_test]]
    except ValueError as error:
        raise ValueError(f"dataset.source.path: {file}: {error}") from error
    if classes is None:
        classes = [str(label) for label in range(int(parts[0].labels.max()) + 1)]
    source = Source(file.stem, parts[0], parts[-1], tuple(classes))  # refuses labels out of range before the split
    return source if has_test else with_test_part(file.stem, parts[0], classes, fraction)


def _content(file: Path) -> dict[str, Tensor]:
    """The file's arrays. Neither format is read in a way that could run code of the file."""
    try:
        if file.suffix == ".pt":
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        else:
            with np.load(file, allow_pickle=False) as archive:
                content = dict(archive)
        return {str(name): torch.as_tensor(value) for name, value in content.items()}
    except (*UNREADABLE, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"dataset.source.path: {file} cannot be read as named arrays ({reason})") from error


def _examples(content: dict[str, Tensor], kind: str, prefix: str) -> Examples:
    if content.keys() not in ({kind, "labels"}, {kind, "labels", f"test_{kind}", "test_labels"}):
        allowed = "images, labels and maybe test_images, test_labels (or inputs and test_inputs)"
        raise ValueError(f"it must hold {allowed}, got {', '.join(sorted(content)) or 'nothing'}")
    inputs, labels = content[prefix + kind], content[f"{prefix}labels"]
    if not _is_integer(labels) or labels.shape != inputs.shape[:1] or len(labels) == 0:
        given = f"{labels.dtype} {tuple(labels.shape)} for {kind} {tuple(inputs.shape)}"
        raise ValueError(f"{prefix}labels must be an integer for each of the {kind}, got {given}")
    made = (_images if kind == "images" else _inputs)(inputs, prefix + kind)
    return Examples(made.contiguous(), labels.to(torch.int64))


def _is_integer(values: Tensor) -> bool:
    return not values.is_floating_point() and not values.is_complex() and values.dtype != torch.bool


def _images(images: Tensor, name: str) -> Tensor:
    """(N, C, H, W)."""
    if images.dtype != torch.uint8:
        raise ValueError(f"{name} must be uint8, 0 to 255, got {images.dtype} (inputs are taken as they are)")
    if images.dim() == 3:
        return images[:, None]
    first, last = (images.dim() == 4 and images.shape[d] in (1, 3) for d in (1, 3))
    if first == last:
        allowed = "(N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3"
        raise ValueError(f"{name} must be {allowed}, got {tuple(images.shape)}")
    return images if first else images.permute(0, 3, 1, 2)


def _inputs(inputs: Tensor, name: str) -> Tensor:
    """Floats of at most 32 bits, uint8 as it is, other integers as int64."""
    if inputs.dim() < 2 or not (inputs.is_floating_point() or _is_integer(inputs)):
        raise ValueError(f"{name} must be floats or integers (N, ...), got {inputs.dtype} {tuple(inputs.shape)}")
    if not inputs.is_floating_point():
        return inputs if inputs.dtype == torch.uint8 else inputs.to(torch.int64)
    if not all(map(torch.isfinite, inputs.aminmax())):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return inputs.to(torch.float32) if inputs.dtype == torch.float64 else inputs
