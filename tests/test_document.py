"""Long texts as segments: every token once, each segment decoded, Stop and going on."""

from __future__ import annotations

import pytest
import torch

from cramdemo import document, packing
from cramdemo.config import CramConfig
from cramdemo.decode import greedy_prefix
from cramdemo.document import Segment, cram_document
from cramdemo.errors import ModelError, TextError

IDS = [(7 * n + n // 40) % 290 for n in range(1, 70)]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Segments that a tiny model can hold."""
    for module in (packing, document):
        monkeypatch.setattr(module, "FIRST_TOKENS", 4)
    monkeypatch.setattr(packing, "ADDED_TOKENS", 1)


def _cram(lm, ids=IDS, **given):
    return list(cram_document(lm, ids, CramConfig.for_model(lm, num_mem=2), **given))


def _covers(segments, num_tokens):
    at = 0
    for segment in segments:
        assert segment.start == at
        at = segment.end
    assert at == num_tokens


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_every_token_is_in_one_segment_and_each_decodes_alone(tiny_lm, rows):
    *_, last = _cram(tiny_lm, rows=rows)
    assert last.reason == "done" and last.lossless and last.tokens_done == len(IDS)
    _covers(last.segments, len(IDS))
    for segment in last.segments:
        ids = IDS[segment.start : segment.end]
        correct, margin = greedy_prefix(tiny_lm, segment.mem, ids)
        assert correct == len(ids) and margin == pytest.approx(segment.min_margin, abs=1e-3)
    assert last.tokens_a_vector == pytest.approx(len(IDS) / (2 * len(last.segments)))
    assert last.flops > 0 and last.steps > 0 and last.running == ()


def test_the_same_again_gives_the_same_bits(tiny_lm):
    (*_, one), (*_, two) = _cram(tiny_lm, rows=3), _cram(tiny_lm, rows=3)
    assert len(one.segments) == len(two.segments) and one.steps == two.steps
    assert all(torch.equal(a.mem, b.mem) for a, b in zip(one.segments, two.segments, strict=True))


def test_the_batch_is_full_until_little_is_left(tiny_lm, monkeypatch):
    monkeypatch.setattr(document, "YIELD_SECONDS", 0.0)
    states = _cram(tiny_lm, rows=4)
    full = [state for state in states[:-1] if len(state.running) == 4]
    assert len(full) > 0.6 * len(states)
    counts = [state.tokens_done for state in states]
    assert counts == sorted(counts)


def test_stop_keeps_what_is_finished_and_the_rest_can_be_done_later(tiny_lm, monkeypatch):
    monkeypatch.setattr(document, "YIELD_SECONDS", 0.0)
    states = []
    for state in cram_document(
        tiny_lm,
        IDS,
        CramConfig.for_model(tiny_lm, num_mem=2),
        rows=3,
        stop=lambda: bool(states) and len(states[-1].segments) >= 4,
    ):
        states.append(state)
    stopped = states[-1]
    assert stopped.reason == "stopped" and not stopped.lossless and len(stopped.segments) >= 4
    *_, last = _cram(tiny_lm, rows=3, done=stopped.segments)
    assert last.lossless
    _covers(last.segments, len(IDS))
    kept = {segment.start: segment for segment in last.segments}
    assert all(kept[segment.start] is segment for segment in stopped.segments)


def test_what_does_not_decode_is_done_again(tiny_lm, monkeypatch):
    """As if rounding had spoilt the third token of each first try."""
    real, seen = document.greedy_side_by_side, []

    def spoilt(lm, mem, texts, **given):
        found = real(lm, mem, texts, **given)
        first = not seen
        seen.append(texts)
        return [(min(count, 2), margin) for count, margin in found] if first else found

    monkeypatch.setattr(document, "greedy_side_by_side", spoilt)
    *_, last = _cram(tiny_lm, rows=4)
    assert last.lossless and len(seen) > 1
    _covers(last.segments, len(IDS))
    assert [s.num_tokens for s in last.segments].count(2) >= len(seen[0])


def test_a_token_that_cannot_be_had_is_partial_and_the_rest_goes_on(tiny_lm, monkeypatch):
    monkeypatch.setattr(document, "greedy_side_by_side", lambda lm, mem, texts, **given: [(0, 0.0)] * len(texts))
    *_, last = _cram(tiny_lm, IDS[:6], rows=2)
    assert last.reason == "done" and not last.lossless and last.lossless_tokens == 0
    _covers(last.segments, 6)


def test_finished_segments_leave_gaps():
    def segment(start, end):
        return Segment(start, end - start, torch.zeros(1, 1), True, 1.0)

    def spans(lanes):
        return [(lane.at, lane.end) for lane in lanes]

    assert spans(document._gaps([segment(4, 7), segment(7, 9)], 12)) == [(0, 4), (9, 12)]
    assert spans(document._gaps([], 5)) == [(0, 5)]
    assert spans(document._parted([document._Lane(0, 100)], 4, 10)) == [(0, 25), (25, 50), (50, 75), (75, 100)]
    assert spans(document._parted([document._Lane(0, 35)], 4, 10)) == [(0, 11), (11, 23), (23, 35)]
    assert spans(document._parted([document._Lane(0, 9)], 4, 10)) == [(0, 9)]


def test_an_empty_text_is_refused(tiny_lm):
    with pytest.raises(TextError, match="empty"):
        _cram(tiny_lm, [])


@pytest.mark.parametrize("after", [0, 200])
def test_out_of_memory_keeps_what_is_finished(tiny_lm, monkeypatch, after):
    real, count = packing.Batch.step, [0]

    def failing(self):
        count[0] += 1
        if count[0] > after:
            raise torch.OutOfMemoryError
        return real(self)

    monkeypatch.setattr(packing.Batch, "step", failing)
    if after:
        *_, last = _cram(tiny_lm, rows=2)
        assert last.reason == "memory" and last.segments and not last.lossless
    else:
        with pytest.raises(ModelError, match="not enough memory"):
            _cram(tiny_lm)
