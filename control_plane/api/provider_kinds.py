"""`/provider-kinds`: which kinds of providers there are, and what is known of each."""

from typing import Final

from pydantic import Field

from control_plane.accounts.permissions import Permission
from control_plane.api.operation import Call, operation
from control_plane.api.providers import TAG
from control_plane.catalog.kinds import TEMPLATES, KindTemplate
from control_plane.resource import Resource
from gateway_core.endpoints import FACTS
from gateway_core.providers import PATHS_BY_KIND, ProviderKind


class KindOfProviders(Resource):
    """A kind of providers."""

    name: ProviderKind
    base_url: str = Field(description="Where its vendor serves it; what stands in braces is to be filled in.")
    endpoints: dict[str, str] = Field(
        description="The paths that clients ask for and it serves, each with its own path behind the base URL."
    )
    requires_credential: bool = Field(description="Without one, no route to such a provider can be published.")
    credential_header: str = Field(description="What carries the credential, unless requests are signed with it.")
    signed_for: str | None = Field(description="The AWS service that requests are signed for.")
    default_headers: dict[str, str] = Field(description="Sent where the client did not send its own.")
    notes: list[str]


class KindsOfProviders(Resource):
    """All of them."""

    data: list[KindOfProviders]


@operation("GET", "/provider-kinds", tag=TAG, access=Permission.CATALOG_READ)
async def list_provider_kinds(call: Call) -> KindsOfProviders:  # noqa: ARG001 - the same for everybody
    """Every kind of providers, as it can be named in a provider."""
    return _KINDS


def _kind(name: ProviderKind, template: KindTemplate) -> KindOfProviders:
    return KindOfProviders(
        name=name,
        base_url=template.base_url,
        endpoints={FACTS[endpoint].path: path for endpoint, path in PATHS_BY_KIND[name].items()},
        requires_credential=template.requires_credential,
        credential_header=template.credential_header,
        signed_for=template.signing_service,
        default_headers=dict(template.default_headers),
        notes=[*template.notes, *_peculiarities(template)],
    )


def _peculiarities(template: KindTemplate) -> list[str]:
    said = []
    if template.refuses_stream_options:
        said.append("It refuses stream_options, so streams are sent to it without ours.")
    if template.output_bound is not None:
        said.append(
            f"It takes a bound on the output in {template.output_bound} only; max_completion_tokens becomes that."
        )
    return said


_KINDS: Final = KindsOfProviders(data=[_kind(name, TEMPLATES[name]) for name in ProviderKind])
