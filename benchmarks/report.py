"""Figures as JSON, as tables and as plots; docs/performance.md between its markers."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .cpu import cores, model
from .jobs import FIGURES, JOBS, TARGETS, Job, Target
from .load import Figure
from .peers import PEERS
from .runner import ROOT, Run, Settings

__all__ = ["BEGIN", "END", "RESULTS", "Report", "publish"]

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- figures: written by make bench -->"
END = "<!-- end of figures -->"
_IMAGES = ROOT / "docs" / "images"
_NONE = "\N{EN DASH}"
_LOAD_BOUND = "*"
_DISTURBED = "\N{DAGGER}"

Table = list[list[str]]
"""Rows of cells, the first of them the headings."""


def _machine() -> dict[str, Any]:
    where = cores()
    return {
        "processor": model(),
        "cores": os.cpu_count(),
        "one core for both sides": where.shared,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _peers() -> dict[str, dict[str, str | None]]:
    return {
        name: {"about": peer.about, "version": peer.version(), "missing": peer.missing()}
        for name, peer in PEERS.items()
    }


@dataclass(frozen=True)
class Report:
    """What came of one run of all."""

    runs: Sequence[Run]
    settings: Settings
    machine: dict[str, Any] = field(default_factory=_machine)
    peers: dict[str, dict[str, str | None]] = field(default_factory=_peers)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        runs = [
            Run(**{**run, "figure": Figure(**run["figure"]) if run["figure"] else None})
            for run in data["runs"]
        ]
        return cls(runs, Settings(**data["settings"]), data["machine"], data["peers"])

    # -- figures ---------------------------------------------------------------------------------

    def values(self, job: str, peer: str) -> dict[int, float]:
        """By round."""
        return {
            run.round: run.figure.value
            for run in self.runs
            if run.job == job and run.peer == peer and run.figure is not None
        }

    def value(self, job: str, peer: str) -> float | None:
        """The median of all rounds."""
        values = self.values(job, peer)
        return median(values.values()) if values else None

    def ratio(self, target: Target) -> float | None:
        """The median of the ratios within each round."""
        ours = self.values(target.job, target.peer)
        if target.to is None:
            return median(ours.values()) if ours else None
        theirs = self.values(target.to_job or target.job, target.to)
        both = ours.keys() & theirs.keys()
        if not both:
            return None
        return target.times * median(ours[one] / theirs[one] for one in both)

    def errors(self) -> Iterator[str]:
        """What could not be measured, and why."""
        for name, peer in self.peers.items():
            if peer["missing"]:
                yield f"{name}: {peer['missing']}"
        failed = (f"{run.job}, {run.peer}: {run.error}" for run in self.runs if run.error)
        yield from dict.fromkeys(failed)

    def cell(self, job: str, peer: str) -> str:
        """A value, with what has to be said of it."""
        value = self.value(job, peer)
        if value is None:
            return _NONE
        runs = [run for run in self.runs if run.job == job and run.peer == peer]
        marks = _LOAD_BOUND if any(run.load_bound for run in runs) else ""
        marks += _DISTURBED if any(run.disturbed for run in runs) else ""
        return _number(value, JOBS[job]) + marks

    # -- tables ----------------------------------------------------------------------------------

    def figures_table(self, jobs: Sequence[str]) -> Table:
        """Peers by jobs."""
        peers = [name for name in PEERS if any(self.value(job, name) is not None for job in jobs)]
        rows = [[name, *(self.cell(job, name) for job in jobs)] for name in peers]
        return [["", *(JOBS[job].title for job in jobs)], *rows]

    def tables(self) -> Iterator[tuple[str, Table]]:
        """The figures of each plot, with its name, and then of the jobs that have none."""
        for name in FIGURES:
            jobs = [job for job in self.jobs() if JOBS[job].figure == name]
            if jobs:
                yield name, self.figures_table(jobs)
        rows = [
            [JOBS[job].title, peer, self.cell(job, peer)]
            for job in self.jobs()
            for peer in JOBS[job].peers
            if not JOBS[job].figure and self.value(job, peer) is not None
        ]
        if rows:
            yield "", [["", "peer", "figure"], *rows]

    def targets_table(self) -> Table:
        """Each target, and what was reached."""
        rows = [["", "compared with", "at least", "aim", "measured", "reached"]]
        eager = tuple(map(int, self.machine["python"].split(".")[:2])) >= (3, 12)
        for target in TARGETS:
            if target.eager not in (None, eager):
                continue
            ratio = self.ratio(target)
            if ratio is None and self.value(target.job, target.peer) is None:
                continue
            title = target.title + (" (at most)" if target.falls else "")
            unit = "" if target.to is None else " x"
            rows.append(
                [
                    title,
                    target.against,
                    _bound(target.least, unit),
                    _bound(target.aim, unit),
                    _NONE if ratio is None else f"{ratio:.2f}{unit}",
                    _NONE if ratio is None else _verdict(target, ratio),
                ]
            )
        return rows

    def jobs(self) -> list[str]:
        """Those that were measured."""
        return [name for name in JOBS if any(run.job == name for run in self.runs)]

    def markdown(self) -> str:
        """All of it, for the documentation."""
        machine, settings = self.machine, self.settings
        where = (
            "one core for the server and the load"
            if machine["one core for both sides"]
            else "one of them for the server, another for the load"
        )
        measured = (
            f"Measured on {machine['system']}, {machine['processor']}, {machine['cores']} cores, "
            f"{where}; Python {machine['python']}; {settings.rounds} rounds of "
            f"{settings.seconds:g} s."
        )
        unit = "Thousands per second of the server's processor time, and KiB where it says so."
        parts = [measured, "### Targets", _markdown(self.targets_table()), "### Figures", unit]
        for name, table in self.tables():
            if name:
                parts.append(f"![{name}](images/performance-{name}.svg)")
            parts.append(_markdown(table))
        share, busiest = max(
            ((run.figure.load, run) for run in self.runs if run.figure is not None),
            key=lambda pair: pair[0],
        )
        marks = (
            f"The load used {share:.0%} of its core at most, in {busiest.job} with {busiest.peer}. "
            f"{_LOAD_BOUND} The load was the bottleneck in one of the rounds. "
            f"{_DISTURBED} Other programs took some of the processor in one of the rounds."
        )
        peers = [
            [name, peer["version"] or _NONE, peer["missing"] or peer["about"] or ""]
            for name, peer in self.peers.items()
        ]
        parts += [marks, "### Who was measured", _markdown([["", "version", ""], *peers])]
        errors = [f"- {error}" for error in self.errors()]
        if errors:
            parts += ["Not measured:", "\n".join(errors)]
        return "\n\n".join(parts)


def _number(value: float, job: Job) -> str:
    if job.in_kib:
        return f"{value:.1f} KiB" if not job.figure else f"{value:.1f}"
    thousands = value / 1000
    return f"{thousands:.0f}" if thousands >= 100 else f"{thousands:.3g}"


def _bound(bound: float | None, unit: str) -> str:
    return _NONE if bound is None else f"{bound:g}{unit}"


def _verdict(target: Target, ratio: float) -> str:
    if target.aim is not None and target.meets(ratio, target.aim):
        return "the aim"
    if target.least is not None:
        return "yes" if target.meets(ratio, target.least) else "**no**"
    return "not the aim"


def _markdown(table: Table) -> str:
    head, *rows = table
    lines = [head, ["---"] + ["---:" if len(head) > 3 else "---"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# -- publishing ----------------------------------------------------------------------------------


def publish(report: Report) -> None:
    """Write it into the documentation: the page between its markers, the plots beside it."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}\n\n{report.markdown()}\n\n{END}{after}"
    PAGE.write_text(page, encoding="utf-8")
    _plot(report)


