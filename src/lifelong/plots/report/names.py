"""What runs are called: a section per stream, in it a line per method, on it an entry per strength.

The runs of an entry differ in the seed alone, and nothing else is ever averaged.
"""

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

from pandas import DataFrame, Series

STRENGTH = "method.strength"
STREAM = ("dataset.", "scenario", "val_fraction")
OLDER = "unknown"
"""The method code of a run that recorded none."""
ENTRY = ["section", "line", "strength"]


def named(runs: DataFrame) -> DataFrame:
    """`runs` with these columns, by which it is sorted.

    section: the stream, and what tells it from the others; line: the method, and what tells it from the others of its
    section, e.g. "ewc memory=uniform"; strength: λ, 0 for a method that has none; code: hash of the method's source.
    Runs of one line whose method code differs are lines of their own; base_line is their common name.
    """
    configs = DataFrame(runs["config"].tolist(), index=runs.index).astype(object)
    runs = runs.assign(section="", base_line="", method=_column(configs, "method._target_"))
    runs["strength"] = _column(configs, STRENGTH).fillna(0).astype(float)
    runs["code"] = runs["method_code"].astype(object).fillna(OLDER).str[:8]
    known = runs.index[runs["config"].map(bool)]
    texts = configs.loc[known].map(_text)
    stream = [key for key in texts if key.startswith(STREAM)]
    runs.loc[known, "section"] = _titles(texts[stream])
    rest = texts.drop(columns=[*stream, *({STRENGTH} & set(texts))])
    for index in runs.loc[known].groupby("section").groups.values():
        method, options = rest.loc[index, "method._target_"], rest.loc[index]
        runs.loc[index, "base_line"] = _joined([method, *_differing(options, named_already="method")], " ")
    runs["line"] = runs["base_line"]
    finished = runs[runs["state"] == "finished"]
    for _, members in runs.loc[known].groupby(["section", "base_line"]):
        codes = members["code"].where(members.index.isin(finished.index)).ffill().bfill()
        if codes.nunique() > 1:
            runs.loc[members.index, "line"] += " code=" + codes
    return runs.sort_values([*ENTRY, "seed"], kind="stable", ignore_index=True)


def has_strength(runs: DataFrame) -> Series:
    """By line: whether one of its runs has a strength above 0."""
    return runs.groupby("line")["strength"].max() > 0


def entry_name(line: str, strength: float) -> str:
    """A line at a strength, e.g. "ewc, λ = 100"."""
    return f"{line}, λ = {strength:g}" if strength else line


def slugs(titles: Iterable[str]) -> dict[str, str]:
    """Each title fit for the name of a file; those that would be the same end in a hash of the whole title."""
    short = {title: re.sub(r"[^\w.+-]+", "-", title).strip("-")[:100] for title in titles}
    times = Counter(short.values())
    return {t: s if times[s] == 1 else f"{s}-{sha256(t.encode()).hexdigest()[:8]}" for t, s in short.items()}


def _titles(stream: DataFrame) -> Series:
    """dataset · source · scenario, and whatever else the streams of that name differ in."""
    if stream.empty:
        return Series(dtype=object)
    sources = stream[[key for key in stream if key.startswith("dataset.source") and key.endswith("._target_")]]
    source = sources.apply(lambda row: "+".join(filter(None, row)), axis=1)
    head = stream["dataset._target_"] + " · " + source + " · " + stream["scenario"] + "-incremental"
    return Series({
        i: title
        for _, members in stream.groupby(head)
        for i, title in _joined([head[members.index], *_differing(members)], " · ").items()
    })  # fmt: skip


def _differing(configs: DataFrame, named_already: str = "") -> list[Series]:
    """For each key that differs, "key=value" or "": options of a group differ among those that chose the same of it.

    That nothing was chosen of a group (memory=none) goes without saying.
    """
    parts = []
    for key in configs:
        group = key.rpartition(".")[0]
        if key == f"{named_already}._target_":
            continue
        if key.endswith("._target_") or f"{group}._target_" not in configs:
            differs = Series(configs[key].nunique() > 1, configs.index)
        else:
            differs = configs.groupby(f"{group}._target_")[key].transform("nunique") > 1
        value = configs[key].where(~configs[key].isin(["", "none"]))
        parts.append((f"{key.removesuffix('._target_')}=" + value).where(differs).fillna(""))
    return parts


def _joined(parts: list[Series], separator: str) -> Series:
    return DataFrame(dict(enumerate(parts))).apply(lambda row: separator.join(filter(None, row)), axis=1)


def _column(configs: DataFrame, key: str) -> Series:
    return configs[key] if key in configs else Series(None, configs.index, dtype=object)


def _text(value: object) -> str:
    """A value as it is compared and shown; "" where a configuration lacks the key."""
    return "" if isinstance(value, float) and value != value else str(value)
