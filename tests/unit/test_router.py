"""Routers keep sides where they are, and no replica idles while requests wait elsewhere."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.routing import AHEAD, LEAST, UNTOLD, Router, margin
from specs.engine import Load
from tests.unit.queueing import Routed, Scene, one_queue

EVERY = 10**6


def router_of(*names: str, client: str = "c", limit: int = 16, members: int = EVERY) -> Router:
    """Return a router whose replicas have told that they are empty."""
    router = Router(names, client, members)
    for name in names:
        router.tell(name, Load(0, limit))
    return router


def every(names: list[str], client: str) -> Router:
    return Router(names, client, EVERY)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from(["user", "agent"]))),
    st.integers(1, 4),
)
def test_routing_is_sticky_and_even_and_forgets(
    steps: list[tuple[bool, int, str]], replicas: int
) -> None:
    names = [f"r{i}" for i in range(replicas)]
    router = router_of(*names)
    places: dict[tuple[int, str], str] = {}
    for enters, dialogue, role in steps:
        if not enters:
            router.release(dialogue)
            places = {key: place for key, place in places.items() if key[0] != dialogue}
            continue
        least = min(router.sides(name) for name in names)
        place = router.route(dialogue, role)
        if (dialogue, role) not in places:
            assert router.sides(place) == least + 1
        assert places.setdefault((dialogue, role), place) == place
    for name in names:
        assert router.sides(name) == list(places.values()).count(name)


def test_a_side_leaves_for_what_is_beyond_chance_and_for_no_less() -> None:
    router = router_of("a", "b")
    mine = router.route("mine")
    other = "b" if mine == "a" else "a"
    for above in (1, int(margin(16))):
        router.tell(mine, Load(10 + above, 16))
        router.tell(other, Load(10, 16))
        assert [router.route("mine") for _ in range(5)] == [mine] * 5
    router.tell(mine, Load(11 + int(margin(16)), 16))
    assert other in [router.route("mine") for _ in range(5)]
    # Of another limit it is the share that counts.
    router = router_of("small", "large")
    for name, load in (("small", Load(8, 8)), ("large", Load(64, 64))):
        router.tell(name, load)
    assert {router.route(dialogue) for dialogue in range(2)} == {"small", "large"}


def test_the_sides_of_a_dialogue_are_apart() -> None:
    router = router_of("a", "b")
    places = {role: router.route("d", role) for role in ("user", "agent")}
    assert set(places.values()) == {"a", "b"}
    router.down(places["user"])
    assert router.route("d", "user") == places["agent"]
    router.release("d")
    assert (router.sides("a"), router.sides("b")) == (0, 0)


def test_what_is_down_is_left_and_used_again_and_with_all_down_nobody_moves() -> None:
    router = router_of("a", "b")
    place = router.route(0)
    other = "b" if place == "a" else "a"
    router.down(other)
    router.down(place)
    assert router.all_down
    assert router.route(0) == place
    router.down(other, False)
    assert not router.all_down
    assert router.route(0) == other
    router.down(place, False)
    assert router.route(1) == place


def test_replicas_come_and_go() -> None:
    router = router_of("a")
    assert {router.route(i) for i in range(20)} == {"a"}
    router.take("a", 20)
    router.set_replicas(["a", "b"])
    assert router.route("new") == "b"
    assert "b" in [router.route(i) for i in range(20)]  # and what is there already follows
    router.set_replicas(["b"])
    assert {router.route(i) for i in range(20)} == {"b"}
    router.take("a", -20)
    with pytest.raises(KeyError):
        router.sides("a")
    with pytest.raises(ValueError, match="needs a replica"):
        router.set_replicas([])


def test_every_client_turns_to_replicas_in_an_order_of_its_own() -> None:
    names = [f"r{i}" for i in range(64)]
    first = Counter(Router(names, f"walker-{w}.1:writer").route(0) for w in range(640))
    assert len(first) == 64
    assert max(first.values()) < 30  # ten each


def test_a_replica_is_sent_no_more_than_it_can_soon_begin() -> None:
    router = Router(["a"])
    router.take("a", 100)
    assert router.room("a") == UNTOLD
    router.send("a", UNTOLD)
    router.tell("a", Load(6, 16))
    assert router.room("a") == 16 + AHEAD * 16 - 6 - UNTOLD
    router.tell("a", Load(500, 16))
    assert router.room("a") == LEAST - UNTOLD
    router.send("a", -UNTOLD)
    assert router.room("a") == LEAST  # whose answers will tell how full it is


def test_an_empty_replica_takes_half_of_what_the_fullest_has_too_much() -> None:
    router = router_of("a", "b", "c")
    router.take("a", 36)
    router.send("a", 24)
    router.take("b", 20)
    router.send("b", 20)
    assert router.relief("c") == ("a", 18)
    assert router.relief("b") == ("a", 4)  # that is its room
    assert router.relief("a") is None
    router.take("c", 1)
    assert router.relief("c") is None  # it has work of its own to be sent


def outcome(scene: Scene, share: float, gather_s: float = 0.0) -> float:
    """Return the share of the turns of one queue, and hold that to the least."""
    routed = Routed(scene, every, gather_s=gather_s).play()
    reached = routed.done / one_queue(scene)
    assert reached > share, (reached, routed)
    return routed.moved


MIXED = tuple(random.Random(3).choice([0.5, 1.0, 2.0]) for _ in range(16))


@pytest.mark.parametrize(
    ("scene", "share"),
    [
        (Scene(load=1.6), 0.97),
        (Scene(load=2.0), 0.95),  # just enough for every place: no replica has any to spare
        (Scene(load=3.0), 0.98),
        (Scene(speeds=MIXED, load=2.0), 0.97),
        (Scene(speeds=MIXED, load=3.0), 0.97),
        (Scene(stragglers=0.01, counted=(60.0, 90.0)), 0.97),
    ],
    ids=["slack", "critical", "full", "speeds", "speeds and full", "stragglers"],
)
def test_sticky_clients_do_nearly_as_much_as_one_queue(scene: Scene, share: float) -> None:
    assert outcome(scene, share) < 0.1  # of the turns go elsewhere than before
    assert outcome(scene, share - 0.01, gather_s=0.02) < 0.1


def test_replicas_that_join_late_fill_up_at_once() -> None:
    # One begins, and the others come, one every 0.2 s, when all dialogues wait for it.
    scene = Scene(late={i: 4 + 0.2 * i for i in range(1, 16)}, counted=(8.0, 14.0))
    outcome(scene, 0.97)
    unbounded = Routed(scene, every, bounded=False).play()
    assert unbounded.done < 0.4 * one_queue(scene)  # what was sent has to wait there


def test_clients_that_use_some_of_many_replicas_leave_none_idle() -> None:
    scene = Scene(clients=8, speeds=(1.0,) * 32, counted=(12.0, 20.0))
    best = one_queue(scene)

    def some(names: list[str], client: str) -> Router:
        return Router(names, client, members=4)

    alone = Routed(scene, some, sounding_s=0.0).play()
    assert min(alone.busy) == 0.0  # their draws leave some out
    sounding = Routed(scene, some).play()
    assert min(sounding.busy) > 0.95
    assert sounding.done > 0.97 * best


def test_what_waits_a_moment_for_others_needs_fewer_calls() -> None:
    scene = Scene(clients=2, speeds=(1.0,) * 8, limit=48)
    at_once = Routed(scene, every).play()
    gathered = Routed(scene, every, gather_s=0.02).play()  # 1% of the time that a turn takes
    assert gathered.done > 0.98 * at_once.done
    assert gathered.calls < 0.8 * at_once.calls
    half = Routed(scene, lambda names, client: Router(names, client, members=4)).play()
    assert half.calls > 0.9 * at_once.calls  # which fewer replicas each do not bring