def _plot(report: Report) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    # The same figures make the same file.
    mpl.rcParams.update({"svg.hashsalt": "wse", "font.size": 9, "axes.axisbelow": True})
    from matplotlib import pyplot as plt

    for name, title in FIGURES.items():
        jobs = [job for job in report.jobs() if JOBS[job].figure == name]
        if not jobs:
            continue
        figure, axes = plt.subplots(
            1, len(jobs), figsize=(4 * len(jobs), 3.6), squeeze=False, layout="constrained"
        )
        figure.suptitle(title)
        for axis, job in zip(axes[0], jobs, strict=True):
            _bars(axis, report, JOBS[job])
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            figure.savefig(_IMAGES / f"performance-{name}.{kind}", dpi=120, metadata=metadata)
        plt.close(figure)


def _bars(axis: Any, report: Report, job: Job) -> None:
    found = [(peer, report.value(job.name, peer)) for peer in reversed(job.peers)]
    bars = [(peer, value) for peer, value in found if value is not None]
    names = [peer for peer, _ in bars]
    scale = 1 if job.in_kib else 1000
    colors = [_color(peer) for peer in names]
    drawn = axis.barh(names, [value / scale for _, value in bars], color=colors)
    axis.bar_label(drawn, labels=[_number(value, job) for _, value in bars], padding=3)
    axis.set_title(job.title, fontsize=9)
    axis.margins(x=0.18)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _color(peer: str) -> str:
    if peer.startswith("wse"):
        return "#2563eb"
    return "#d4d4d8" if PEERS[peer].program in {"echo", "write"} else "#94a3b8"
