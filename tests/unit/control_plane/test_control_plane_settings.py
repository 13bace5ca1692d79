"""What the settings of log-ins and mails admit."""

import json

import pytest
from pydantic import ValidationError

from control_plane.accounts.mail import Tls
from control_plane.settings import Settings

ISSUER = {"name": "corp", "issuer": "https://id.corp.example/realms/a", "client_id": "tollgate"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_SECRETS_DIR", raising=False)
    for name in (
        *("POSTGRES_DSN", "API_KEY_PEPPER", "CREDENTIAL_KEY"),
        *("XDS_TLS_CERTIFICATE", "XDS_TLS_KEY", "XDS_TLS_CA"),
    ):
        monkeypatch.setenv(f"TOLLGATE_{name}", "x")


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"TOLLGATE_{name}", value)
    return Settings.load()


def test_by_default_nobody_else_logs_people_in_and_mails_go_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert settings.oidc_issuers == ()
    assert settings.relay is None


def test_issuers_are_a_list_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.dumps([{**ISSUER, "client_secret": "hunter2", "email_domains": ["Corp.example"]}])
    settings = load(monkeypatch, OIDC_ISSUERS=document)
    [issuer] = settings.oidc_issuers
    assert issuer.client_secret is not None
    assert issuer.client_secret.get_secret_value() == "hunter2"
    assert (issuer.scopes, issuer.sign_up, issuer.email_domains) == (
        ("openid", "email", "profile"),
        False,
        ("corp.example",),
    )
    assert issuer.vouches_for("ada@CORP.example")
    assert not issuer.vouches_for("ada@corp.example.evil.example")
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://id.corp.example"},
        {"issuer": "http://127.0.0.1.evil.example"},
        {"issuer": "https://user@id.corp.example"},
        {"issuer": "https://id.corp.example/#a"},
        {"issuer": "https://"},
        {"issuer": "file:///etc/passwd"},
        {"name": "Corp/"},
        {"scopes": ["email"]},
        {"scopes": ["openid", "e mail"]},
        {"email_domains": ["@corp.example"]},
        {"client_id": ""},
        {"algorithms": ["none"]},
    ],
    ids=str,
)
def test_an_issuer_that_cannot_be_trusted_is_refused_without_quoting_it(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, object]
) -> None:
    with pytest.raises(ValidationError) as complaint:
        load(monkeypatch, OIDC_ISSUERS=json.dumps([{**ISSUER, "client_secret": "hunter2", **wrong}]))
    assert "oidc_issuers" in str(complaint.value)
    assert "hunter2" not in str(complaint.value)


def test_two_issuers_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="same name"):
        load(monkeypatch, OIDC_ISSUERS=json.dumps([ISSUER, ISSUER]))


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost", "[::1]:9000"])
def test_http_is_for_an_issuer_on_this_machine_and_only_where_that_is_set(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    document = json.dumps([{**ISSUER, "issuer": f"http://{host}"}])
    with pytest.raises(ValidationError, match="not https"):
        load(monkeypatch, OIDC_ISSUERS=document)
    assert load(monkeypatch, OIDC_ISSUERS=document, OIDC_LOOPBACK_HTTP="true").oidc_issuers


def test_a_mail_server_is_used_with_starttls_unless_it_is_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = load(monkeypatch, SMTP_HOST="mail.test", MAIL_FROM="gateway@example.com").relay
    assert relay is not None
    assert (relay.host, relay.port, relay.tls, relay.username) == ("mail.test", 587, Tls.STARTTLS, None)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"SMTP_HOST": "mail.test"}, "mail_from"),
        ({"SMTP_HOST": "mail.test", "MAIL_FROM": "Gateway <gateway@example.com>"}, "mail_from"),
        ({"SMTP_USERNAME": "tollgate"}, "smtp_password"),
        ({"SMTP_PASSWORD": "hunter2"}, "smtp_username"),
        ({"SMTP_USERNAME": "tollgate", "SMTP_PASSWORD": "hunter2", "SMTP_TLS": "none"}, "without encryption"),
        ({"SMTP_TLS": "if possible"}, "smtp_tls"),
    ],
)
def test_a_mail_server_that_cannot_be_used_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint) as found:
        load(monkeypatch, **variables)
    assert "hunter2" not in str(found.value)


def test_trusted_proxies_are_nobody_unless_networks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch).trusted_proxies == ()
    assert load(monkeypatch, TRUSTED_PROXIES="").trusted_proxies == ()
    named = load(monkeypatch, TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.7,2001:db8::/32").trusted_proxies
    assert [str(each) for each in named] == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]


@pytest.mark.parametrize("wrong", ["balancer", "10.0.0.1/8", "10.0.0.0/8,", "1"])
def test_what_is_no_network_is_no_proxy(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        load(monkeypatch, TRUSTED_PROXIES=wrong)


def test_origins_are_named_as_browsers_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch).cors_origins == ()
    assert load(monkeypatch, CORS_ORIGINS="").cors_origins == ()
    named = load(monkeypatch, CORS_ORIGINS="https://app.example.com, http://localhost:3000")
    assert named.cors_origins == ("https://app.example.com", "http://localhost:3000")
    assert load(monkeypatch, CORS_ORIGINS="*").cors_origins == ("*",)


@pytest.mark.parametrize(
    "wrong",
    [
        *("app.example.com", "https://app.example.com/", "https://App.example.com", "https://*.example.com", "null"),
        *("https://", "ftp://app.example.com", "https://ada@app.example.com", "https://app.example.com,,"),
    ],
)
def test_what_no_browser_would_send_as_an_origin_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        load(monkeypatch, CORS_ORIGINS=wrong)
