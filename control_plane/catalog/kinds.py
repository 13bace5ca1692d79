"""What all providers of a kind have in common: a row of facts for each kind, and no code for any. Pure.

Where a kind is served and how it is authenticated to is from its vendor's API reference; `docs/PROVIDERS.md` has the same table
for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway_core.contract import Header
from gateway_core.providers import ProviderKind


@dataclass(frozen=True, slots=True)
class KindTemplate:
    """A kind.

    Attributes:
        base_url: where its vendor serves it; what stands in braces is the operator's to fill in.
        credential_header: the header that carries the credential.
        credential_prefix: what stands before the credential in it.
        requires_credential: whether it cannot be asked without one. Kinds that were there before this was known do not say so:
            there are servers of their kind that ask for none.
        signing_service: the AWS service for which requests are signed, if the credential is an access key of AWS.
        default_headers: sent when the client did not send its own.
        refuses_stream_options: whether it answers an error to what makes others send usage at the end of a stream. Its streams
            end with usage anyway.
        output_bound: the field that bounds the output of a chat, where it takes no notice of `max_completion_tokens`.
        chat_fields: its names for other fields of a chat, None for those that it refuses. Only what the translator writes is told
            so: what a client of chat writes itself passes, and the provider answers for it.
        probe_path: behind the base URL, what can be asked for that costs nothing, to see whether it is there; None if there is nothing.
        notes: what an operator should know of it.
    """

    base_url: str
    credential_header: str = Header.AUTHORIZATION
    credential_prefix: str = "Bearer "
    requires_credential: bool = False
    signing_service: str | None = None
    default_headers: Mapping[str, str] = field(default_factory=dict)
    refuses_stream_options: bool = False
    output_bound: str | None = None
    chat_fields: Mapping[str, str | None] = field(default_factory=dict)
    probe_path: str | None = "/models"
    notes: tuple[str, ...] = ()

    @property
    def fixed_base_url(self) -> str | None:
        """Where it is, if it is in one place for everybody."""
        return None if "{" in self.base_url else self.base_url


_ANTHROPIC_VERSION: Final = {"anthropic-version": "2023-06-01"}
_BEDROCK: Final = "https://bedrock-runtime.{region}.amazonaws.com"
_AWS_NOTES: Final = (
    "The credential is a Bedrock API key, or ACCESS_KEY_ID:SECRET_ACCESS_KEY with or without :SESSION_TOKEN, by which Envoy signs.",
    "The region is required.",
)

TEMPLATES: Final[Mapping[ProviderKind, KindTemplate]] = {
    ProviderKind.OPENAI: KindTemplate(base_url="https://api.openai.com/v1"),
    ProviderKind.ANTHROPIC: KindTemplate(
        base_url="https://api.anthropic.com/v1",
        credential_header=Header.API_KEY,
        credential_prefix="",
        default_headers=_ANTHROPIC_VERSION,
    ),
    ProviderKind.GEMINI: KindTemplate(
        base_url="https://generativelanguage.googleapis.com/v1beta",
        probe_path="/openai/models",
        notes=("Asked at its OpenAI-compatible endpoint.",),
    ),
    ProviderKind.GEMINI_NATIVE: KindTemplate(
        base_url="https://generativelanguage.googleapis.com/v1beta",
        credential_header="x-goog-api-key",
        credential_prefix="",
        requires_credential=True,
    ),
    ProviderKind.AZURE: KindTemplate(
        base_url="https://{resource}.openai.azure.com/openai/v1",
        credential_header="api-key",
        credential_prefix="",
        requires_credential=True,
        notes=("The upstream model is the name of the deployment in the resource.",),
    ),
    ProviderKind.BEDROCK: KindTemplate(
        base_url=_BEDROCK,
        requires_credential=True,
        signing_service="bedrock",
        probe_path=None,
        notes=_AWS_NOTES,
    ),
    ProviderKind.BEDROCK_ANTHROPIC: KindTemplate(
        base_url=_BEDROCK,
        requires_credential=True,
        signing_service="bedrock",
        probe_path=None,
        default_headers=_ANTHROPIC_VERSION,
        notes=_AWS_NOTES,
    ),
    ProviderKind.OPENROUTER: KindTemplate(base_url="https://openrouter.ai/api/v1", requires_credential=True),
    ProviderKind.MISTRAL: KindTemplate(
        base_url="https://api.mistral.ai/v1",
        requires_credential=True,
        refuses_stream_options=True,
        output_bound="max_tokens",
        chat_fields={"seed": "random_seed", "service_tier": None, "user": None},
        notes=("Answers 422 to any field it does not know.",),
    ),
    ProviderKind.GROQ: KindTemplate(base_url="https://api.groq.com/openai/v1", requires_credential=True),
    ProviderKind.DEEPSEEK: KindTemplate(
        base_url="https://api.deepseek.com", requires_credential=True, output_bound="max_tokens"
    ),
    ProviderKind.TOGETHER: KindTemplate(base_url="https://api.together.xyz/v1", requires_credential=True),
    ProviderKind.XAI: KindTemplate(base_url="https://api.x.ai/v1", requires_credential=True),
    ProviderKind.COHERE: KindTemplate(base_url="https://api.cohere.ai/compatibility/v1", requires_credential=True),
    ProviderKind.OLLAMA: KindTemplate(
        base_url="http://{host}:11434/v1",
        output_bound="max_tokens",
        notes=("Needs TOLLGATE_PRIVATE_PROVIDERS_ALLOWED where it is in a private network.",),
    ),
    ProviderKind.VLLM: KindTemplate(
        base_url="http://{host}:8000/v1",
        notes=(
            "Needs TOLLGATE_PRIVATE_PROVIDERS_ALLOWED where it is in a private network.",
            "Needs a credential if it was started with --api-key.",
        ),
    ),
    ProviderKind.OPENAI_COMPATIBLE: KindTemplate(base_url="https://{host}/v1"),
}
