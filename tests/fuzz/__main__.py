"""`make fuzz`: a million inputs, on every core, each batch with a seed that plays it again."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from .batches import SCENES, Batch, batches
from .scene import Totals


def play_all(coming: Iterator[Batch], inputs: int, processes: int) -> bool:
    """Play batches until there were so many inputs, or one fails; whether all is well."""
    started = time.perf_counter()
    totals = Totals()
    failed = False
    playing: dict[Future[Totals | str], Batch] = {}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        while True:
            if totals.inputs < inputs and not failed:
                for batch in itertools.islice(coming, processes - len(playing)):
                    playing[pool.submit(batch.play)] = batch
            if not playing:
                break
            for done in wait(playing, return_when=FIRST_COMPLETED).done:
                batch, outcome = playing.pop(done), _outcome(done)
                if isinstance(outcome, str):
                    failed = True
                    _say(f"FAILED make fuzz {batch}\n{outcome}")
                else:
                    totals.add(outcome)
                    _say(f"{batch}: {outcome.inputs:,} inputs, {outcome.seconds:.1f} s")
    totals.seconds = time.perf_counter() - started
    _say(str(totals))
    return not failed


def _outcome(done: Future[Totals | str]) -> Totals | str:
    try:
        return done.result()
    except BrokenProcessPool as error:
        return f"the process ended: {error}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many at least")
    parser.add_argument("--seed", type=int, help="of the first batch; the next have the next")
    parser.add_argument("--scene", choices=SCENES, help="play one batch of this scene")
    parser.add_argument("--stories", type=int, help="how many that batch has")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    seed = random.randrange(10**6) * 1000 if asked.seed is None else asked.seed  # noqa: S311
    coming = batches(seed)
    if asked.scene:
        stories = asked.stories or SCENES[asked.scene].stories
        coming = iter([Batch(asked.scene, seed, stories)])
    return 0 if play_all(coming, asked.inputs, asked.processes) else 1


if __name__ == "__main__":
    sys.exit(main())
