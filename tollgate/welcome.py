"""What `tollgate up` prints when the stack serves: everything to paste, flush left and unwrapped, so that pasting works."""

import json
import shlex

from local_stack.endpoints import Endpoints
from local_stack.stack import Provider
from tollgate.invocation import Invocation

DEMO_MODEL = "gpt-4o-mini"
"""Of the demo catalogue, control_plane/demo.py."""

LATEST_CHARGE = (
    "SELECT request_id, model, outcome, meters, price_nano_usd FROM billing.requests ORDER BY seq DESC LIMIT 1"
)
LATEST_REQUEST = (
    "SELECT request_id, model, outcome, price_nano_usd, started_at FROM requests FINAL ORDER BY started_at DESC LIMIT 1"
)

_QUESTION = "Say hello in one short sentence."


def welcome(endpoints: Endpoints, providers: list[Provider], invocation: Invocation) -> str:
    """The whole text."""
    where = f"{invocation.python}, which has it" if invocation.has_sdk else "pip install openai"
    return f"""
Tollgate is ready.

  OpenAI base URL     {endpoints.openai_base_url}
  Anthropic base URL  {endpoints.anthropic_base_url}
  API key             {endpoints.api_key}
  Control plane       {", ".join(endpoints.control_plane_urls)}
  Operator token      {endpoints.operator_token}
  Console             {endpoints.control_plane_url}/console/sign-in#token={endpoints.operator_token}
  Providers           {", ".join(_described(provider) for provider in providers)}

Try it from a shell:

{curl_line(endpoints)}

Or from Python, with the official SDK ({where}):

{python_snippet(endpoints)}

The latest charge in the ledger, and the latest request in ClickHouse, a second after the answer:

{invocation.line("psql", "-x", "-c", LATEST_CHARGE)}
{invocation.line("clickhouse", LATEST_REQUEST)}

Ctrl-C stops everything; the data stays.
"""


def curl_line(endpoints: Endpoints) -> str:
    """A request as one line for a shell."""
    body = {"model": DEMO_MODEL, "messages": [{"role": "user", "content": _QUESTION}]}
    return shlex.join([
        *("curl", "-sS", f"{endpoints.openai_base_url}/chat/completions"),
        *("-H", f"Authorization: Bearer {endpoints.api_key}"),
        *("-H", "Content-Type: application/json"),
        *("-d", json.dumps(body)),
    ])  # fmt: skip


def python_snippet(endpoints: Endpoints) -> str:
    """The same request in Python. No indented block, so that the interactive prompt takes it line by line."""
    return f"""from openai import OpenAI
client = OpenAI(base_url="{endpoints.openai_base_url}", api_key="{endpoints.api_key}")
messages = [{{"role": "user", "content": "{_QUESTION}"}}]
answer = client.chat.completions.create(model="{DEMO_MODEL}", messages=messages)
print(answer.choices[0].message.content)"""


def _described(provider: Provider) -> str:
    return f"{provider.name} ({'real' if provider.is_real else 'simulated'})"
