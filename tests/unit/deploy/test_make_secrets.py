import base64
import itertools
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.make_secrets import make_missing
from gateway_core import certificates
from gateway_core.api_keys import LIVE_PREFIX, OPERATOR_PREFIX, is_well_formed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_secrets_have_the_form_their_readers_expect(tmp_path: Path) -> None:
    numbers = itertools.count(1)

    made = make_missing(tmp_path, lambda size: bytes([next(numbers)]) * size, NOW)

    secret = {name: (tmp_path / name).read_text(encoding="utf-8") for name in made}
    assert {path.name for path in tmp_path.iterdir()} == set(made)
    assert len(bytes.fromhex(secret["tollgate_api_key_pepper"])) == 32
    assert len(base64.urlsafe_b64decode(secret["tollgate_credential_key"])) == 32
    assert secret["tollgate_credential_keys_before"] == ""
    assert is_well_formed(secret["tollgate_demo_api_key"])
    assert secret["tollgate_demo_api_key"].startswith(LIVE_PREFIX)
    assert is_well_formed(secret["tollgate_operator_token"])
    assert secret["tollgate_operator_token"].startswith(OPERATOR_PREFIX)
    assert f":{secret['postgres_password']}@postgres:5432" in secret["tollgate_postgres_dsn"]
    assert f":{secret['clickhouse_password']}@clickhouse:8123" in secret["tollgate_clickhouse_url"]
    assert f":{secret['valkey_password']}@valkey:6379" in secret["tollgate_redis_url"]
    assert secret["valkey.conf"] == f"requirepass {secret['valkey_password']}\n"
    assert len(set(secret.values())) == len(secret)


def test_containers_of_any_user_can_read_a_file_that_the_directory_hides_from_the_host(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o755)

    make_missing(directory, bytes, NOW)

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o644}


def test_second_run_makes_nothing_and_changes_nothing(tmp_path: Path) -> None:
    make_missing(tmp_path, bytes, NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert make_missing(tmp_path, lambda size: b"\xff" * size, NOW) == []

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_url_that_is_missing_is_made_from_the_password_there_is(tmp_path: Path) -> None:
    make_missing(tmp_path, bytes, NOW)
    (tmp_path / "postgres_password").write_text("chosen-by-hand\n", encoding="utf-8")
    (tmp_path / "tollgate_postgres_dsn").unlink()

    assert make_missing(tmp_path, lambda size: b"\xff" * size, NOW) == ["tollgate_postgres_dsn"]

    dsn = (tmp_path / "tollgate_postgres_dsn").read_text(encoding="utf-8")
    assert dsn == "postgresql://tollgate:chosen-by-hand@postgres:5432/tollgate"


def test_certificates_that_end_soon_are_made_anew_all_together_and_nothing_else_is(tmp_path: Path) -> None:
    make_missing(tmp_path, bytes, NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    made = make_missing(tmp_path, bytes, NOW + certificates.LIFETIME - timedelta(days=30))

    assert set(made) == set(certificates.FILES)
    assert all((tmp_path / name).read_bytes() != before[name] for name in made)
    assert all((tmp_path / name).read_bytes() == before[name] for name in before.keys() - set(made))
