"""Measures against numbers that can be worked out by hand, and against brute force."""

from __future__ import annotations

import math

import pytest
import torch

from cramdemo import ConfigError
from cramdemo.metrics import (
    correct_tokens,
    cross_entropy_bits,
    information_gain_bits,
    margins,
    solved_prefix,
    theoretical_capacity,
    token_gain,
)


def _random(shape: tuple[int, ...], vocabulary: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, shape, generator=generator)
    return torch.randn(*shape, vocabulary, generator=generator), ids


def test_uniform_logits_over_eight_tokens_cost_three_bits_each_token_0_included() -> None:
    ids = torch.tensor([[4, 0, 7, 7, 1]])
    torch.testing.assert_close(cross_entropy_bits(torch.zeros(1, 5, 8), ids), torch.full((1, 5), 3.0))


def test_a_token_of_probability_one_quarter_costs_two_bits_and_an_even_row_one() -> None:
    logits = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log()
    torch.testing.assert_close(cross_entropy_bits(logits, torch.tensor([[0, 1]])), torch.tensor([[2.0, 1.0]]))


def test_bits_of_half_precision_logits_are_computed_in_float32() -> None:
    logits, ids = _random((2, 3), 50)
    half = logits.to(torch.bfloat16)
    bits = cross_entropy_bits(half, ids)
    assert bits.dtype == torch.float32
    torch.testing.assert_close(bits, cross_entropy_bits(half.float(), ids), rtol=0, atol=0)


def test_prices_do_not_depend_on_the_other_texts_of_the_batch() -> None:
    logits, ids = _random((3, 4), 9)
    rows = [cross_entropy_bits(logits[i : i + 1], ids[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(cross_entropy_bits(logits, ids), torch.cat(rows))


def test_margins_equal_brute_force() -> None:
    logits, ids = _random((2, 5), 11)
    expected = [
        [
            float(row[token]) - max(float(x) for i, x in enumerate(row) if i != token)
            for row, token in zip(text, tokens.tolist(), strict=True)
        ]
        for text, tokens in zip(logits, ids, strict=True)
    ]
    torch.testing.assert_close(margins(logits, ids), torch.tensor(expected))


def test_a_tie_has_margin_zero_and_so_is_not_solved() -> None:
    logits = torch.tensor([[[2.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 3.0, 2.5]]])
    assert margins(logits, torch.tensor([[0, 1, 1]])).tolist() == [[0.0, 0.0, 0.5]]


def test_margins_let_gradient_through_to_the_right_token_and_its_rival_only() -> None:
    logits = torch.tensor([[[1.0, 4.0, 3.0, -2.0]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(margins(logits, torch.tensor([[2]])).sum(), logits)
    assert gradient.tolist() == [[[0.0, -1.0, 1.0, 0.0]]]


def test_a_positive_margin_means_a_correct_token() -> None:
    logits, ids = _random((4, 8), 3)
    assert torch.equal(correct_tokens(logits, ids), margins(logits, ids) > 0)
    assert 0 < correct_tokens(logits, ids).float().mean() < 1


def test_solved_prefix_counts_to_the_first_wrong_token() -> None:
    correct = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert solved_prefix(correct).tolist() == [2, 0, 4, 0]
    assert int(solved_prefix(torch.tensor([True, False, True]))) == 1


def test_information_gain_scores_tokens_1_to_the_last_on_both_sides() -> None:
    bare, mem = torch.tensor([5.0, 7.0]), torch.tensor([1000.0, 1.0, 0.5])
    assert information_gain_bits(bare, mem) == 10.5


def test_token_gain_scores_tokens_1_to_the_last_on_both_sides() -> None:
    bare, mem = torch.tensor([True, False, False]), torch.tensor([True, True, True, False])
    assert token_gain(bare, mem) == 1
    assert token_gain(torch.tensor([True, True, True]), torch.zeros(4, dtype=torch.bool)) == -3


def test_theoretical_capacity_of_one_vector_of_llama_3_2_1b_is_1931_tokens() -> None:
    assert math.floor(theoretical_capacity(1, 2048, 128256)) == 1931
    assert theoretical_capacity(3, 4, 16) == 3 * 4 * 16 / 4


@pytest.mark.parametrize("shape", [(1, 4, 8), (1, 6, 8), (2, 5, 8), (5, 8)])
def test_logits_without_one_row_a_token_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    ids = torch.zeros(1, 5, dtype=torch.int64)
    for measure in (cross_entropy_bits, correct_tokens, margins):
        with pytest.raises(ConfigError, match=r"\(1, 5\) tokens need one row"):
            measure(torch.zeros(shape), ids)
