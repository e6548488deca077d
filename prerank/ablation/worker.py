"""One replay of an ablation, in a process of its own, as the trainings of a leaderboard are: settings on stdin, events on stdout.

python -m prerank.ablation.worker 0.1 < settings.json         0.1: deviation of the noise on its inputs
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prerank.ablation.measure import measured
from prerank.config import Config
from prerank.leaderboard import worker
from prerank.leaderboard.state import State
from prerank.leaderboard.worker import Events
from prerank.replay import replay
from prerank.run import open_run
from prerank.training.step import DivergedError


def work(config: Config, events: Events) -> State:
    """Replay, or go on; measure; write the state. Raises what is not the model's fault."""
    folder = Path(config.output)
    try:
        replayed = worker.patiently(lambda: replay(config, resume=True, window=None, progress=events), folder, events)
    except DivergedError as error:
        state = State("diverged", str(error).splitlines()[0])
    else:
        state = State("finished", measured=measured(open_run(folder), replayed))
    state.write(folder)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return state


if __name__ == "__main__":
    worker.main(work)
