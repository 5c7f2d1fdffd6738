import gc
import subprocess
import sys
from pathlib import Path

from actors.speaking import Utterer
from cluster.domain_commands import TEMPLATE
from cluster.rehearsal import ALIVE, rehearse
from specs.domain import Domain
from specs.loader import open_domain
from specs.records import Dialogue, StopReason
from tests.unit.kiosk import kiosk

WITHOUT_DOCUMENTS = """\
domain: greeter
goals: ["Say hello."]
intents:
  greet:
    say: "Greet back."
    reference: ["Hello to you."]
states:
  hello:
    say: "Greet."
    reference: ["Hello."]
  bye:
    say: "Say goodbye."
    reference: ["Bye."]
edges:
  - {from: hello, intent: greet, to: bye}
start: hello
end: [bye]
"""


def words(dialogue: Dialogue) -> list[str]:
    return [turn.text for turn in dialogue.turns]


def template() -> Domain:
    return open_domain(TEMPLATE)


def test_the_template_plays_to_its_end_in_its_own_words() -> None:
    dialogues = rehearse(template(), 40, 0, 0)
    assert [one.index for one in dialogues] == list(range(40))
    assert {one.stop_reason for one in dialogues} == {StopReason.ENDED}
    turns = [turn for one in dialogues for turn in one.turns]
    assert {turn.source for turn in turns} == {"reference"}
    said = {turn.state for turn in turns if turn.role == "agent"}
    assert {"show_guides", "tool_lent", "tool_out", "chat", "repeat_step", "nothing_found"} <= said


def test_the_shipped_recipes_play() -> None:
    dialogues = rehearse(open_domain("recipe"), 20, 0, 0)
    assert {one.stop_reason for one in dialogues} == {StopReason.ENDED}


def test_a_dialogue_depends_on_its_index_and_the_seed_alone() -> None:
    domain = template()
    together = rehearse(domain, ALIVE + 4, 0, 3)
    alone = rehearse(domain, 1, ALIVE + 2, 3)
    assert words(alone[0]) == words(together[ALIVE + 2])
    other = rehearse(domain, 1, ALIVE + 2, 4)
    assert other[0].walk_id != alone[0].walk_id


def test_a_domain_needs_no_documents(tmp_path: Path) -> None:
    (tmp_path / "domain.yaml").write_text(WITHOUT_DOCUMENTS)
    dialogue = rehearse(open_domain(tmp_path), 1, 0, 0)[0]
    assert words(dialogue) == ["Hello.", "Hello to you.", "Bye."]


def test_neither_ray_nor_a_model_is_imported() -> None:
    code = (
        "import sys; from cluster.rehearsal import rehearse; from specs.loader import open_domain; "
        f"rehearse(open_domain({str(TEMPLATE)!r}), 1, 0, 0); "
        "sys.exit(bool({'ray', 'torch', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_turn_is_left_to_the_garbage_collector() -> None:
    """A circle would keep the prompt of every turn of thousands of dialogues."""
    gc.collect()
    gc.disable()
    try:
        list(rehearse(kiosk(), 3, 0, 7))
        left = [one for one in gc.get_objects() if isinstance(one, Utterer)]
    finally:
        gc.enable()
    assert left == []
