"""Where a set in the hub's format is read from: the hub itself, or parquet files on this machine."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset


class Place(ABC):
    @abstractmethod
    def as_request(self) -> dict[str, Any]:
        """Plain data for the key of a cache."""

    @abstractmethod
    def files(self, splits: Sequence[str]) -> list[Path]:
        """The files of these splits, as far as they lie on this machine."""

    @abstractmethod
    def load(self, split: str, scratch: str) -> Dataset:
        """One split. Raises ValueError where it cannot be had; scratch: a folder for files no longer needed then."""


@dataclass(frozen=True)
class Hub(Place):
    """A set by name; `datasets` downloads it into a cache of its own (HF_HOME)."""

    name: str
    config: str | None
    revision: str | None

    def as_request(self) -> dict[str, Any]:
        return asdict(self)

    def files(self, splits: Sequence[str]) -> list[Path]:
        return []

    def load(self, split: str, scratch: str) -> Dataset:
        datasets = datasets_library()
        try:
            return datasets.load_dataset(self.name, self.config, split=split, revision=self.revision)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise ValueError(
                f"dataset.source.name must be a set on the hub, got {self.name!r} ({_reason(error)})"
            ) from error
        except ConnectionError as error:
            raise ValueError(
                f"dataset.source.name {self.name!r} is neither on this machine nor in reach ({_reason(error)}): fetch "
                f"it where there is a network by `hf download --repo-type dataset {self.name} --local-dir DIR` "
                "and set dataset.source.path=DIR"
            ) from error
        except Exception as error:  # of five libraries: datasets, huggingface_hub, httpx, fsspec, pyarrow
            options = f"config {self.config!r}, split {split!r}, revision {self.revision!r}"
            raise ValueError(
                f"dataset.source.name {self.name!r} cannot be loaded with {options}: {_reason(error)}"
            ) from error


@dataclass(frozen=True)
class LocalCopy(Place):
    """Parquet files SPLIT.parquet or SPLIT-*.parquet anywhere below a folder (below its folder `config` if set); or one
    file, which is the split train.

    Raises:
        ValueError: no such file or folder, or a revision, which files do not have.
    """

    path: str
    config: str | None
    revision: str | None

    def __post_init__(self) -> None:
        if self.revision is not None:
            raise ValueError(f"dataset.source.revision must be null where path is set, got {self.revision!r}")
        if not self._root().is_dir() and not (self._root().is_file() and self._root().suffix == ".parquet"):
            raise ValueError(
                f"dataset.source.path must be a folder of parquet files or one such file, got {self.path!r}"
            )

    def as_request(self) -> dict[str, Any]:
        return {}

    def files(self, splits: Sequence[str]) -> list[Path]:
        return [file for files in self._by_split(splits).values() for file in files]

    def load(self, split: str, scratch: str) -> Dataset:
        datasets = datasets_library()
        found = {name: [str(file) for file in files] for name, files in self._by_split([split]).items()}
        try:
            with _no_progress_bars(datasets):
                return datasets.load_dataset("parquet", data_files=found, split=split, cache_dir=scratch)
        except Exception as error:  # of three libraries: datasets, fsspec, pyarrow
            reason = _reason(error.__cause__ or error)
            raise ValueError(
                f"dataset.source.path: split {split!r} of {self._root()} cannot be read ({reason})"
            ) from error

    def _root(self) -> Path:
        return Path(self.path).expanduser().resolve()

    def _by_split(self, splits: Sequence[str]) -> dict[str, list[Path]]:
        root = self._root()
        names = [name for split in splits for name in _names(split)]
        if root.is_file():
            if other := next((name for name in names if name != "train"), None):
                raise ValueError(f"dataset.source.path must be a folder for the split {other!r}, got {self.path!r}")
            return {"train": [root]}
        folder = root / self.config if self.config else root
        found: dict[str, list[Path]] = {}
        for name in names:
            pattern = re.compile(rf"{re.escape(name)}(-.*)?\.parquet")
            found[name] = sorted(file for file in folder.rglob("*.parquet") if pattern.fullmatch(file.name))
            if not found[name]:
                raise ValueError(
                    f"dataset.source.path must hold {name}.parquet or {name}-*.parquet, got none below {str(folder)!r}"
                )
        return found


def datasets_library() -> ModuleType:
    """Raises ValueError if it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError("dataset.source hub: the library datasets is not installed: pip install -e .[hub]") from error
    return datasets


def _names(split: str) -> list[str]:
    """The splits that an instruction like "train[:10%]+valid" reads."""
    return [part.partition("[")[0].strip() for part in split.split("+")]


@contextmanager
def _no_progress_bars(datasets: ModuleType) -> Iterator[None]:
    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
