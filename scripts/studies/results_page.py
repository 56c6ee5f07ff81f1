"""The text of docs/results.md: tables and sentences, every number computed from the rows of docs/data."""

import itertools
from collections.abc import Mapping, Sequence

from studies.protocols import BOUNDS, METHODS, Protocol, protocol, read_protocols
from studies.results_sentences import of_diverged, of_strengths, sentences
from studies.results_stats import Row, Summary, gap_closed, plus_minus, power, summaries

INTRODUCTION = """# Published protocols

Made by `make results` from run folders, by way of [data/results.csv](data/results.csv) (a line per reported run) and
[data/tuning.csv](data/tuning.csv) (a line per run that chose a strength); no number here is typed. The protocols, with
their sources, are `configs/experiment/*.yaml`; `python scripts/tune.py PROTOCOL --data DATA` runs one. Under a heading
stands what was run; what shortens or changes the protocol is marked **changed here**.

*finetune* has no penalty and bounds forgetting from above; *joint* trains on all tasks so far, for as many epochs (so
that it takes more steps where a protocol counts epochs), and bounds accuracy. The others are the penalties of the
README's table of methods, of strength *λ*, each chosen among decades (the range that was tried stands behind it) on
validation accuracy; the reported seeds were trained with it. *Average accuracy* is the mean test accuracy over all
tasks after the last one, *forgetting* how far a task's has fallen since its best, *learning accuracy* a task's own just
after it was learned; all in points of 100. ± is half the 95 % confidence interval of the mean over seeds (Student's t;
of few seeds it may pass 100). *Gap closed*: the share of the way from finetune to joint, in percent (none where joint
was not run). Comparisons are paired by seed, each by itself: nothing is corrected for there being many. Seconds are a
run's wall time, two at a time on two CPU cores which other work kept busy at times: they say the order of magnitude.
Published numbers are the sources' own, **on MNIST** (blank: we have none, not that there is none); where our data are
others, they say which order to expect, not which number.
"""


def table(plan: Protocol, rows: Sequence[Row], tuning: Sequence[Row], found: Mapping[str, Summary]) -> str:
    there = f"published ({plan.source}; MNIST)"
    heads = ["method", "λ (tried)", "average accuracy", "forgetting", "learning accuracy", "gap closed, %", "seconds"]
    lines = [f"| {' | '.join([*heads, 'seeds', there])} |", "|---" * 9 + "|"]
    for method in METHODS:
        theirs = f"{plan.published[method]:g}" if method in plan.published else ""
        tried = [row for row in rows if row["method"] == method]
        strength = "" if method in BOUNDS or not tried else chosen_of(method, tried, tuning)
        if method not in found:
            came = f"all {len(tried)} diverged" if tried else "not run"
            lines.append(f"| {method} | {strength} | {came} | | | | | | {theirs} |")
            continue
        s = found[method]
        share = None if method in BOUNDS else gap_closed(s, found)
        seeds = f"{len(s.accuracy)}" + (f" ({len(s.failed)} diverged)" if s.failed else "")
        measures = [plus_minus(by.values()) for by in (s.accuracy, s.forgetting, s.learning)]
        cells = [method, strength, *measures, str(share or ""), f"{s.seconds:.0f}", seeds, theirs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def chosen_of(method: str, rows: Sequence[Row], tuning: Sequence[Row]) -> str:
    tried = [float(row["strength"]) for row in tuning if row["method"] == method]
    around = f" ({power(min(tried))}–{power(max(tried))})" if tried else ""
    return power(float(rows[0]["strength"])) + around


def section(plan: Protocol, rows: Sequence[Row], tuning: Sequence[Row]) -> str:
    found = summaries(rows)
    chosen_with = tuning[0]["chosen_with"] if tuning else ""
    changed = changed_of(plan, rows)
    text = " ".join(filter(None, [sentences(plan, found, changed), of_diverged(rows, chosen_with)]))
    line = f"`{' '.join([*plan.overrides, *plan.penalties])}`" + (f"; **changed here:** `{changed}`" if changed else "")
    shown = [f"## {plan.title}: on {plan.data_title}", line, table(plan, rows, tuning, found)]
    return "\n\n".join(part for part in [*shown, of_strengths(tuning, found), text] if part)


def changed_of(plan: Protocol, rows: Sequence[Row]) -> str:
    """The overrides of the table's runs that are not the protocol's."""
    own = [*plan.overrides, *plan.penalties]
    return " ".join(part for part in rows[0]["settings"].split(" ") if part not in own)


def overview(by_table: dict[tuple[str, str], list[Row]]) -> str:
    """A table of the shares of the gap closed: a row per protocol, a column per method."""
    held = [method for method in METHODS if method not in BOUNDS]
    lines = [f"| gap closed, % | {' | '.join(held)} | seeds |", "|---" * (len(held) + 2) + "|"]
    for (name, data), rows in by_table.items():
        found = summaries(rows)
        plan = protocol(name, data)
        cells = []
        for method in held:
            members = [row for row in rows if row["method"] == method]
            lost = sum(bool(row["failed"]) for row in members)
            share = gap_closed(found[method], found) if method in found else None
            cells.append(f"{lost} of {len(members)} diverged" if lost else str(share or ""))
        if any(cells):
            seeds = len({row["seed"] for row in rows})
            lines.append(f"| {name}, {plan.data_title.split(' (')[0]} | {' | '.join(cells)} | {seeds} |")
    return "\n".join(lines)


def page(rows: Sequence[Row], tuning: Sequence[Row]) -> str:
    known = read_protocols()
    tables: dict[tuple[str, str], list[Row]] = {}
    for name, data in itertools.product(known["protocols"], known["sources"]):
        if own := [row for row in rows if (row["protocol"], row["data"]) == (name, data)]:
            tables[name, data] = own
    parts = [INTRODUCTION.strip(), *([overview(tables)] if tables else [])]
    for where, own in tables.items():
        grid = [row for row in tuning if (row["protocol"], row["data"]) == where]
        parts.append(section(protocol(*where), own, grid))
    missing = [name for name in known["protocols"] if name not in {name for name, _ in tables}]
    if missing:
        lines = [f"- {known['protocols'][name]['title']}: `python scripts/tune.py {name}`" for name in missing]
        parts.append("## Not run\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"
