"""Text with any characters comes back from its ids; what would not is refused before the run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cramdemo import FrozenLM, TextError, cram, load_model
from tests.families import TOKENIZERS, save_tokenizer

SPECIAL = "<|endoftext|>"
any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
AWKWARD = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f642",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
    "\tcolumn\r\nline\rline\n\n",
    "\x00\x01\x7f\ufeff\ufffd\uffff\U0010ffff",
    "e\u0301 \u00e9 \u2126 \ufb01",
    "  two  spaces , and ' quotes ' n't ",
    f"<s></s><unk>[PAD][MASK]<|im_start|>{SPECIAL}",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
]


def _awkward(test: Callable[..., None]) -> Callable[..., None]:
    for text in AWKWARD:
        test = example(text=text)(test)
    return test


@_awkward
@given(text=any_text)
def test_every_unicode_string_comes_back_from_the_built_in_tokenizer(built_in: FrozenLM, text: str) -> None:
    ids = built_in.tokenize(text)
    assert built_in.detokenize(ids) == text
    assert "".join(built_in.token_texts(ids)) == text
    assert all(0 <= i < built_in.vocab_size for i in ids)


@given(ids=st.lists(st.integers(0, 299), min_size=1, max_size=20))
def test_token_texts_of_any_ids_are_one_a_token_and_join_to_the_text(tiny_lm: FrozenLM, ids: list[int]) -> None:
    """What a half-trained vector decodes to is not always valid UTF-8."""
    pieces = tiny_lm.token_texts(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tiny_lm.detokenize(ids)


def test_a_character_of_several_tokens_belongs_to_its_last_one(tiny_lm: FrozenLM) -> None:
    ids = tiny_lm.tokenize("\U0001f642!")
    assert tiny_lm.token_texts(ids) == [""] * (len(ids) - 2) + ["\U0001f642", "!"]


def test_nothing_is_put_before_or_after_the_text(tiny_lm: FrozenLM) -> None:
    assert tiny_lm.tokenize("sea") + tiny_lm.tokenize(" men") == tiny_lm.tokenize("sea men")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "empty"), ("ab\ud800c", "surrogate"), ("\udfff", "surrogate"), ("\ude42\ud83d", "surrogate")],
)
def test_empty_text_and_lone_surrogates_are_refused_at_once(tiny_lm: FrozenLM, text: str, sentence: str) -> None:
    for refuse in (tiny_lm.tokenize, lambda bad: cram(tiny_lm, bad)):
        with pytest.raises(TextError, match=sentence):
            refuse(text)


@pytest.fixture
def other_tokenizer(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model in a folder of its own, tokenizer still to be replaced."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "other"))


def test_a_special_token_s_name_in_a_text_is_plain_text(other_tokenizer: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(other_tokenizer)
    tokenizer.add_special_tokens({"eos_token": SPECIAL})
    tokenizer.save_pretrained(other_tokenizer)
    lm = load_model(str(other_tokenizer), device="cpu")
    ids = lm.tokenize(f"a{SPECIAL}b")
    assert tokenizer.eos_token_id == lm.vocab_size  # beyond what the model can embed
    assert tokenizer.eos_token_id not in ids
    assert len(ids) > 10
    assert lm.detokenize(ids) == f"a{SPECIAL}b"


def test_a_tokenizer_that_loses_case_is_refused_before_the_run(other_tokenizer: Path) -> None:
    path = str(other_tokenizer / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(path)
    lm = load_model(str(other_tokenizer), device="cpu")
    with pytest.raises(TextError, match="does not give this text back exactly"):
        cram(lm, "The sea")  # not even asked for its first item
    assert lm.detokenize(lm.tokenize("the sea")) == "the sea"


# ---- the tokenizers of real families


@pytest.fixture(scope="module")
def with_tokenizer(tiny_lm: FrozenLM, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FrozenLM]:
    """The tiny model behind a tokenizer of another kind, loaded from the files that family has."""
    folder = tmp_path_factory.mktemp("tokenizers")

    def load(kind: str) -> FrozenLM:
        save_tokenizer(kind, folder / kind)
        tokenizer = AutoTokenizer.from_pretrained(folder / kind)
        return FrozenLM(kind, tiny_lm.model, tokenizer, fingerprint="0" * 64)

    return cache(load)


SPELT = "<s></s><unk><pad><bos><eos><0x0A><|endoftext|><|begin_of_text|><|eot_id|><|im_start|><table> <table>"
KEPT = {
    "plain": "The old sea, and the other men.",
    "one space": " sea",
    "spaces": "   the  sea    is  ",
    "lines": "\n\nThe sea\n\n\nis\r\n\told\n",
    "other letters": "caf\u00e9 na\u00efve \u041f\u0440\u0438\u0432\u0435\u0442 \u6d77\u306e\u8a71",
    "emoji": "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467! \U0001f642",
    "names": SPELT,
    "no character": "a\ufffdb \ufffd",
}
COMPOSING = {"GPT-NeoX", "Qwen"}  # e and an accent into one character
SPELLING = {"Llama 2", "Llama 2, from its file", "Gemma"}  # a space as "\u2581"
each_kind = pytest.mark.parametrize("kind", TOKENIZERS)


@each_kind
@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_a_text_comes_back_from_every_family_s_tokenizer(
    with_tokenizer: Callable[[str], FrozenLM], kind: str, text: str
) -> None:
    lm = with_tokenizer(kind)
    ids = lm.tokenize(text)
    assert lm.detokenize(ids) == "".join(lm.token_texts(ids)) == text
    assert len(lm.token_texts(ids)) == len(ids)
    assert not set(ids) & set(lm.tokenizer.all_special_ids)


@each_kind
@_awkward
@given(text=any_text)
@settings(max_examples=40)
def test_any_text_comes_back_exactly_or_is_refused(
    with_tokenizer: Callable[[str], FrozenLM], kind: str, text: str
) -> None:
    lm = with_tokenizer(kind)
    try:
        ids = lm.tokenize(text)
    except TextError:
        assert kind in COMPOSING | SPELLING
        return
    assert "".join(lm.token_texts(ids)) == text
    assert not set(ids) & set(lm.tokenizer.all_special_ids)


@each_kind
@given(ids=st.lists(st.integers(0, 300), min_size=1, max_size=20))
@settings(max_examples=40)
def test_token_texts_of_any_ids_of_any_tokenizer_join_to_the_text(
    with_tokenizer: Callable[[str], FrozenLM], kind: str, ids: list[int]
) -> None:
    """Of a run of byte tokens one bad byte spoils all, those before it as well."""
    lm = with_tokenizer(kind)
    assert len(lm.token_texts(ids)) == len(ids)
    assert "".join(lm.token_texts(ids)) == lm.detokenize(ids)


@pytest.mark.parametrize(
    ("text", "losing"), [("e\u0301", COMPOSING), ("a\u2581b", SPELLING)], ids=["composed", "spelt"]
)
def test_what_a_tokenizer_changes_it_refuses(
    with_tokenizer: Callable[[str], FrozenLM], text: str, losing: set[str]
) -> None:
    for kind in TOKENIZERS:
        lm = with_tokenizer(kind)
        if kind in losing:
            with pytest.raises(TextError, match=f"tokenizer of {kind} does not give this text back exactly"):
                lm.tokenize(text)
        else:
            assert lm.detokenize(lm.tokenize(text)) == text


def test_a_space_that_is_dropped_in_front_of_a_text_is_not_dropped_between_tokens(
    with_tokenizer: Callable[[str], FrozenLM],
) -> None:
    """Decoded one by one, each token used to lose it: "Theoldsea."."""
    lm = with_tokenizer("Llama 2")
    assert lm.token_texts(lm.tokenize("The old \U0001f642."))[-6:] == [" ", "", "", "", "\U0001f642", "."]


@each_kind
@pytest.mark.parametrize("name", [name for name in KEPT if name != "no character"])
def test_a_text_shown_while_it_is_written_only_ever_grows(
    with_tokenizer: Callable[[str], FrozenLM], kind: str, name: str
) -> None:
    """With byte fallback a character cut off used to take the whole run of them off the page."""
    lm = with_tokenizer(kind)
    ids = lm.tokenize(KEPT[name])
    shown = [lm.detokenize_so_far(ids[:count]) for count in range(len(ids) + 1)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))
    assert shown[-1] == KEPT[name]
