"""The calls that 2026-07-28 answers with a question first: ``input_required``, then the same call again.

Every function takes the parameters of one round and returns a question or the final text. What a round must
remember is plain text in ``requestState``; the SDK's boundary seals it on the way out and refuses a changed
one on the way in (-32602), so what arrives here is what was sent from here.

Source: specification 2026-07-28, basic/patterns/mrtr.
"""

from __future__ import annotations

import json
from typing import TypeVar

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    InputResponseRequestParams,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)

Round = InputRequiredResult | str
"""A question for the client, or the text of the final answer."""

Answer = TypeVar("Answer", ElicitResult, ListRootsResult, CreateMessageResult)


def elicit(message: str, field: str, kind: str = "string") -> ElicitRequest:
    """A form with one required field."""
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(prompt: str, max_tokens: int = 100) -> CreateMessageRequest:
    """A request for the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def said(result: CreateMessageResult | CreateMessageResultWithTools) -> str:
    """The text a model answered, or an empty one for a picture or a sound."""
    content = result.content
    blocks = content if isinstance(content, list) else [content]
    return " ".join(block.text for block in blocks if isinstance(block, TextContent))


def ask_elicitation(params: InputResponseRequestParams) -> Round:
    name = _form_field(params, "user_name", "name")
    if name is None:
        return _ask({"user_name": elicit("What is your name?", "name")})
    return f"Hello, {name}!"


def ask_sampling(params: InputResponseRequestParams) -> Round:
    answer = _answer(params, "capital_question", CreateMessageResult)
    if answer is None:
        return _ask({"capital_question": sample("What is the capital of France?")})
    return f"The client's model said: {said(answer)}"


def ask_list_roots(params: InputResponseRequestParams) -> Round:
    answer = _answer(params, "client_roots", ListRootsResult)
    if answer is None:
        return _ask({"client_roots": ListRootsRequest()})
    return "Roots: " + ", ".join(str(root.uri) for root in answer.roots)


def ask_request_state(params: InputResponseRequestParams) -> Round:
    answer = _answer(params, "confirm", ElicitResult)
    if answer is None:
        return _ask({"confirm": elicit("Please confirm", "ok", "boolean")}, state="awaiting confirmation")
    if params.request_state != "awaiting confirmation":
        raise MCPError(INVALID_PARAMS, "requestState is missing")
    return "state-ok"


def ask_multiple_inputs(params: InputResponseRequestParams) -> Round:
    name = _form_field(params, "user_name", "name")
    greeting = _answer(params, "greeting", CreateMessageResult)
    roots = _answer(params, "client_roots", ListRootsResult)
    if name is None or greeting is None or roots is None:
        questions: dict[str, InputRequest] = {
            "user_name": elicit("What is your name?", "name"),
            "greeting": sample("Generate a greeting", max_tokens=50),
            "client_roots": ListRootsRequest(),
        }
        return _ask(questions, state="awaiting three answers")
    return f"{said(greeting)} {name}, {len(roots.roots)} root(s) known"


def ask_multi_round(params: InputResponseRequestParams) -> Round:
    """Two questions, one after the other; the state carries the first answer to the last round."""
    state = json.loads(params.request_state) if params.request_state else {}
    name = state.get("name")
    if name is None:
        name = _form_field(params, "step1", "name")
    if name is None:
        question = elicit("Step 1: What is your name?", "name")
        return _ask({"step1": question}, state=json.dumps({"step": 1}))
    color = _form_field(params, "step2", "color")
    if color is None:
        question = elicit("Step 2: What is your favorite color?", "color")
        return _ask({"step2": question}, state=json.dumps({"step": 2, "name": name}))
    return f"{name} likes {color}"


def ask_prompt_context(params: InputResponseRequestParams) -> Round:
    context = _form_field(params, "user_context", "context")
    if context is None:
        return _ask({"user_context": elicit("What context should the prompt use?", "context")})
    return f"Use this context: {context}"


def ask_what_the_client_can(
    params: InputResponseRequestParams, capabilities: ClientCapabilities | None
) -> Round:
    """Ask only for what the client declared with this very request."""
    can = capabilities or ClientCapabilities()
    questions: dict[str, InputRequest] = {}
    if can.sampling is not None:
        questions["greeting"] = sample("Generate a greeting", max_tokens=50)
    if can.elicitation is not None:
        questions["user_name"] = elicit("What is your name?", "name")
    if can.roots is not None:
        questions["client_roots"] = ListRootsRequest()
    answered = params.input_responses or {}
    if questions.keys() <= answered.keys():
        return f"{len(questions)} question(s) answered"
    return _ask(questions)


def _ask(questions: dict[str, InputRequest], state: str | None = None) -> InputRequiredResult:
    return InputRequiredResult(input_requests=questions, request_state=state)


def _answer(params: InputResponseRequestParams, key: str, kind: type[Answer]) -> Answer | None:
    """The answer to one question, or ``None`` where it is absent or answers something else."""
    value = (params.input_responses or {}).get(key)
    return value if isinstance(value, kind) else None


def _form_field(params: InputResponseRequestParams, key: str, field: str) -> str | None:
    form = _answer(params, key, ElicitResult)
    value = (form.content or {}).get(field) if form is not None else None
    return value if isinstance(value, str) else None
