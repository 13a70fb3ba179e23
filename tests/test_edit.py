"""Edited vectors: what scaling and blending are, and what is counted of the text that comes of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cramdemo import ConfigError, CramConfig, ModelMismatch, run_cram
from cramdemo.edit import Edit, Edited, check_pair, decode_edited, edited

OTHER = "There is nothing good."


@pytest.fixture(scope="module")
def other(tiny_lm):
    """Vectors of another and longer text, as many as `crammed` has."""
    result = run_cram(tiny_lm, OTHER, CramConfig(num_mem=4, steps=800))
    assert result.lossless
    return result


def last_of(states):
    *_, last = states
    return last


def test_vectors_that_are_left_as_they_are_give_all_tokens(tiny_lm, crammed):
    states = list(decode_edited(tiny_lm, crammed.vectors, None, Edit()))
    assert [len(state.token_ids) for state in states] == list(range(1, crammed.num_tokens + 1))
    assert [state.ended for state in states] == [False] * (crammed.num_tokens - 1) + [True]
    assert states[-1].token_ids == states[-1].first_ids == tuple(crammed.token_ids)
    assert states[-1].marks == "1" * crammed.num_tokens
    assert states[-1].as_first == crammed.num_tokens


def test_vectors_scaled_to_nothing_lose_the_text(tiny_lm, crammed):
    last = last_of(decode_edited(tiny_lm, crammed.vectors, None, Edit(scale=0.0)))
    assert last.first_ids == tuple(crammed.token_ids), "the unedited text stands beside"
    assert last.as_first < crammed.num_tokens and "0" in last.marks
    assert last.marks.count("1") == last.as_first


def test_a_blend_goes_from_one_text_to_the_other(tiny_lm, crammed, other):
    ends = [
        last_of(decode_edited(tiny_lm, crammed.vectors, other.vectors, Edit(share=share))) for share in (0.0, 0.5, 1.0)
    ]
    assert [len(each.token_ids) for each in ends] == [crammed.num_tokens, other.num_tokens, other.num_tokens]
    assert ends[0].as_first == crammed.num_tokens
    assert ends[2].token_ids == tuple(other.token_ids) and ends[2].as_second == other.num_tokens
    assert ends[2].as_first < crammed.num_tokens


def test_edited_is_the_formula():
    first, second = torch.tensor([[1.0, 2.0]], dtype=torch.float16), torch.tensor([[3.0, -2.0]])
    assert edited(first, second, Edit(0.5, 0.25)).tolist() == [[0.75, 0.5]]
    assert edited(first, None, Edit(2.0, 0.25)).tolist() == [[2.0, 4.0]]
    assert edited(first, second, Edit()).dtype == torch.float32


def test_tokens_beyond_the_first_text_are_neither_right_nor_wrong():
    state = Edited(Edit(share=1.0), (1, 2, 3, 4), (1, 5), (1, 2, 3, 4), 4, 2, 4)
    assert state.marks == "10--"
    assert (state.as_first, state.as_second) == (1, 4)


@pytest.mark.parametrize("given", [{"scale": 2.1}, {"scale": -0.1}, {"share": 1.01}, {"scale": float("nan")}])
def test_numbers_out_of_range_are_refused(given):
    with pytest.raises(ConfigError, match="give a number from 0 to"):
        Edit(**given)


@pytest.mark.parametrize("value", [None, "1", True, [1]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ConfigError, match="share is"):
        Edit(share=value)


def test_only_vectors_of_one_model_and_one_number_are_blended(crammed):
    fewer = dataclasses.replace(crammed.vectors, mem=crammed.vectors.mem[:3])
    with pytest.raises(ModelMismatch, match="The first has 4 vectors and the second 3"):
        check_pair(crammed.vectors, fewer)
    foreign = dataclasses.replace(crammed.vectors, model_fingerprint="0" * 64)
    with pytest.raises(ModelMismatch, match="different models"):
        check_pair(crammed.vectors, foreign)


def test_another_model_s_vectors_are_not_decoded(built_in, crammed):
    with pytest.raises(ModelMismatch):
        next(decode_edited(built_in, crammed.vectors, None, Edit()))


def test_stop_ends_it_after_a_token(tiny_lm, crammed):
    assert len(list(decode_edited(tiny_lm, crammed.vectors, None, Edit(), lambda: True))) == 1
