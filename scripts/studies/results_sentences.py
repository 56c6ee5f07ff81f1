"""The sentences below a table of docs/results.md: every number and every comparison computed from its rows."""

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence

from studies.protocols import BOUNDS, METHODS, Protocol
from studies.results_stats import Row, Summary, differences, gap_closed, listed, plus_minus, rounded, settled, signed

Found = Mapping[str, Summary]


def sentences(plan: Protocol, found: Found, changed: str = "") -> str:
    """As far as the table's rows allow: who is highest, beside whom, at what price; published order and numbers.

    changed: overrides beside the protocol's own.
    """
    sound = [s for s in found.values() if s.method not in BOUNDS and not s.failed]
    parts = [*of_published(plan, found, changed)]
    if sound:
        best = max(sound, key=lambda s: s.mean)
        parts = [of_best(best, found), of_rivals(best, sound), of_finetune(sound, found), of_trade(best, found), *parts]
    return " ".join(part for part in parts if part)


def paired(one: Summary, other: Summary) -> list[float]:
    return differences(one.accuracy, other.accuracy)


def of_best(best: Summary, found: Found) -> str:
    said = f"{best.method} ends highest of the penalties, at {plus_minus(best.accuracy.values())}"
    low, share = found.get("finetune"), gap_closed(best, found)
    if share is None or low is None:
        return f"{said}."
    way = f"{rounded(found['joint'].mean - low.mean, 1)} points"
    return f"{said}: {share} % of the {way} between finetune ({low.mean:.1f}) and joint ({found['joint'].mean:.1f})."


def of_rivals(best: Summary, sound: Sequence[Summary]) -> str:
    others = [s for s in sound if s is not best]
    if math.isnan(best.interval) or not others:
        return ""
    near = [s.method for s in others if not settled(paired(best, s))]
    if not near:
        return "Paired by seed it is above each of the others."
    return f"Paired by seed it is not told apart from {listed(near)}."


def of_trade(best: Summary, found: Found) -> str:
    if "finetune" not in found:
        return ""
    low = found["finetune"]
    forgets, learns = (rounded(statistics.fmean(v.values()), 1) for v in (best.forgetting, best.learning))
    forgets_low, learns_low = (rounded(statistics.fmean(v.values()), 1) for v in (low.forgetting, low.learning))
    return (
        f"{best.method} forgets {forgets} points where finetune forgets {forgets_low}, and learns a task to {learns}"
        f" where finetune comes to {learns_low}."
    )


def of_finetune(sound: Sequence[Summary], found: Found) -> str:
    """Which penalties end above no penalty at all, and which below."""
    if "finetune" not in found or math.isnan(found["finetune"].interval):
        return ""
    pairs = {s.method: paired(s, found["finetune"]) for s in sound}
    sure = {method: statistics.fmean(pair) for method, pair in pairs.items() if settled(pair)}
    above = [method for method, mean in sure.items() if mean > 0]
    below = [f"{method} ({signed(pairs[method])})" for method, mean in sure.items() if mean < 0]
    said = "all of them" if len(above) == len(sound) > 1 else listed(above) or "none"
    return f"Above finetune, paired by seed: {said}" + (f"; below it: {listed(below)}." if below else ".")


def of_published(plan: Protocol, found: Found, changed: str) -> list[str]:
    """How the published order and numbers compare and, where a row falls short, the likely reason."""
    both = [(s, plan.published[s.method]) for s in found.values() if s.method in plan.published and not s.failed]
    if not both:
        return []
    short = [(s, theirs) for s, theirs in both if s.mean + (0 if math.isnan(s.interval) else s.interval) < theirs]
    if not short:
        return [of_order(both), "No row falls short of its published number by more than its interval."]
    first = f"What was changed here, `{changed}`, may explain it alone." if changed else ""
    rows = listed([f"{s.method} ({rounded(s.mean, 1)} against {theirs:g})" for s, theirs in short])
    return [of_order(both), f"Below its published number by more than its interval: {rows}.", first, plan.reason]


def of_order(both: Sequence[tuple[Summary, float]]) -> str:
    """Pairs of published rows whose order our seeds settle, in the published order or against it."""
    pairs = [(a, b) for a, b in itertools.combinations(both, 2) if a[1] != b[1]]
    sure = [(statistics.fmean(paired(a[0], b[0])), a[1] - b[1]) for a, b in pairs if settled(paired(a[0], b[0]))]
    agree = sum(ours * theirs > 0 for ours, theirs in sure)
    if not pairs:
        return ""
    if len(pairs) == 1:
        stands = "in the published order" if agree else "against the published order" if sure else "in no settled order"
        return f"The one pair of published rows stands {stands}."
    said = f"Of {len(pairs)} pairs of published rows our seeds settle {len(sure) or 'none'}"
    return f"{said}: {agree} in the published order, {len(sure) - agree} against it." if sure else f"{said}."


def of_diverged(rows: Sequence[Row], chosen_with: str) -> str:
    """Of the table's runs that failed: how many of which method, and behind how many tasks strengths were chosen."""
    lost = {m: [row["failed"] for row in rows if row["method"] == m and row["failed"]] for m in METHODS}
    said = [f"{m} ({len(failed)} of its seeds{at_tasks(failed)})" for m, failed in lost.items() if failed]
    if not said:
        return ""
    text = f"With the strengths chosen, {listed(said)} diverged"
    window = re.search(r"dataset\.window=\[(\d+),(\d+)\]", chosen_with)
    tasks = [task for failed in lost.values() for task in task_numbers(failed)]
    first = int(window[2]) - int(window[1]) if window else 0
    if not window or not tasks or min(tasks) <= first:
        return f"{text}."
    return (
        f"{text}, all behind the {first} tasks on which strengths are chosen: importance adds up over tasks, so that a"
        " gradient step that was stable need not stay so."
    )


def task_numbers(failed: Sequence[str]) -> list[int]:
    return [int(found[1]) for text in failed if (found := re.search(r"\(task (\d+)", text))]


def at_tasks(failed: Sequence[str]) -> str:
    numbers = sorted(set(task_numbers(failed)))
    if not numbers:
        return ""
    return f", at task {numbers[0]}" + (f" to {numbers[-1]}" if len(numbers) > 1 else "")


def of_strengths(rows: Sequence[Row], found: Found) -> str:
    """Under the table: how strengths were chosen here."""
    chosen = {row["method"]: row for row in rows if row["chosen"] and row["method"] in found}
    if not chosen:
        return ""
    seeds = sorted({int(row["seed"]) for row in rows})
    where = f"seed {seeds[0]}" if len(seeds) == 1 else f"the mean of seeds {listed([str(seed) for seed in seeds])}"
    notes = []
    if edge := [method for method, row in chosen.items() if row["at_edge"]]:
        notes.append(f"at the end of all that may be tried for {listed(edge)}")
    failed = {(row["method"], float(row["strength"])) for row in rows if row["failed"]}
    if near := [m for m, row in chosen.items() if any(a == m and s > float(row["strength"]) for a, s in failed)]:
        notes.append(f"stronger ones diverged for {listed(near)}")
    how = next(iter(chosen.values()))["chosen_with"]
    return (
        f"Strengths: {len(rows)} runs; validation accuracy with `{how}`, {where}{'; ' * bool(notes)}{'; '.join(notes)}."
    )
