"""The table of kinds, and what it demands of a provider."""

import re

import pytest
from pydantic import SecretStr, ValidationError

from control_plane.catalog.aws_keys import AwsKey, InvalidAwsKeyError
from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.model import MissingCredentialError, check_base_url
from control_plane.catalog.specs import ProviderSpec
from control_plane.xds.refusal import without_secrets
from gateway_core.contract import CREDENTIAL_HEADERS
from gateway_core.providers import ProviderKind
from tests.support.aws_signature import Signature, signature_of
from tests.support.catalogs import provider

AWS = {"kind": "bedrock", "base_url": "https://bedrock-runtime.eu-central-1.amazonaws.com", "region": "eu-central-1"}
KEY = "ACCESSKEYIDOFAWS:secret/access+key="


@pytest.mark.parametrize("kind", ProviderKind)
def test_a_credential_travels_in_a_header_that_every_attempt_begins_by_removing(kind: ProviderKind) -> None:
    assert TEMPLATES[kind].credential_header in CREDENTIAL_HEADERS


@pytest.mark.parametrize("kind", ProviderKind)
def test_a_base_url_is_one_once_its_gaps_are_filled_in(kind: ProviderKind) -> None:
    template = TEMPLATES[kind]
    check_base_url(re.sub(r"\{\w+\}", "example", template.base_url))
    assert (template.fixed_base_url is None) == ("{" in template.base_url)


@pytest.mark.parametrize(
    "credential", [KEY, KEY + ":token-of-a-session.1", "a-bedrock-api-key", None], ids=["key", "token", "api", "none"]
)
def test_a_provider_whose_requests_are_signed_has_a_region_and_a_key_of_aws_or_an_api_key(
    credential: str | None,
) -> None:
    spec = ProviderSpec.model_validate(AWS | {"credential": credential})
    assert spec.region == "eu-central-1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"region": None}, "region"),
        ({"region": "Frankfurt"}, "region"),
        ({"kind": "openai"}, "region"),
        ({"credential": "ACCESSKEYIDOFAWS:"}, "credential"),
        ({"credential": 'ACCESSKEYIDOFAWS:secret"access-key'}, "credential"),
        ({"credential": KEY + ":"}, "credential"),
        ({"kind": "no-such-kind"}, "kind"),
    ],
)
def test_what_cannot_be_signed_with_is_refused_where_it_stands(change: dict[str, str | None], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ProviderSpec.model_validate(AWS | change)
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]
    assert "secret" not in str(refused.value)


def test_a_key_of_aws_hides_its_secrets() -> None:
    found = AwsKey.find(SecretStr(KEY + ":token-of-a-session"))
    assert found is not None
    assert found.access_key_id == "ACCESSKEYIDOFAWS"
    assert "secret/access" not in repr(found)
    assert "token-of" not in repr(found)


def test_a_provider_that_cannot_be_asked_without_a_credential_is_not() -> None:
    with pytest.raises(MissingCredentialError):
        provider("p", ProviderKind.GROQ).check_credential()
    with pytest.raises(MissingCredentialError):
        provider("p", ProviderKind.BEDROCK, credential=KEY).check_credential()
    with pytest.raises(InvalidAwsKeyError):
        provider("p", ProviderKind.BEDROCK, credential="id:secret", region="eu-central-1").check_credential()
    for kind in (ProviderKind.OPENAI, ProviderKind.OLLAMA, ProviderKind.VLLM, ProviderKind.OPENAI_COMPATIBLE):
        provider("p", kind).check_credential()


def test_a_refusal_of_envoys_loses_the_keys_that_it_quotes() -> None:
    said = (
        'goo.gle/debugonly\nregion: ""\ncredential_provider {\n  inline_credential {\n    access_key_id: "AKID"\n'
        '    secret_access_key: "se\\"cret"\n    session_token: "tok'
    )
    shown = without_secrets(said)
    assert 'access_key_id: "AKID"' in shown
    assert "cret" not in shown.replace("secret_access_key", "")
    assert '"tok' not in shown
    assert without_secrets("no secret here") == "no secret here"


def test_the_signature_of_the_tests_is_that_of_the_example_of_aws() -> None:
    authorization = (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )
    signed = Signature.parse(authorization)
    found = signature_of(
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        signed,
        method="GET",
        path="/",
        query="Action=ListUsers&Version=2010-05-08",
        headers={
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "Host": "iam.amazonaws.com",
            "X-Amz-Date": "20150830T123600Z",
        },
        payload_sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    )
    assert found == signed.signature
