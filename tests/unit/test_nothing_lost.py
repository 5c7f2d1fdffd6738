"""Ledger, sinks and walkers that die, come back and lag behind: each wanted index is one row.

Everything is the code that runs in the actors, but for the actors themselves: what a call would
carry is handed over, and what a death would forget is forgotten.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.sink import LoggedTurn, SinkCore, SinkLimits
from actors.turn_log import ended_in_log, read_log
from cluster.ledger import Caps, LedgerCore
from specs.lease import Lease
from specs.parts import durable_indices, read_dialogues
from specs.records import Turn
from tests.unit.durable_samples import faulty_folder, indices_in, make_dialogue, make_turn

WANTED, SINKS, TURNS, LEASE_S = 3, 2, 3, 10
SEATS = ("a", "b")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Player:
    """A walker: what it has leased, until when, and the turns of each that it goes on from."""

    name: str
    held: dict[int, Lease] = field(default_factory=dict)
    said: dict[int, tuple[Turn, ...]] = field(default_factory=dict)
    until: dict[int, float] = field(default_factory=dict)

    def next_turn(self, index: int) -> Turn:
        """Say something that only this walker says, and only behind what it knows was said."""
        said = self.said[index]
        turn = make_turn(len(said), f"{self.name} behind {digest(said)}")
        self.said[index] = (*said, turn)
        return turn


def digest(turns: Sequence[Turn]) -> str:
    """Return what tells one history from another."""
    texts = "|".join(turn.text for turn in turns)
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


class Run(RuleBasedStateMachine):
    """Whatever dies whenever, no index is lost, none becomes two rows, and none starves."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.folder = faulty_folder(Path(self.place.name))  # which waits for no disk
        self.clock = Clock()
        self.born = 0
        self.begun: dict[int, int] = {}  # the latest epoch that each sink has heard of in its life
        self.wall = 1_000
        self.sinks = [self.new_sink(number) for number in range(SINKS)]
        self.ledger = self.new_ledger(seats=0)
        self.players = {seat: Player(f"{seat}.0") for seat in SEATS}
        self.zombies: list[Player] = []
        self.rows_seen: set[int] = set()
        self.turns_seen: dict[int, tuple[int, int]] = {}

    def teardown(self) -> None:
        self.finish_the_run()
        self.place.cleanup()

    # -- the parts

    def new_ledger(self, seats: int) -> LedgerCore:
        """As `LedgerActor` opens it."""
        ended, epoch = ended_in_log(self.folder.child("log"))
        return LedgerCore(
            WANTED,
            ended | durable_indices(self.folder.child("dialogues")),
            clock=self.clock,
            lease_s=LEASE_S,
            caps=Caps(99, 99),
            first_epoch=max(epoch + 1, self.wall),
            seats=seats,
        )

    def new_sink(self, number: int) -> SinkCore:
        self.born += 1
        self.begun = {i: e for i, e in self.begun.items() if i % SINKS != number}
        core = SinkCore(self.folder, number, SINKS, SinkLimits(), f"t{self.born}")
        core.open()
        return core

    def log(self, core: SinkCore) -> None:
        batch = core.take_log()
        if batch:
            core.log_written(batch, core.write_batch(batch))

    def lease(self, player: Player, want: int) -> int:
        leases = self.ledger.lease(player.name, want)
        if leases is None:
            self.renew(player)
            leases = self.ledger.lease(player.name, want)
            assert leases is not None
        for lease in leases:
            self.nobody_else_plays(lease.index, player)
            self.begin(player, lease)
        return len(leases)

    def nobody_else_plays(self, index: int, player: Player) -> None:
        """Hold that an index is leased once, while he who has it lives and renews."""
        for other in self.players.values():
            if other is not player and index in other.held:
                assert other.until[index] <= self.clock.now, "leased to two at once"

    def begin(self, player: Player, lease: Lease) -> None:
        walk = make_dialogue(lease.index, turns=TURNS).walk_id
        begun = self.sinks[lease.index % SINKS].begin(lease.index, walk, lease.epoch)
        if begun.status == "stored":
            core = self.sinks[lease.index % SINKS]
            self.log(core)
            self.ledger.done(lease.index, lease.epoch)
        elif begun.status == "stale":
            self.ledger.superseded(lease.index, lease.epoch, begun.epoch)
        else:
            self.begun[lease.index] = lease.epoch
            player.held[lease.index] = lease
            player.until[lease.index] = self.clock.now + LEASE_S
            player.said[lease.index] = begun.turns

    def renew(self, player: Player) -> None:
        for lease in self.ledger.renew(player.name, list(player.held.values())):
            player.held.pop(lease.index, None)
        for index in player.held:
            player.until[index] = self.clock.now + LEASE_S

    def speak(self, player: Player, index: int) -> None:
        """Say one turn, or hand the dialogue in behind the last."""
        lease, core = player.held[index], self.sinks[index % SINKS]
        late = lease.epoch < self.begun.get(index, 0)
        dialogue = make_dialogue(index, turns=0)
        if len(player.said[index]) < TURNS:
            turn = player.next_turn(index)
            refused = core.turns([LoggedTurn(index, dialogue.walk_id, lease.epoch, turn)])
            assert refused or not late, "a turn of an older epoch was taken"
            return
        dialogue = replace(dialogue, turns=player.said[index])
        stored = core.finish(replace(dialogue, turns=()), lease.epoch, TURNS)
        if stored == "incomplete":
            stored = core.finish(dialogue, lease.epoch)
        assert stored != "stored" or not late, "an end of an older epoch was taken"
        del player.held[index]
        if stored == "stale":
            self.ledger.superseded(index, lease.epoch, 0)
        else:
            self.log(core)
            self.ledger.done(index, lease.epoch)

    def play_all(self, player: Player) -> None:
        for index in sorted(player.held):
            while index in player.held:
                self.speak(player, index)

    # -- what happens

    @rule(seat=st.sampled_from(SEATS), want=st.integers(1, 4))
    def a_walker_leases(self, seat: str, want: int) -> None:
        self.lease(self.players[seat], want)

    @precondition(lambda self: any(p.held for p in (*self.players.values(), *self.zombies)))
    @rule(data=st.data(), steps=st.integers(1, TURNS + 1))
    def a_walker_plays(self, data: st.DataObject, steps: int) -> None:
        busy = [p for p in (*self.players.values(), *self.zombies) if p.held]
        player = data.draw(st.sampled_from(busy))
        index = data.draw(st.sampled_from(sorted(player.held)))
        for _ in range(steps):
            if index in player.held:
                self.speak(player, index)

    @rule(seat=st.sampled_from(SEATS))
    def a_walker_plays_all_that_it_has(self, seat: str) -> None:
        self.play_all(self.players[seat])

    @precondition(lambda self: self.zombies)
    @rule()
    def late_walkers_wake_up(self) -> None:
        for zombie in self.zombies:
            self.play_all(zombie)
        self.zombies = []

    @rule(seat=st.sampled_from(SEATS))
    def a_walker_renews(self, seat: str) -> None:
        self.renew(self.players[seat])

    @rule(seat=st.sampled_from(SEATS), seen=st.booleans())
    def a_walker_dies(self, seat: str, seen: bool) -> None:
        """Or is only out of reach, and goes on playing, now or late."""
        dead = self.players[seat]
        self.born += 1
        self.players[seat] = Player(f"{seat}.{self.born}")
        self.zombies += [dead] if dead.held else []
        if seen:
            self.ledger.release(dead.name)

    @rule(number=st.integers(0, SINKS - 1))
    def a_sink_writes_its_log(self, number: int) -> None:
        self.log(self.sinks[number])

    @rule(number=st.integers(0, SINKS - 1))
    def a_sink_cuts_a_part(self, number: int) -> None:
        core = self.sinks[number]
        self.log(core)
        part = core.take_part()
        if part:
            core.write_rows(part)
            core.delete_logs(core.part_written(part))

    @rule(number=st.integers(0, SINKS - 1), log=st.booleans(), part=st.booleans())
    def a_sink_dies(self, number: int, log: bool, part: bool) -> None:
        """It may have written by then; neither it nor the ledger hears of it."""
        core = self.sinks[number]
        batch = core.take_log()
        if batch and log:
            core.write_batch(batch)
        rows = core.take_part()
        if rows and part:
            core.write_rows(rows)
        self.sinks[number] = self.new_sink(number)

    @rule(back=st.integers(0, 500))
    def the_ledger_dies(self, back: int) -> None:
        """Meanwhile the machine's clock may have been set back."""
        self.wall += 100 - back
        self.ledger = self.new_ledger(seats=len(SEATS))

    def everything_dies(self) -> None:
        self.players = {seat: Player(f"{seat}.{self.born}") for seat in SEATS}
        self.zombies = []
        self.sinks = [self.new_sink(number) for number in range(SINKS)]
        self.ledger = self.new_ledger(seats=0)

    @rule(data=st.data(), cut=st.booleans())
    def the_machine_dies(self, data: st.DataObject, cut: bool) -> None:
        """A file of the log may be cut short by that; what it held is not there any more."""
        names = self.folder.child("log").names("log-")
        if names and cut:
            self.cut_short(data.draw(st.sampled_from(names)))
        self.everything_dies()

    def cut_short(self, name: str) -> None:
        self.folder.child("log").write_bytes(name, b"PAR1")
        self.rows_seen, self.turns_seen = set(), {}

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    # -- what holds

    @invariant()
    def every_index_is_accounted_for(self) -> None:
        now = self.ledger.progress()
        assert now.done + now.leased + now.owed + now.given_up == WANTED
        assert now.owed >= 0
        assert now.given_up == 0

    @invariant()
    def what_was_durable_stays(self) -> None:
        ended, _ = ended_in_log(self.folder.child("log"))
        found = ended | durable_indices(self.folder.child("dialogues"))
        assert self.rows_seen <= found
        self.rows_seen = found
        unfinished = read_log(self.folder.child("log")).unfinished
        for index, (epoch, turns) in self.turns_seen.items():
            if index not in found:
                now = unfinished[index]
                assert now.epoch > epoch or len(now.turns) >= turns, "logged turns are gone"
        self.turns_seen = {i: (one.epoch, len(one.turns)) for i, one in unfinished.items()}

    def finish_the_run(self) -> None:
        """One walker that lives must get through, whatever state the others left."""
        last = Player("last.1")
        for step in range(10 * WANTED):
            if self.ledger.progress().complete:
                break
            self.clock.now += 11  # what nobody renews runs out
            self.renew(last)
            self.lease(last, 3)
            self.play_all(last)
            assert step < 10 * WANTED - 1, "an index starves"
        for number in range(SINKS):
            self.a_sink_cuts_a_part(number)
        rows = list(read_dialogues(self.folder.child("dialogues")))
        assert sorted(indices_in(self.folder.child("dialogues"))) == list(range(WANTED))
        for row in rows:
            assert [turn.index for turn in row.turns] == list(range(TURNS))
            for place, turn in enumerate(row.turns):
                assert turn.text.endswith(digest(row.turns[:place])), "turns of two walkers mixed"


TestRun = Run.TestCase
TestRun.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
