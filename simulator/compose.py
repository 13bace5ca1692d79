"""Decides what is answered: from a request and the knobs to replies and their usage. Pure."""

from typing import Final

from simulator.chat import Answer, ChatRequest, Ending, Reply, Stamp, Usage
from simulator.frames import compact
from simulator.knobs import Fault, Knobs
from simulator.refusal import RefusalError
from simulator.schema_example import example
from simulator.words import cut_at, fingerprint, json_pieces, prose

ANSWER_TOKENS_MAX: Final = 200_000
"""That knobs may ask for over all replies of one answer, which is built whole in memory."""


def compose(request: ChatRequest, knobs: Knobs, fault: Fault | None, stamp: Stamp) -> Answer:
    """Answer a request whose directives are already taken out.

    Raises:
        RefusalError: more output than one answer may have, or a schema that no example can be made for.
    """
    if request.choices * (knobs.output_tokens or 0) > ANSWER_TOKENS_MAX:
        raise RefusalError(400, f"output_tokens times choices is more than {ANSWER_TOKENS_MAX}")
    reasoning = knobs.reasoning_tokens
    visible_max = None
    if request.output_tokens_max is not None:
        reasoning = min(reasoning, request.output_tokens_max)
        visible_max = request.output_tokens_max - reasoning
    seed = request.seed
    replies = tuple(
        _reply(request, knobs.output_tokens, visible_max, fingerprint((seed, str(index))))
        for index in range(request.choices)
    )
    input_tokens = request.input_tokens
    cached = min(knobs.cached_tokens, input_tokens)
    return Answer(
        model=request.model,
        replies=replies,
        usage=Usage(
            input_tokens=input_tokens,
            cached_tokens=cached,
            cache_write_tokens=min(knobs.cache_write_tokens, input_tokens - cached),
            output_tokens=sum(len(reply.pieces) + reasoning for reply in replies),
            reasoning_tokens=reasoning * len(replies),
        ),
        stamp=stamp,
        report_usage=fault is not Fault.NO_USAGE,
        stream_usage=request.stream_usage,
    )


def _reply(request: ChatRequest, tokens: int | None, visible_max: int | None, seed: str) -> Reply:
    ending, tool, stop_sequence = Ending.STOP, None, None
    if request.call is not None:
        ending, tool = Ending.TOOL_CALL, request.call.name
        pieces = json_pieces(compact(example(request.call.schema, seed)))
    else:
        if request.json_schema is not None:
            pieces = json_pieces(compact(example(request.json_schema, seed)))
        else:
            pieces = prose(seed, tokens)
        pieces, stop_sequence = cut_at(pieces, request.stops)
        if stop_sequence is not None:
            ending = Ending.STOP_SEQUENCE
    if visible_max is not None and len(pieces) > visible_max:
        return Reply(pieces[:visible_max], Ending.LENGTH, tool)
    return Reply(pieces, ending, tool, stop_sequence)
