"""`make bench`: measure, show, and write what came of it."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .cpu import cores
from .jobs import JOBS, Job
from .load import many_files
from .peers import PEERS, Peer
from .report import RESULTS, Report, publish
from .runner import Run, Settings, measure_all

QUICK = Settings(rounds=1, seconds=0.25, warmup=0.15, devices=2000)
_FILES = 10_500
"""Sockets that a process needs for the largest job."""


@click.command()
@click.option("--job", "jobs", multiple=True, type=click.Choice(list(JOBS)), help="Only this job.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="Only this.")
@click.option("--rounds", type=click.IntRange(1, 100), help="How often; 3.")
@click.option("--quick", is_flag=True, help="One short round: under two minutes.")
@click.option(
    "--show",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing: write the documentation from this file.",
)
def main(
    jobs: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int | None,
    quick: bool,
    show: Path | None,
) -> None:
    """Measure the library beside others.

    A run of all jobs with all peers is written into docs/performance.md. The figures of any
    other go to benchmarks/results/latest.json.
    """
    if sys.platform != "linux":
        raise click.ClickException("it measures with what only Linux has")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if show:
        publish(Report.load(show))
        return
    settings = QUICK if quick else Settings()
    if rounds:
        settings = Settings(**{**vars(settings), "rounds": rounds})
    if many_files() < _FILES:
        console.print(f"fewer than {_FILES} open files are allowed here: see `ulimit -Hn`")
    if cores().shared:
        console.print("there is one core: server and load disturb each other")
    if quick:
        console.print(f"one short round, with {settings.devices:,} devices at most")
    pairs = [
        (job, PEERS[name])
        for job in JOBS.values()
        for name in job.peers
        if (not jobs or job.name in jobs) and (not peers or name in peers)
        if not PEERS[name].missing()
    ]
    if not pairs:
        raise click.ClickException("no such job with such a peer, or it is not installed")
    report = Report(_measured(console, pairs, settings), settings)
    whole = not (jobs or peers or quick)
    report.save(RESULTS / ("published.json" if whole else "latest.json"))
    _show(console, report)
    if whole:
        publish(report)
    sys.exit(any(run.error for run in report.runs))


def _measured(console: Console, pairs: list[tuple[Job, Peer]], settings: Settings) -> list[Run]:
    columns = (
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(pairs) * settings.rounds)

        def told(run: Run) -> None:
            progress.update(bar, advance=1, description=f"{run.job} {run.peer}")
            if run.error:
                console.print(f"{run.job}, {run.peer}: {run.error}", style="red", markup=False)

        return measure_all(pairs, settings, told)


def _show(console: Console, report: Report) -> None:
    for _, table in report.tables():
        _table(console, table)
    targets = report.targets_table()
    if len(targets) > 1:
        _table(console, targets)
    for error in report.errors():
        console.print(f"not measured: {error}", markup=False)


def _table(console: Console, rows: list[list[str]]) -> None:
    head, *rest = rows
    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number else "left", overflow="fold")
    for row in rest:
        table.add_row(*row)
    console.print(table)
    console.print()


if __name__ == "__main__":
    main()
