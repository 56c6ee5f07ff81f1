"""Small image sets in the format of the Hugging Face hub."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ["ape", "bee", "cow"]
CLASS_LABEL = {"names": NAMES, "_type": "ClassLabel"}


def pixels(num: int, seed: int = 0, mode: str = "RGB") -> np.ndarray:
    channels = () if mode == "L" else (3,)
    return np.random.default_rng(seed).integers(0, 256, (num, 6, 5, *channels), dtype=np.uint8)


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path,
    images: Sequence[np.ndarray | bytes | None],
    labels: Sequence[Any],
    columns: tuple[str, str] = ("image", "label"),
    label_feature: dict[str, Any] | None = CLASS_LABEL,
) -> None:
    """A parquet file as the hub has it: images as structs of bytes and path, features in the schema's metadata."""
    import pyarrow as pa  # comes with the extra hub
    import pyarrow.parquet as pq

    contents = [
        None if i is None else {"bytes": i if isinstance(i, bytes) else encoded(i), "path": None} for i in images
    ]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = [pa.array(contents, image_type), pa.array(labels)]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    if label_feature is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: label_feature}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def labels(num: int) -> list[int]:
    return [i % 3 for i in range(num)]


def write_zoo(folder: Path) -> Path:
    """Two shards of 3 training images each and 3 images to test on, as `hf download` leaves them."""
    for shard in range(2):
        write(folder / "data" / f"train-0000{shard}-of-00002.parquet", [*pixels(3, shard)], labels(3))
    write(folder / "data" / "test-00000-of-00001.parquet", [*pixels(3, 9)], labels(3))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Zoo\n")
    return folder
