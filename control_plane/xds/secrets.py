"""Provider credentials as SDS secrets; Envoy keeps them out of its configuration dump."""

from control_plane.catalog.model import Provider
from control_plane.xds.protobuf import JsonObject
from gateway_core.ids import OrgId, ProviderName


def credential_secret(provider: ProviderName, org_id: OrgId | None = None) -> str:
    """Name of the secret that holds a provider's credential: ours, or that of an organisation."""
    return f"credential/{provider}" if org_id is None else f"credential/{provider}/{org_id}"


def secret(provider: Provider, org_id: OrgId | None = None) -> JsonObject | None:
    """The Secret resource, or None for a provider that needs no credential, or signs with it."""
    if provider.credential is None or provider.aws_key is not None:
        return None
    return {
        "name": credential_secret(provider.name, org_id),
        "generic_secret": {"secret": {"inline_string": provider.credential.get_secret_value()}},
    }
