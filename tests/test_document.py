"""Long texts as segments: every token once, each segment decoded, Stop and going on."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cramdemo import document, packing
from cramdemo.config import CramConfig
from cramdemo.decode import decode, greedy_prefix
from cramdemo.document import Segment, cram_document, decode_document, finished, pack
from cramdemo.errors import ConfigError, ModelError, ModelMismatch, TextError
from cramdemo.segments import from_bytes, to_bytes
from cramdemo.vectors import token_digest

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


def test_a_segment_ends_at_the_number_of_tokens_asked_for(tiny_lm):
    *_, last = _cram(tiny_lm, rows=2, segment_tokens=3)
    assert last.lossless and max(segment.num_tokens for segment in last.segments) == 3
    _covers(last.segments, len(IDS))
    with pytest.raises(ConfigError, match="segment of 0 tokens"):
        _cram(tiny_lm, segment_tokens=0)


@pytest.fixture(scope="module")
def whole(tiny_lm):
    """A text, its ids and its document as the file holds it, of many segments."""
    text = "The old man\u2019s sea \U0001f99c, and the other word; \u00e9t\u00e9."
    ids = tiny_lm.tokenize(text)
    with pytest.MonkeyPatch.context() as patch:
        for module in (packing, document):
            patch.setattr(module, "FIRST_TOKENS", 2)
        patch.setattr(packing, "ADDED_TOKENS", 1)
        *_, last = cram_document(tiny_lm, ids, CramConfig.for_model(tiny_lm, num_mem=1), segment_tokens=5)
    assert last.lossless
    return text, ids, from_bytes(to_bytes(pack(tiny_lm, ids, last.segments)))


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_a_document_is_decoded_in_order_though_characters_are_split_between_segments(tiny_lm, whole, rows):
    text, ids, found = whole
    assert found.complete and found.token_sha256 == token_digest(ids)
    parts = list(decode_document(tiny_lm, found, rows=rows))
    assert "".join(part.text for part in parts) == text and all(part.matches for part in parts)
    assert [token for part in parts for token in part.token_ids] == ids
    assert [part.start for part in parts] == [entry.start for entry in found.entries]
    alone = [tiny_lm.detokenize(part.token_ids) for part in parts]
    assert "".join(alone) != text, "no character is split, so this shows nothing"


def test_a_segment_is_decoded_alone_by_the_document_or_by_its_own_vectors(tiny_lm, whole):
    _, ids, found = whole
    (part,) = decode_document(tiny_lm, found, only=2)
    entry = found.entries[2]
    assert part.number == 2 and part.token_ids == ids[entry.start : entry.end] and part.matches
    assert decode(tiny_lm, found.segment(2)).token_ids == part.token_ids
    for only in (-1, len(found.entries)):
        with pytest.raises(ConfigError, match=f"Give a number from 1 to {len(found.entries)}"):
            decode_document(tiny_lm, found, only=only)


@pytest.mark.parametrize("number", [float("nan"), -5.0])
def test_a_damaged_segment_costs_only_itself(tiny_lm, whole, number):
    _, ids, found = whole
    mem = found.mem.clone()
    mem[1] = number
    parts = list(decode_document(tiny_lm, dataclasses.replace(found, mem=mem)))
    assert [part.number for part in parts if not part.matches] == [1]
    assert all(p.token_ids == ids[p.start : p.start + len(p.token_ids)] for p in parts if p.number != 1)


def test_a_document_that_was_stopped_goes_on_with_the_same_text_only(tiny_lm, whole):
    _, ids, found = whole
    half = dataclasses.replace(found, mem=found.mem[:3], entries=found.entries[:3])
    before = finished(tiny_lm, half, ids, 1)
    assert [segment.end for segment in before] == [entry.end for entry in half.entries]
    *_, last = cram_document(tiny_lm, ids, CramConfig.for_model(tiny_lm), done=before)
    assert last.lossless and all(torch.equal(a.mem, b) for a, b in zip(last.segments, half.mem, strict=False))
    partial = dataclasses.replace(half.entries[1], lossless=False)
    spoilt = dataclasses.replace(half, entries=(half.entries[0], partial, half.entries[2]))
    assert [segment.start for segment in finished(tiny_lm, spoilt, ids, 1)] == [0, half.entries[2].start]
    with pytest.raises(ConfigError, match="is of another text"):
        finished(tiny_lm, half, ids[:-1], 1)
    with pytest.raises(ConfigError, match="has 1 memory token a segment, not 2"):
        finished(tiny_lm, half, ids, 2)
    with pytest.raises(ModelMismatch, match="made for"):
        finished(tiny_lm, dataclasses.replace(half, model_fingerprint="0" * 64), ids, 1)
