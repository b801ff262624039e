"""Ids of traces: the same in all processes, and in the form of the W3C."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.tracing.context import TraceContext, frame_context, parse
from watchout.common.tracing.sampling import TraceSampler

KNOWN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_ids_of_a_frame_are_the_same_in_every_process_and_of_no_other_frame() -> None:
    begun = frame_context("cam-1", 7, 42)
    assert begun == frame_context("cam-1", 7, 42)
    others = [frame_context("cam-2", 7, 42), frame_context("cam-1", 8, 42), frame_context("cam-1", 7, 43)]
    assert len({each.trace_id for each in (begun, *others)}) == 4
    spans = [begun.child("ml request"), begun.child("alert accepted", "a"), begun.child("alert accepted", "b")]
    assert {each.trace_id for each in spans} == {begun.trace_id}
    assert len({each.span_id for each in (begun, *spans)}) == 4


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read(trace: int, span: int, sampled: bool) -> None:
    context = TraceContext(trace, span, sampled)
    assert parse(context.traceparent) == context


@pytest.mark.parametrize(
    "wrong",
    [None, 7, "", "00", KNOWN[:-1], KNOWN.upper(), KNOWN + "-x", "ff" + KNOWN[2:], KNOWN + "\n", "\u0660" + KNOWN[1:],
     "00-" + "0" * 32 + KNOWN[35:], KNOWN[:36] + "0" * 16 + "-01", "cc" + KNOWN[2:] + "-" + "x" * 600],
)  # fmt: skip
def test_what_is_no_context_is_none(wrong: object) -> None:
    assert parse(wrong) is None


def test_a_context_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse("cc" + KNOWN[2:] + "-more") == parse(KNOWN)
    assert parse(KNOWN[:-2] + "00") == TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, False)


@pytest.mark.parametrize(
    ("environ", "ratio", "faulty"),
    [
        ({}, 1, False),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 0, False),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25, False),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, 1, False),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, 1, True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, 1, True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "some"}, 1, True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"}, 1, True),
    ],
)
def test_the_sampler_is_that_of_the_environment(environ: dict[str, str], ratio: float, faulty: bool) -> None:
    sampler = TraceSampler.of(environ)
    assert (sampler.ratio, bool(sampler.fault)) == (ratio, faulty)


def test_about_the_wanted_share_of_frames_is_traced_and_a_smaller_share_is_a_part_of_it() -> None:
    ids = [frame_context("cam", 1, number).trace_id for number in range(2000)]
    tenth = {each for each in ids if TraceSampler(0.1).takes(each)}
    assert 120 < len(tenth) < 280
    assert {each for each in ids if TraceSampler(0.05).takes(each)} <= tenth
    assert all(TraceSampler(1.0).takes(each) for each in [*ids, 2**128 - 1])
    assert not any(TraceSampler(0.0).takes(each) for each in ids)


def test_the_sampler_decides_as_opentelemetry_does() -> None:
    sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling")
    theirs, ours = sampling.TraceIdRatioBased(0.3), TraceSampler(0.3)
    for number in range(200):
        trace = frame_context("cam", 2, number).trace_id
        assert theirs.should_sample(None, trace, "x").decision.is_sampled() == ours.takes(trace)
