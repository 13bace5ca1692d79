from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from gateway_core.settings import HostPort, HostPorts, ServiceSettings, parse_host_ports


class Settings(ServiceSettings):
    peers: HostPorts = (HostPort("localhost", 1),)
    workers: int = 1
    token: SecretStr | None = None


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_SECRETS_DIR", raising=False)
    monkeypatch.setenv("TOLLGATE_POSTGRES_DSN", "postgresql://u:hunter2@db/t")


def test_a_setting_is_read_from_the_variable_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_WORKERS", "4")
    monkeypatch.setenv("WORKERS", "9")
    assert Settings.load().workers == 4


def test_what_nobody_set_has_its_default() -> None:
    settings = Settings.load()
    assert (settings.log_level, settings.workers, settings.peers) == ("INFO", 1, (HostPort("localhost", 1),))


def test_a_missing_setting_without_a_default_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_POSTGRES_DSN")
    with pytest.raises(ValidationError, match="postgres_dsn"):
        Settings.load()


def test_a_secret_is_read_from_the_file_of_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "TOLLGATE_TOKEN").write_text("from-a-file\n", encoding="utf-8")
    monkeypatch.setenv("TOLLGATE_SECRETS_DIR", str(tmp_path))
    token = Settings.load().token
    assert token is not None
    assert token.get_secret_value() == "from-a-file"


def test_the_environment_wins_over_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "TOLLGATE_WORKERS").write_text("2", encoding="utf-8")
    monkeypatch.setenv("TOLLGATE_SECRETS_DIR", str(tmp_path))
    assert Settings.load().workers == 2
    monkeypatch.setenv("TOLLGATE_WORKERS", "3")
    assert Settings.load().workers == 3


def test_settings_cannot_be_changed_once_read() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.__setattr__("workers", 2)  # an assignment would fail in the type checker


def test_no_secret_shows_in_a_repr() -> None:
    assert "hunter2" not in repr(Settings.load())


def test_no_secret_shows_in_a_complaint_about_another_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_WORKERS", "secret-by-mistake")
    with pytest.raises(ValidationError) as complaint:
        Settings.load()
    assert "workers" in str(complaint.value)
    assert "secret-by-mistake" not in str(complaint.value)
    assert "hunter2" not in str(complaint.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:5432", [("db", 5432)]),
        ("127.0.0.1:1", [("127.0.0.1", 1)]),
        ("a:1,b:65535", [("a", 1), ("b", 65535)]),
        (" a:1 , b:2 ", [("a", 1), ("b", 2)]),
        ("[::1]:9002", [("::1", 9002)]),
    ],
)
def test_a_list_of_servers_is_host_colon_port_with_commas_between(text: str, expected: list[tuple[str, int]]) -> None:
    assert parse_host_ports(text) == tuple(HostPort(*each) for each in expected)


@pytest.mark.parametrize(
    "text", ["", "db", "db:", ":5432", "db:0", "db:65536", "db:-1", "db:http", "a:1,", "a:1,,b:2", "db:1.5", "[]:80"]
)
def test_an_entry_without_a_host_or_a_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not host:port"):
        parse_host_ports(text)


def test_a_list_of_servers_is_read_from_the_environment_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_PEERS", "a:1,b:2")
    assert Settings.load().peers == (HostPort("a", 1), HostPort("b", 2))


def test_a_bad_list_of_servers_is_a_complaint_about_that_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_PEERS", "a:1,b")
    with pytest.raises(ValidationError, match="peers"):
        Settings.load()
