"""`duologue evaluate`: how good the adapter is, beside its opponents, on dialogues it never saw.

Invariants: what was asked is kept and never asked again unless what it was made from has changed
(`--fresh` asks everything anew), whatever becomes of the judge, and whichever it is; a system's
figures always come from its predictions file; the comparison appears when all of them are there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from actors.prompts import Prompt
from actors.seat import Seat
from cluster.evaluation_plan import (
    BIGRAM,
    MAJORITY,
    UNTUNED,
    Learner,
    Plan,
    make_plan,
    serving_name,
)
from cluster.held_out import amounts, identity
from cluster.progress import PLAIN_EVERY_S, duration
from cluster.rating import ask_judge
from cluster.run_folder import RunFolder
from cluster.single_engine import started
from specs.agent_format import ChatMessage, split_turns
from specs.chat_template import ChatEncoder
from specs.engine_section import EngineSection
from specs.errors import Unavailable
from specs.parts import Folder
from specs.run_file import RunFile
from trainer.baselines import Habits, guesses
from trainer.bootstrap import Resamples
from trainer.comparison import comparison, results, uneven
from trainer.evaluation import (
    Limits,
    Prediction,
    Prompts,
    System,
    ask_all,
    tasks,
)
from trainer.few_shot import example_turns, fitting_examples, schemas
from trainer.figures import Marked, Sums, add_up
from trainer.judge import SCHEMA, rating_messages, read_rating
from trainer.marking import Kept, keep, kept, mark, predictions_file, rated, unrated
from trainer.scoring import phrase_words

COMPARISON = "comparison.json"

ASKED = "asked"
"""The folder, inside the evaluation's, of predictions that a judge is to rate, or has begun to."""

RATED_BY = "rated_by"
"""Which judge's ratings they have, in what is known of them."""

FEW = 10
"""Dialogues below which resampling them says little about the next ones."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation left.

    Attributes:
        folder: that holds the files.
        comparison: the content of `comparison.json`.
        asked: the systems that were asked, or rated; the others were there already.
        walk_ids: the test's dialogues in their order.
        sums: what the figures are made of, by system; resamples: of those dialogues.
    """

    folder: Folder
    comparison: Mapping[str, Any]
    asked: tuple[str, ...]
    walk_ids: tuple[str, ...]
    sums: Mapping[str, Sums]
    resamples: Resamples


def evaluate(run: RunFile, fresh: bool, say: Say, data: str | None = None) -> Evaluated:
    """Measure a run's adapter and its opponents, and write the results.

    Args:
        fresh: ask everything again.
        say: is told what goes on.
        data: a file in the `curated` format in place of the run's test split.

    Raises:
        InputError: with everything that is missing or does not fit.
        DuologueError: when an engine fails; what was asked before is kept.
    """
    plan = make_plan(run, data)
    turns = sum(dialogue.user_turns for dialogue in plan.dialogues)
    say(f"evaluating on {len(plan.dialogues)} dialogues, {turns} user turns: {plan.test.path}")
    for warning in plan.warnings:
        say(f"warning: {warning}")
    folder = RunFolder.of(run)
    with folder.hold():

        def told(text: str) -> None:
            folder.check()
            say(text)

        return _evaluate(plan, fresh, told)


def _evaluate(plan: Plan, fresh: bool, say: Say) -> Evaluated:
    plan.out.create()
    names = [*(learner.name for learner in plan.learners), *_guessers(plan)]
    found: dict[str, Kept] = {}
    for name in names:
        there = None if fresh else kept(plan.out, name, plan.made_from(name))
        if there is not None:
            say(f"{name}: there already")
            found[name] = there
    missing = [name for name in names if name not in found]
    if missing:
        asyncio.run(_Evaluation(plan, say, fresh).make(missing, found))
    return _written(plan, {name: found[name] for name in names}, tuple(missing), say)


def command(run: RunFile, fresh: bool, data: str | None) -> None:
    """Evaluate, and print the table; see `evaluate`."""
    done = evaluate(run, fresh, lambda text: click.echo(text, err=True), data)
    click.echo(f"\n{done.comparison['table']}\n\n{done.folder.path}")


def _guessers(plan: Plan) -> list[str]:
    return [name for name in (BIGRAM, MAJORITY) if name in plan.section.opponents]


# -- making predictions


