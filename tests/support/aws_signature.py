"""AWS's Signature Version 4, worked out by hand as AWS documents it: what a request that was received should have been signed with."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>\w+)/(?P<day>\d{8})/(?P<region>[\w-]+)/(?P<service>[\w-]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[\w;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Signature:
    """What an `Authorization` header says."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str

    @classmethod
    def parse(cls, authorization: str) -> "Signature":
        found = _AUTHORIZATION.fullmatch(authorization)
        assert found, authorization
        return cls(
            found["key"],
            found["day"],
            found["region"],
            found["service"],
            tuple(found["headers"].split(";")),
            found["signature"],
        )


def signature_of(
    secret: str,
    signed: Signature,
    *,
    method: str,
    path: str,
    query: str = "",
    headers: Mapping[str, str],
    payload_sha256: str,
) -> str:
    """The signature that such a request has, given the day, region, service and headers that it says are signed."""
    lowered = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    canonical = "\n".join(
        [
            method,
            path,
            query,
            *(f"{name}:{lowered[name]}" for name in signed.signed_headers),
            "",
            ";".join(signed.signed_headers),
            payload_sha256,
        ]
    )
    scope = f"{signed.day}/{signed.region}/{signed.service}/aws4_request"
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", lowered["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{secret}".encode()
    for part in (signed.day, signed.region, signed.service, "aws4_request", to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()
