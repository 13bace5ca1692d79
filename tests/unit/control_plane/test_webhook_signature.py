"""Signatures of webhooks, by what others compute."""

import base64
from datetime import UTC, datetime

from pydantic import SecretStr

from control_plane.webhooks.signature import new_secret, signed_headers

AT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
SECRET = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def test_it_signs_what_the_libraries_of_the_specification_have_as_their_example() -> None:
    assert signed_headers([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", AT, BODY) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_make_two_signatures_the_newest_first() -> None:
    other = new_secret(bytes)
    both = signed_headers([other, SECRET], "msg_1", AT, BODY)["webhook-signature"]
    alone = [signed_headers([each], "msg_1", AT, BODY)["webhook-signature"] for each in (other, SECRET)]
    assert both == " ".join(alone)


def test_a_new_secret_is_a_key_of_32_bytes_and_hides_itself() -> None:
    secret = new_secret(lambda count: b"\xff" * count)
    assert base64.b64decode(secret.get_secret_value().removeprefix("whsec_")) == b"\xff" * 32
    assert "whsec" not in repr(secret)