@dataclass(slots=True)
class _Evaluation:
    """The systems that are not there yet, asked one after the other."""

    plan: Plan
    say: Say
    fresh: bool

    async def make(self, missing: Sequence[str], found: dict[str, Kept]) -> None:
        """Predict, mark and keep what is missing; each system is durable before the next."""
        for name in (one for one in missing if one in (MAJORITY, BIGRAM)):
            habits = Habits.of(self.plan.train.dialogues())
            guess = habits.majority if name == MAJORITY else habits.bigram
            found[name] = self._kept(name, guesses(self.plan.dialogues, guess), {})
        learners = [learner for learner in self.plan.learners if learner.name in missing]
        if not self.fresh:
            found |= self._asked_before(learners)
        for group in _by_engine([one for one in learners if one.name not in found]):
            await self._ask(group, found)
        if self.plan.judge is not None and learners:
            await self._judge(self.plan.judge, [one.name for one in learners], found)

    def _asked_before(self, learners: Sequence[Learner]) -> dict[str, Kept]:
        """Return the predictions that are there, with no ratings but those of this judge."""
        plan, found = self.plan, {}
        for name in (learner.name for learner in learners):
            wanted = plan.asked_from(name)
            before = kept(self._asked, name, wanted) or kept(plan.out, name, wanted)
            if before is None:
                continue
            self.say(f"{name}: asked already")
            if plan.judge is None or before.about.get(RATED_BY) != plan.judge.model:
                about = {key: one for key, one in before.about.items() if key != RATED_BY}
                before = Kept(unrated(before.marked), about)
            if plan.judge is None:
                keep(plan.out, name, before, plan.made_from(name))
            found[name] = before
        return found

    @property
    def _asked(self) -> Folder:
        return self.plan.out.child(ASKED)

    async def _ask(self, learners: Sequence[Learner], found: dict[str, Kept]) -> None:
        """Ask the systems that one engine serves."""
        engine = learners[0].engine
        adapters = [learner.adapter for learner in learners if learner.adapter]
        self.say(f"starting {engine.model} ...")
        cluster = self.plan.run.cluster
        name = serving_name(self.plan.run) or "evaluate"
        served = started(engine, name, _greatest(adapters), cluster)
        async with served as (client, info):
            encoder = ChatEncoder(_tokenizer(engine))
            for learner in learners:
                system = self._system(learner, encoder, info.window)
                prompts = Prompts(encoder, info.window, system.examples)
                limits = Limits(
                    self.plan.section.max_tokens.model_dump(),
                    at_once=2 * info.max_running,
                    deadline_s=engine.turn_deadline_s,
                )
                began = time.monotonic()
                todo = list(tasks(self.plan.dialogues))
                progress = _Progress(learner.name, len(todo), self.say)
                made = await ask_all(todo, system, prompts, client.ask, limits, progress)
                about = {
                    "about": learner.about,
                    "seconds": round(time.monotonic() - began, 1),
                    "examples": len(system.examples),
                    "cut_prompts": prompts.cut,
                    "dropped_turns": prompts.dropped,
                }
                found[learner.name] = await asyncio.to_thread(self._kept, learner.name, made, about)

    def _system(self, learner: Learner, encoder: ChatEncoder, window: int) -> System:
        if learner.name != UNTUNED:
            return System(learner.name, learner.adapter)
        section = self.plan.section
        picked = example_turns(self.plan.train.dialogues(), section.examples, section.seed)
        head, _ = split_turns(self.plan.dialogues[0].messages)
        room = window - max(section.max_tokens.model_dump().values())
        shown = fitting_examples(picked, encoder, head, room)
        if len(shown) < len(picked):
            self.say(f"{UNTUNED}: {len(shown)} of {len(picked)} examples fit the window")
        return System(UNTUNED, "", tuple(shown), schemas(self.plan.allowed))

    def _kept(self, name: str, made: Sequence[Prediction], about: Mapping[str, Any]) -> Kept:
        plan = self.plan
        self.say(f"{name}: marking {len(made)} pieces")
        phrases: frozenset[str] = frozenset()
        embed = _nothing
        if any(one.kind == "answer" for one in made):
            from actors.retrieval.embedding import load_embedder

            phrases = phrase_words(one.messages for one in plan.train.dialogues())
            embed = load_embedder(plan.embedding).encode
        marked = mark(made, plan.dialogues, plan.card, phrases, embed)
        done = Kept(tuple(marked), dict(about))
        # A judge comes later: until then what is there is not whole.
        if plan.judge is None or name in (MAJORITY, BIGRAM):
            keep(plan.out, name, done, plan.made_from(name))
            self._asked.delete(predictions_file(name))
        else:
            self._keep_asked(name, done)
            if self.fresh:  # the next command is to go on with these, not to be content with those
                plan.out.delete(predictions_file(name))
        return done

    def _keep_asked(self, name: str, done: Kept) -> None:
        self._asked.create()
        keep(self._asked, name, done, self.plan.asked_from(name))

    async def _judge(
        self, engine: EngineSection, names: Sequence[str], found: dict[str, Kept]
    ) -> None:
        self.say(f"starting the judge, {engine.model} ...")
        cluster, judge = self.plan.run.cluster, self.plan.section.judge or "judge"
        async with started(engine, judge, "", cluster) as served:
            client, info = served
            tokenizer = _tokenizer(engine) if info.takes == "tokens" else None
            deadline_s = engine.turn_deadline_s
            seat = Seat(client, info, engine.profile, tokenizer, deadline_s=deadline_s)
            for name in names:
                self.say(f"{name}: rating the answers")
                rate = _Judge(seat, name).rate
                about = {**found[name].about, RATED_BY: engine.model}

                def save(marked: Sequence[Marked], name: str = name, about: Any = about) -> None:
                    if any(one.rating is not None for one in marked):  # or another judge's go
                        self._keep_asked(name, Kept(tuple(marked), about))

                marked = await rated(
                    found[name].marked, self.plan.dialogues, rate, 2 * info.max_running, save
                )
                found[name] = Kept(tuple(marked), about)
                save(marked)  # an evaluation without this judge is not to cost what it rated
                keep(self.plan.out, name, found[name], self.plan.made_from(name))


