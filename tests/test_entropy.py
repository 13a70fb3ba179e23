"""The entropy law: its fit, the texts, and what is measured."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cramdemo import FrozenLM, entropy
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.entropy import (
    KINDS,
    LENGTHS,
    MOST_OWN,
    OWN,
    PROSE,
    REPEATED,
    WORDS,
    Point,
    Text,
    _capacity,
    fit_capacity,
    measure,
    paragraphs,
    sample_texts,
)
from cramdemo.errors import ModelError, TextError
from cramdemo.metrics import cross_entropy_bits
from cramdemo.step import Scored

bits = st.floats(0, 2000)


def _error(capacity: float, h_lm: list[float], h_mem: list[float]) -> float:
    return sum((y - max(0.0, x - capacity)) ** 2 for x, y in zip(h_lm, h_mem, strict=True))


def test_points_of_the_law_give_its_capacity_back() -> None:
    h_lm = [100.0, 250.0, 400.0, 800.0]
    assert fit_capacity(h_lm, [max(0.0, x - 300.0) for x in h_lm]) == pytest.approx(300.0)


@given(points=st.lists(st.tuples(bits, bits), min_size=1, max_size=8), other=bits)
def test_no_other_capacity_fits_better(points: list[tuple[float, float]], other: float) -> None:
    h_lm, h_mem = [x for x, _ in points], [y for _, y in points]
    found = fit_capacity(h_lm, h_mem)
    if found is not None:
        assert _error(found, h_lm, h_mem) <= _error(other, h_lm, h_mem) * (1 + 1e-9) + 1e-6


def test_nothing_is_fitted_where_every_text_fits() -> None:
    assert fit_capacity([10.0, 20.0], [0.0, 0.0]) is None


def test_texts_of_each_kind_have_each_length(built_in: FrozenLM) -> None:
    texts = sample_texts(built_in, "A first paragraph of mine. " * 20 + "\n\n" + "A second one, shorter. " * 8)
    for kind in (PROSE, WORDS, REPEATED):
        assert sorted({len(text.token_ids) for text in texts if text.kind == kind}) == list(LENGTHS)
    own = [len(text.token_ids) for text in texts if text.kind == OWN]
    assert own[0] == LENGTHS[-1] and own[1] in LENGTHS[:-1]
    assert len({text.token_ids for text in texts}) == len(texts)
    assert sample_texts(built_in) == sample_texts(built_in)
    assert sample_texts(built_in) != sample_texts(built_in, seed=1)


def test_random_words_surprise_and_repeated_text_does_not(built_in: FrozenLM) -> None:
    texts = [text for text in sample_texts(built_in) if len(text.token_ids) == LENGTHS[-1]]

    def cost(kind: str) -> float:
        ids = torch.tensor([text.token_ids for text in texts if text.kind == kind])
        return float(cross_entropy_bits(built_in.bare_logits(ids), ids[:, 1:]).sum(-1).mean())

    assert cost(WORDS) > 1.5 * cost(PROSE) > 1.5 * cost(REPEATED)


def test_a_short_paragraph_is_refused_and_no_more_than_a_few_are_taken(built_in: FrozenLM) -> None:
    with pytest.raises(TextError, match="24 are the least"):
        sample_texts(built_in, "Too short.")
    assert len(paragraphs("a\n\n \nb\n\nc\n\nd\n\ne")) == MOST_OWN


def _texts(count: int, length: int = 6) -> list[Text]:
    return [Text(KINDS[i % 4], tuple(range(10 * i, 10 * i + length + i % 2))) for i in range(count)]


def test_every_text_is_measured_under_the_bare_model_and_gets_cheaper(tiny_lm: FrozenLM) -> None:
    texts = _texts(5)
    states = list(measure(tiny_lm, texts, steps=30))
    assert [state.stage for state in states].count("done") == 1 and states[-1].step == 30
    for text, first, last in zip(texts, states[0].points, states[-1].points, strict=True):
        ids = torch.tensor([text.token_ids])
        bare = float(cross_entropy_bits(tiny_lm.bare_logits(ids), ids[:, 1:]).sum())
        assert (last.kind, last.num_tokens) == (text.kind, len(text.token_ids))
        assert last.h_lm == pytest.approx(bare, rel=1e-4)
        assert last.h_mem < first.h_mem


def test_a_text_s_bits_are_those_of_a_vector_that_cram_would_score_alike(tiny_lm: FrozenLM) -> None:
    text = _texts(1)[0]
    first, *_ = measure(tiny_lm, [text], steps=1, seed=3)
    result = run_cram(tiny_lm, list(text.token_ids), CramConfig(steps=1, seed=3, init="embedding", learning_rate=1e-6))
    assert first.points[0].h_mem == pytest.approx(float(result.token_bits[1:].sum()), rel=1e-3)


def test_stop_keeps_what_is_there(tiny_lm: FrozenLM) -> None:
    states = list(measure(tiny_lm, _texts(2), steps=50, stop=lambda: True))
    assert [state.stage for state in states] == ["stopped"] and states[0].points


def test_time_that_is_up_ends_it_with_what_is_there(tiny_lm: FrozenLM) -> None:
    states = list(measure(tiny_lm, _texts(2), steps=10_000, seconds=0.1))
    assert states[-1].stage == "seconds" and states[-1].step < 10_000


def test_texts_that_are_all_held_tell_no_capacity() -> None:
    held, other = Point(PROSE, 24, 150.0, 0.3, 24), Point(PROSE, 96, 500.0, 200.0, 60)
    assert _capacity([held, held]) is None
    assert _capacity([held, other]) == pytest.approx(300.0)
    assert _capacity([held, other, Point(REPEATED, 96, 900.0, 0.0, 96)]) == pytest.approx(300.0)


def test_costs_that_are_no_numbers_are_said_in_a_sentence(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(lm: FrozenLM, mem: torch.Tensor, ids: torch.Tensor, **_: float) -> Scored:
        nothing = torch.full(ids.shape, torch.nan)
        return Scored(nothing, nothing, ids, torch.zeros_like(mem))

    monkeypatch.setattr(entropy, "score", overflowing)
    with pytest.raises(ModelError, match="overflow in float32"):
        list(measure(tiny_lm, _texts(1)))


def test_no_texts_and_texts_of_one_token_are_refused(tiny_lm: FrozenLM) -> None:
    for texts in ([], [Text(PROSE, (1,))], [Text(PROSE, tuple(range(128)))]):
        with pytest.raises(TextError, match="2 to 127 tokens"):
            measure(tiny_lm, texts)
