"""OpenAI's Responses, in text alone. Pure.

Source: the API reference of OpenAI, responses, objects and streaming events.
"""

from typing import Annotated, Literal

from pydantic import Field

from simulator.chat import Answer, ChatRequest, Ending, JsonObject, Message, Reply, Usage
from simulator.dialect import Body, ModelName, OutputTokensMax, parse_body
from simulator.frames import SLOT, Template, compact, sse
from simulator.openai_chat import OpenAiChat
from simulator.shelves import KeptResponse, Shelf


class _Part(Body):
    type: str
    text: str | None = None


class _Item(Body):
    type: str = "message"
    role: Literal["developer", "system", "user", "assistant"] | None = None
    content: str | list[_Part] | None = None

    def message(self) -> Message:
        if isinstance(self.content, str):
            return Message(self.content, from_user=self.role == "user")
        parts = self.content or []
        return Message(
            text="".join(part.text for part in parts if part.text is not None),
            attachments=sum(part.text is None for part in parts),
            from_user=self.role == "user",
        )


class _Request(Body):
    model: ModelName
    input: str | Annotated[list[_Item], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: OutputTokensMax | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    tools: list[JsonObject] | None = None


class OpenAiResponses(OpenAiChat):
    """The dialect of `/v1/responses`, for one request: headers and errors are those of chat. Tools are counted and never called.

    What is to be kept has an id like no other's; everything else has ids by what was asked for.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._kept_as: str | None = None
        self._messages: tuple[Message, ...] = ()
        self._said: tuple[Message, ...] = ()

    def parse(self, body: bytes) -> ChatRequest:
        """Read the body of a request for a response."""
        request = parse_body(_Request, body)
        instructions = [Message(request.instructions)] if request.instructions else []
        tools = [Message(compact(tool)) for tool in request.tools or ()]
        said = (
            [Message(request.input, from_user=True)]
            if isinstance(request.input, str)
            else [item.message() for item in request.input]
        )
        if request.store:
            self._kept_as = self._shelf.shelves.new_id("resp")
        if request.previous_response_id is not None:
            before = self._shelf.response(request.previous_response_id, param="previous_response_id")
            self._messages = before.messages
        self._said = tuple(said)
        return ChatRequest(
            model=request.model,
            messages=(*instructions, *tools, *self._messages, *said),
            output_tokens_max=request.max_output_tokens,
            stream=request.stream or False,
        )

    def unary(self, answer: Answer) -> JsonObject:
        """A `response` that has ended."""
        (reply,) = answer.replies
        incomplete = reply.ending is Ending.LENGTH
        response = self._response(answer, "incomplete" if incomplete else "completed")
        response["output"] = [_message(answer, reply, "completed")]
        response["incomplete_details"] = {"reason": "max_output_tokens"} if incomplete else None
        response["usage"] = _usage(answer.usage) if answer.report_usage else None
        self._keep(response, reply)
        return response

    def _response(self, answer: Answer, status: str) -> JsonObject:
        return _response(answer, status) | ({} if self._kept_as is None else {"id": self._kept_as, "store": True})

    def _keep(self, response: JsonObject, reply: Reply) -> None:
        if self._kept_as is None:
            return
        items: tuple[JsonObject, ...] = tuple(
            {
                "id": self._shelf.shelves.new_id("msg"),
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": [{"type": "input_text", "text": message.text}],
            }
            for message in self._said
        )
        messages = (*self._messages, *self._said, Message(reply.text))
        self._shelf.put(self._kept_as, KeptResponse(response, items, messages))

    def stream(self, answer: Answer) -> list[bytes]:
        """Named events, from `response.created` to the one that has the usage."""
        (reply,) = answer.replies
        begun = self._response(answer, "in_progress")
        place: JsonObject = {"item_id": answer.stamp.id("msg_", 48), "output_index": 0, "content_index": 0}
        delta = Template(
            _event("response.output_text.delta", place | {"delta": SLOT, "logprobs": [], "sequence_number": 0})
        )
        ended = self.unary(answer)
        return [
            _event("response.created", {"response": begun, "sequence_number": 0}),
            _event(
                "response.output_item.added",
                {"output_index": 0, "item": _message(answer, reply, "in_progress"), "sequence_number": 1},
            ),
            _event(
                "response.content_part.added",
                place | {"part": {"type": "output_text", "text": "", "annotations": []}, "sequence_number": 2},
            ),
            *(delta.fill(piece) for piece in reply.pieces),
            _event("response.output_text.done", place | {"text": reply.text, "logprobs": [], "sequence_number": 3}),
            _event(
                "response.output_item.done",
                {"output_index": 0, "item": _message(answer, reply, "completed"), "sequence_number": 4},
            ),
            _event(f"response.{ended['status']}", {"response": ended, "sequence_number": 5}),
        ]


def _event(kind: str, data: JsonObject) -> bytes:
    return sse({"type": kind} | data, event=kind)


def _response(answer: Answer, status: str) -> JsonObject:
    return {
        "id": answer.stamp.id("resp_", 48),
        "object": "response",
        "created_at": int(answer.stamp.at.timestamp()),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": answer.model,
        "output": [],
        "parallel_tool_calls": True,
        "service_tier": "default",
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
        "metadata": {},
    }


def _message(answer: Answer, reply: Reply, status: str) -> JsonObject:
    text: JsonObject = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    return {
        "id": answer.stamp.id("msg_", 48),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if status == "in_progress" else [text],
    }


def _usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
