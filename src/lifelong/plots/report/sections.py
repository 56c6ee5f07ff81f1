"""Runs in order: a section per stream, in it a line per method, on it an entry per strength, which averages its seeds.

Legend: an *entry* holds the runs of one setting, which differ in the seed alone; a *line* the entries that differ in
the strength alone; a *section* the lines on one stream. Nothing else is ever averaged.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lifelong.plots.report.interval import Estimate, estimate
from lifelong.plots.report.runs import Run

STRENGTH = "method.strength"
STREAM = ("dataset.", "scenario", "val_fraction")
Flat = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """The runs of one setting, whatever their state."""

    runs: list[Run]

    @property
    def config(self) -> Flat:
        return self.runs[0].config

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    @property
    def strength(self) -> float:
        """λ; 0 for a method that has none."""
        known = [run.metrics["strength"] for run in self.finished]
        return float(known[0] if known else self.config.get(STRENGTH) or 0)

    @property
    def seeds(self) -> list[int]:
        """Of the finished runs."""
        return sorted(run.metrics["seed"] for run in self.finished)

    def measure(self, key: str) -> Estimate | None:
        """Over seeds; None where no seed has it."""
        return estimate(run.metrics.get(key) for run in self.finished)


@dataclass(frozen=True)
class Line:
    """Entries by strength.

    Attributes:
        label: the method, and what else tells this line from the others of its section, e.g. "ewc memory=uniform".
        method: the method alone.
    """

    label: str
    method: str
    entries: list[Entry]

    @property
    def finished(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.finished]

    @property
    def swept(self) -> list[Entry]:
        """The finished entries a logarithmic axis of strengths can show."""
        return [entry for entry in self.finished if entry.strength > 0]

    @property
    def best(self) -> Entry | None:
        """The entry of the highest mean validation average accuracy; without validation data the only one, else None.

        Among those with the most finished seeds: a mean that lacks a hard seed would win.
        """
        most = max((len(entry.finished) for entry in self.finished), default=0)
        complete = [entry for entry in self.finished if len(entry.finished) == most]
        scored = [(value.mean, i) for i, e in enumerate(complete) if (value := e.measure("val_average_accuracy"))]
        if scored:
            return complete[max(scored)[1]]
        return self.finished[0] if len(self.finished) == 1 else None


@dataclass(frozen=True)
class Section:
    """All lines on one stream, by label.

    Attributes:
        title: the stream.
        slug: the title fit for file names, and no other section's.
        lines: by label.
    """

    title: str
    slug: str
    lines: list[Line]

    @property
    def entries(self) -> list[tuple[Line, Entry]]:
        return [(line, entry) for line in self.lines for entry in line.finished]

    @property
    def runs(self) -> list[Run]:
        return [run for line in self.lines for entry in line.entries for run in entry.runs]

    @property
    def has_intransigence(self) -> bool:
        return any(entry.measure("intransigence") for _, entry in self.entries)


def described(line: Line, strength: float) -> str:
    return f"{line.label}, strength {strength:g}" if has_strength(line) else line.label


def has_strength(line: Line) -> bool:
    return any(entry.strength > 0 for entry in line.entries)


def sections(runs: Sequence[Run]) -> list[Section]:
    """Every run that says what it was to do, in its section; sections and lines by name."""
    streams: dict[str, list[Run]] = {}
    for run in runs:
        if run.config:
            streams.setdefault(repr(sorted(_stream(run.config).items(), key=str)), []).append(run)
    titles = _titles([members[0].config for members in streams.values()])
    ordered = sorted(zip(titles, streams.values(), strict=True), key=lambda pair: pair[0])
    made: list[Section] = []
    for title, members in ordered:
        made.append(Section(title, _slug(title, [section.slug for section in made]), _lines(members)))
    return made


def _slug(title: str, taken: Sequence[str]) -> str:
    words = re.sub(r"[^\w.+-]+", "-", title)[:60].strip("-")
    return next(slug for i in itertools.count(1) if (slug := words if i == 1 else f"{words}-{i}") not in taken)


def _lines(runs: Sequence[Run]) -> list[Line]:
    settings: dict[str, list[Run]] = {}
    for run in runs:
        settings.setdefault(run.setting, []).append(run)
    lines: dict[str, list[Entry]] = {}
    for members in settings.values():
        rest = {k: v for k, v in members[0].config.items() if k != STRENGTH}
        lines.setdefault(repr(sorted(rest.items(), key=str)), []).append(Entry(members))
    labels = _labels([entries[0].config for entries in lines.values()])
    made = [
        Line(label, chosen(entries[0].config, "method"), sorted(entries, key=lambda e: e.strength))
        for label, entries in zip(labels, lines.values(), strict=True)
    ]
    return sorted(made, key=lambda line: line.label)


def chosen(config: Flat, group: str) -> str:
    """What was chosen of a group: lifelong.methods.ewc.EWC → ewc, torch.optim.Adam → adam, and none for NoMemory."""
    parts = str(config.get(f"{group}._target_", "none")).split(".")
    return parts[-2] if parts[0] == "lifelong" else parts[-1].lower()


def _stream(config: Flat) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key.startswith(STREAM)}


def _titles(configs: Sequence[Flat]) -> list[str]:
    """dataset · source · scenario, and whatever else the streams differ in."""
    heads = [
        " · ".join((chosen(c, "dataset"), "+".join(_sources(c)), f"{c.get('scenario', 'domain')}-incremental"))
        for c in configs
    ]
    titles = []
    for head, config in zip(heads, configs, strict=True):
        same = [_stream(other) for other, its_head in zip(configs, heads, strict=True) if its_head == head]
        titles.append(" · ".join((head, *_differing(_stream(config), same))))
    return titles


def _sources(config: Flat) -> list[str]:
    keys = [key for key in config if key.startswith("dataset.source") and key.endswith("._target_")]
    return [chosen(config, key.removesuffix("._target_")) for key in keys]


def _labels(configs: Sequence[Flat]) -> list[str]:
    """method, and whatever else the lines differ in: its own options among those of one method, the rest among all."""
    rest = [{k: v for k, v in c.items() if not k.startswith(("method.", *STREAM)) and k != STRENGTH} for c in configs]
    labels = []
    for config, others in zip(configs, rest, strict=True):
        method = chosen(config, "method")
        same = [_method(c) for c in configs if chosen(c, "method") == method]
        labels.append(" ".join((method, *_differing(_method(config), same), *_differing(others, rest))))
    return labels


def _method(config: Flat) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k.startswith("method.") and k != STRENGTH}


def _differing(config: Flat, all_configs: Sequence[Flat]) -> list[str]:
    """key=value where the configurations differ; options of a group are compared among those that chose the same.

    That nothing was chosen of a group (memory=none) goes without saying.
    """
    parts = []
    for key, value in config.items():
        group = key.rpartition(".")[0]
        if key.endswith("._target_"):
            same, key, value = all_configs, group, chosen(config, group)
            differs = len({chosen(other, group) for other in same}) > 1
        else:
            target = f"{group}._target_"
            same = [other for other in all_configs if other.get(target) == config.get(target)]
            differs = any(other.get(key) != value for other in same)
        if differs and value != "none":
            parts.append(f"{key}={value}")
    return parts
