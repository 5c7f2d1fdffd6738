"""One start's usage while it goes on: measured, noted on disk, and held against the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from actors.walker import WalkerStats
from cluster.budget import used, used_up
from cluster.sizes import Sizes
from cluster.usage import End, Session, UsageFile, read_sessions
from cluster.usage_meter import Meter
from cluster.usage_table import cost, session_lines
from specs.engine import EngineStats
from specs.parts import Folder
from specs.run_file import RunFile


class Spending:
    """What this start of a generation spends; the clock runs from here on.

    Args:
        round_: the round's folder.
        number: counts the starts of the run (`RunFolder.open`).
        say: is told of what cannot be read or written; neither stops anything.
        before: the folders of earlier rounds, of which the budget is the same.

    Attributes:
        earlier: the sessions of earlier starts.
        cost: what the GPUs of all starts had cost at the last look; empty where no price is known.
    """

    def __init__(
        self,
        run: RunFile,
        round_: Folder,
        number: int,
        say: Callable[[str], None],
        before: Sequence[Folder] = (),
    ) -> None:
        there = (one for folder in (*before, round_) for one in read_sessions(folder, say))
        self.earlier = [one for one in there if one.number < number]
        self._budget = run.budget
        self._meter = Meter(run, number)
        self._file = UsageFile(round_, number, say)
        self._end: End = "failed"  # until somebody knows better
        self._whole: Session | None = None
        self.cost = ""

    @property
    def used_up(self) -> str:
        """Which budget is used up by now, and how to go on, in words; empty while none is."""
        return self._used_up(self._meter.session())

    def take_over(
        self, engines: Mapping[str, Mapping[str, EngineStats]], placed: Mapping[str, float]
    ) -> None:
        """Count engines that were up before from what they had used (`Meter.take_over`)."""
        self._meter.take_over(engines, placed)

    def begin_playing(self, sizes: Sizes, wanted: int, before: int) -> None:
        """Note that dialogues are played from now on (`Meter.begin_playing`)."""
        self._meter.begin_playing(sizes, wanted, before)

    def look(
        self,
        walkers: Sequence[WalkerStats],
        engines: Mapping[str, Mapping[str, EngineStats]],
        placed: Mapping[str, float],
    ) -> str:
        """Take what the actors tell (`Meter.look`, `Meter.hold`); note it now and then.

        Returns:
            Which budget is used up, in words; empty while none is.
        """
        self._meter.hold(placed)
        self._meter.look(walkers, engines)
        now = self._meter.session()
        if self._file.due():
            self._file.write(now)
        self.cost = cost([*self.earlier, now])
        return self._used_up(now)

    def stop(self, end: End) -> None:
        """Note how it ends, and that no dialogue is begun any more."""
        self._end = end
        self._meter.enter("stopping")

    def close(self, placed: Mapping[str, float]) -> None:
        """Note all for the last time, when every actor is gone."""
        self._meter.hold(placed)
        self._whole = self._meter.session(self._end)
        self._file.close(self._whole)

    def _used_up(self, now: Session) -> str:
        return used_up(self._budget, used(self.earlier, now))

    # -- when it is closed

    def lines(self) -> list[str]:
        """Return the final table; nothing where nothing was started."""
        return session_lines(self._whole, self.earlier) if self._whole is not None else []

    @property
    def dialogues(self) -> int:
        """Dialogues that became durable."""
        return self._whole.walkers.dialogues if self._whole is not None else 0

    @property
    def hours(self) -> float:
        """Hours of wall time."""
        return self._whole.wall_s / 3600 if self._whole is not None else 0.0
