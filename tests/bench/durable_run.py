"""A run that is to be killed: notes how many turns its walkers have said, as often as it can.

python -m tests.bench.durable_run RUN_FILE NOTES
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import ray

from cluster.crew import Crew
from cluster.generate import open_run_domain, source_of
from cluster.run_folder import RunFolder
from cluster.session import ray_session
from cluster.sizes import sizes
from specs.run_file import load


def main(run_file: str, notes: str) -> None:
    run = load(Path(run_file), ())
    domain = open_run_domain(run)
    with RunFolder.of(run) as folder, ray_session(None):
        folder.open(run, domain)
        crew = Crew(run, domain, source_of(run), folder.round(), print, sizes(run))
        crew.open_sinks()
        crew.start()
        assert crew.walkers is not None
        handles = [seat.handle for seat in crew.walkers._seats]
        crew.walkers.look(0.0)
        with Path(notes).open("a", buffering=1) as file:
            while not crew.walkers.over:
                stats = ray.get([handle.stats.remote() for handle in handles])
                file.write(f"{time.time()} {sum(one.turns for one in stats)}\n")
                time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:3])