def _by_engine(learners: Sequence[Learner]) -> list[list[Learner]]:
    groups: dict[str, list[Learner]] = {}
    for learner in learners:
        groups.setdefault(learner.engine.model_dump_json(), []).append(learner)
    return list(groups.values())


def _greatest(adapters: Sequence[str]) -> str:
    """Return the adapter of the greatest rank: an engine is started for that, and takes less."""
    return max(adapters, key=_rank, default="")


def _rank(adapter: str) -> int:
    with open(f"{adapter}/adapter_config.json", encoding="utf-8") as file:
        return int(json.load(file).get("r", 0))


def _tokenizer(engine: EngineSection) -> Any:
    from actors.engines.models import load_tokenizer

    return load_tokenizer(engine.model, engine.revision)


def _nothing(texts: Sequence[str]) -> Any:
    raise AssertionError("there are no answers to embed")


class _Progress:
    """Says now and then how many pieces are done."""

    def __init__(self, name: str, total: int, say: Say) -> None:
        self._name, self._total, self._say = name, total, say
        self._began = self._said = time.monotonic()

    def __call__(self, done: int) -> None:
        """Take notice of a piece."""
        now = time.monotonic()
        if now - self._said < PLAIN_EVERY_S and done < self._total:
            return
        self._said = now
        left = (now - self._began) / done * (self._total - done)
        more = f"left {duration(left)}" if done < self._total else duration(now - self._began)
        self._say(f"{self._name}: {done}/{self._total} pieces  {more}")


@dataclass(frozen=True, slots=True)
class _Judge:
    """An engine that rates a system's answers."""

    seat: Seat
    system: str

    async def rate(self, name: str, before: Sequence[ChatMessage], answer: str) -> float | None:
        """Return an answer's rating; None where the judge gave none.

        Raises:
            Unavailable: when it does not answer.
        """
        prompt = Prompt(messages=rating_messages(before, answer), schema=SCHEMA)
        reply = await ask_judge(self.seat, f"judge:{self.system}:{name}", prompt)
        if reply.failure is not None:
            if reply.failure.permanent:
                return None
            raise Unavailable(f"the judge: {name}: {reply.failure.message}")
        return read_rating(reply.candidates[0].text)


# -- results


def _written(plan: Plan, found: Mapping[str, Kept], asked: tuple[str, ...], say: Say) -> Evaluated:
    walk_ids = [dialogue.walk_id for dialogue in plan.dialogues]
    systems = {
        name: add_up(plan.card, one.marked, walk_ids, slots=name not in (MAJORITY, BIGRAM))
        for name, one in found.items()
    }
    resamples = Resamples.draw(len(walk_ids), plan.section.resamples, plan.section.seed)
    figures = results(systems, resamples)
    for name, one in found.items():
        content = {"system": name, "made_from": plan.made_from(name), **one.about, **figures[name]}
        _write(plan.out, f"{name}.json", content)
    content = {
        "data": {
            "path": plan.test.path,
            "dialogues": len(plan.dialogues),
            "turns": sum(dialogue.user_turns for dialogue in plan.dialogues),
            "card": {"intents": sorted(plan.card.intents), "tools": sorted(plan.card.tools)},
        },
        **comparison(systems, figures, resamples, _adapters(plan)),
    }
    _write(plan.out, COMPARISON, content)
    _warn(len(walk_ids), figures, say)
    if apart := uneven(content):
        say(f"warning: {apart}")
    return Evaluated(plan.out, content, asked, tuple(walk_ids), systems, resamples)


def _adapters(plan: Plan) -> dict[str, dict[str, Any]]:
    return {
        one.name: {**identity(one.manifest), "trained_on": amounts(one.manifest)}
        for one in plan.learners
        if one.manifest
    }


def _write(folder: Folder, name: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    folder.write_bytes(name, (text + "\n").encode())


def _warn(dialogues: int, figures: Mapping[str, Mapping[str, Any]], say: Say) -> None:
    if dialogues < FEW:
        say(f"warning: intervals over {dialogues} dialogues say little: {FEW} or more would")
    for name, one in figures.items():
        unanswered = sum(one["unanswered"].values())
        if unanswered:
            say(f"warning: {name}: {unanswered} pieces did not fit the window and count as wrong")
