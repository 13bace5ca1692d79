"""The command `tollgate` against the real API on a real Postgres."""

import asyncio
import json
import os
import pty
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local_stack.data_directory import DataDirectory
from local_stack.ports import free_port
from tests.support.api import PASSWORD, Account, Api
from tests.support.command_line import CommandLine


@pytest.fixture
def nobody(api: Api, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, {"TOLLGATE_SERVER": api.url})


@pytest.fixture
async def ada(api: Api) -> Account:
    return await api.sign_up("ada@example.com", "Engines")


@pytest.fixture
async def cli(ada: Account, nobody: CommandLine) -> CommandLine:
    """A command line on which ada has logged in."""
    await nobody.done("login", "--email", ada.email, stdin=f"{PASSWORD}\n")
    return nobody


async def test_a_newcomer_signs_up_logs_in_and_makes_a_key(nobody: CommandLine) -> None:
    (nobody.directory / "password").write_text(f"{PASSWORD}\n")
    arguments = ("--email", "eve@example.com", "--organization", "Eve & Co", "--password-file", "password")
    registered = await nobody.done("auth", "register", *arguments)
    assert re.search(r"^organization.name +Eve & Co *$", registered.out, re.MULTILINE)
    logged_in = await nobody.done("login", "--email", "eve@example.com", stdin=f"{PASSWORD}\n")
    assert logged_in.out == ""

    made = await nobody.done("keys", "create", "--name", "laptop", "--expires-at", "2090-01-31", "--json")

    assert made.json["key"].startswith("sk-tg-live-")
    assert made.json["expires_at"] == "2090-01-31T00:00:00Z"
    assert made.err == "Keep the key now: no later answer shows it.\n"
    listed = await nobody.done("keys", "list")
    assert made.json["id"] in listed.out
    assert made.json["key"] not in listed.out


async def test_a_password_is_never_an_argument_and_the_session_file_is_private(cli: CommandLine) -> None:
    asked = await cli.run("auth", "register", "--password", PASSWORD)
    assert asked.code == 2
    assert stat.S_IMODE(cli.state_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cli.state_file.parent.stat().st_mode) == 0o700


async def test_organisations_projects_keys_members_and_tokens_are_managed(
    api: Api, ada: Account, cli: CommandLine
) -> None:
    assert "Engines" in (await cli.done("orgs", "list")).out
    renamed = await cli.done("orgs", "change", ada.org_id, "--name", "Engines Ltd")
    assert "Engines Ltd" in renamed.out

    project = (await cli.done("projects", "create", "--name", "Analytical", "--json")).json
    key = (await cli.done("keys", "create", "--name", "k", "--project-id", project["id"], "--json")).json
    limits = ("--models-allowed", "gpt-*", "--models-allowed", "o3", "--requests-per-minute-max", "60", "--disabled")
    await cli.done("keys", "change", key["id"], *limits, "--budget-per-day-usd", "2.50")
    shown = (await cli.done("keys", "get", key["id"])).out
    assert "gpt-*, o3" in shown
    assert "$2.50" in shown
    await cli.done("keys", "change", key["id"], "--no-models-allowed", "--no-budget-per-day-usd", "--no-disabled")
    changed = (await cli.done("keys", "get", key["id"], "--json")).json
    assert (changed["models_allowed"], changed["budget_per_day_usd"], changed["disabled"]) == ([], None, False)
    assert changed["requests_per_minute_max"] == 60
    await cli.done("projects", "change", project["id"], "--budget-per-month-usd", "25")
    assert "$25.00" in (await cli.done("projects", "list")).out
    budgets = (await cli.done("budgets", "list")).out
    assert re.sub(r" \(\w+\)$", "", budgets.splitlines()[0]).split() == [
        "kind",
        "id",
        "name",
        "period",
        "limit",
        "spent",
        "held",
        "left",
        "renews",
        "at",
    ]
    assert budgets.splitlines()[1].split()[:8] == [
        "project",
        project["id"],
        "Analytical",
        "month",
        "25.00",
        "0.00",
        "0.00",
        "25.00",
    ]
    rotated = (await cli.done("keys", "rotate", key["id"], "--overlap-s", "60", "--json")).json
    assert rotated["key"] != key["key"]
    revoked = await cli.done("keys", "revoke", key["id"])
    assert (revoked.out, revoked.err) == ("", "Done.\n")

    bob = await api.sign_up("bob@example.com", "Bob's")
    await cli.done("invitations", "create", "--email", "bob@example.com", "--role", "developer")
    assert "bob@example.com" in (await cli.done("invitations", "list")).out
    as_bob = cli.with_(XDG_STATE_HOME=str(cli.directory / "bob"))
    await as_bob.done("login", "--email", bob.email, stdin=f"{PASSWORD}\n")
    await as_bob.done("invitations", "accept", "--token", api.mailbox.token(bob.email))
    await cli.done("members", "change", bob.user_id, "--role", "viewer")
    assert "viewer" in (await cli.done("members", "list")).out
    await cli.done("members", "remove", bob.user_id)

    token = await cli.done(
        "tokens", "create", "--name", "ci", "--scopes", "keys:read", "--scopes", "org:read", "--json"
    )
    with_token = cli.with_(TOLLGATE_TOKEN=token.json["token"])
    assert (await with_token.done("keys", "list", "--json")).json["data"] == []
    assert (await with_token.run("projects", "create", "--name", "x")).code == 1
    await cli.done("tokens", "revoke", token.json["id"])
    assert (await with_token.run("keys", "list")).code == 4

    actions = {entry["action"] for entry in (await cli.done("audit", "list", "--all", "--json")).json["data"]}
    assert {"org.change", "project.create", "key.rotate", "member.remove", "token.revoke"} <= actions


async def test_json_is_the_answer_as_it_came(ada: Account, cli: CommandLine) -> None:
    there = await ada.api.get(ada.org)
    assert (await cli.done("orgs", "get", "--json")).out == there.text + "\n"


async def test_every_offending_field_is_named_as_its_option(cli: CommandLine) -> None:
    refused = await cli.run("keys", "create", "--name", "", "--ip-allowed", "10.0.0.0/8", "--ip-allowed", "nowhere")
    assert (refused.code, refused.out) == (1, "")
    first, *others = refused.err.splitlines()
    assert first.startswith("Error: ")
    assert len(others) == 2
    assert any(line.startswith("  --name: ") for line in others)
    assert any(line.startswith("  --ip-allowed (number 2): ") for line in others)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("keys", "create"), "missing option --name"),
        (("keys", "change", "key_1"), "nothing to change"),
        (("keys", "create", "--name", "x", "--expires-at", "soon"), "'soon' is not a time"),
        (("keys", "change", "key_1", "--expires-at", "2030-01-01", "--no-expires-at"), "not together"),
        (("keys", "get", ".."), "names nothing"),
        (("keys", "delete", "x"), "No such command"),
        (("keys", "lst"), "Did you mean 'list'"),
        (("invitations", "create", "--email", "x@example.com", "--role", "king"), "'owner', 'admin'"),
        (("keys", "create", "--body", "nowhere.yaml"), "cannot be read"),
        (("keys", "list", "--server", "gateway"), "not the URL of a server"),
    ],
)
async def test_what_cannot_be_meant_is_a_usage_error(cli: CommandLine, arguments: tuple[str, ...], words: str) -> None:
    refused = await cli.run(*arguments)
    assert refused.code == 2, refused
    assert words in refused.err


async def test_a_body_comes_from_json_yaml_or_standard_input_and_options_win(cli: CommandLine) -> None:
    (cli.directory / "key.yaml").write_text("name: of a file\nexpires_at: 2090-01-01T00:00:00Z\nmodels_allowed: [o3]\n")
    made = (await cli.done("keys", "create", "--body", "key.yaml", "--name", "of an option", "--json")).json
    assert (made["name"], made["models_allowed"]) == ("of an option", ["o3"])
    assert made["expires_at"] == "2090-01-01T00:00:00Z"
    from_input = await cli.done("keys", "create", "--body", "-", "--json", stdin=json.dumps({"name": "piped"}))
    assert from_input.json["name"] == "piped"
    broken = await cli.run("keys", "create", "--body", "-", stdin="name: [")
    assert broken.code == 2
    assert "neither JSON nor YAML" in broken.err
    unknown = await cli.run("keys", "create", "--body", "-", stdin="name: x\ncolour: red")
    assert unknown.code == 1
    assert "/colour" in unknown.err


async def test_an_etag_that_is_too_old_is_a_conflict_and_none_takes_what_is_there(
    ada: Account, cli: CommandLine
) -> None:
    await cli.done("orgs", "change", "--name", "First", "--if-match", '"1"')
    late = await cli.run("orgs", "change", "--name", "Second", "--if-match", '"1"')
    assert late.code == 1
    assert "changed" in late.err
    await cli.done("orgs", "change", "--name", "Third")
    assert (await ada.api.get(ada.org))["name"] == "Third"


async def test_a_dry_run_changes_nothing_and_says_so(cli: CommandLine) -> None:
    tried = await cli.done("projects", "create", "--name", "Maybe", "--dry-run")
    assert tried.err == "Nothing was changed: this was a dry run.\n"
    assert "Maybe" not in (await cli.done("projects", "list")).out


async def test_an_idempotency_key_does_the_same_thing_once(cli: CommandLine) -> None:
    arguments = ("projects", "create", "--name", "Once", "--idempotency-key", "abc", "--json")
    assert (await cli.done(*arguments)).out == (await cli.done(*arguments)).out


async def test_all_follows_the_cursor_and_a_page_says_that_there_is_more(ada: Account, cli: CommandLine) -> None:
    for number in range(5):
        await ada.api.post(f"{ada.org}/projects", {"name": f"p{number}"})
    page = await cli.done("projects", "list", "--limit", "4")
    assert len(page.out.splitlines()) == 1 + 4
    assert "--all" in page.err
    everything = await cli.done("projects", "list", "--limit", "2", "--all")
    assert (len(everything.out.splitlines()), everything.err) == (1 + 6, "")
    as_json = (await cli.done("projects", "list", "--limit", "2", "--all", "--json")).json
    assert [project["name"] for project in as_json["data"]] == ["Default", *(f"p{number}" for number in range(5))]
    assert as_json["next_cursor"] is None


async def test_of_several_organisations_one_must_be_named_or_remembered(ada: Account, cli: CommandLine) -> None:
    other = (await cli.done("orgs", "create", "--name", "Other", "--json")).json["id"]
    unclear = await cli.run("keys", "list")
    assert unclear.code == 2
    assert ada.org_id in unclear.err
    assert other in unclear.err
    assert (await cli.done("projects", "list", "--org", other, "--json")).json["data"][0]["org_id"] == other
    await cli.done("use-org", other)
    assert (await cli.done("projects", "list", "--json")).json["data"][0]["org_id"] == other
    assert (await cli.done("whoami", "--json")).json["org_id"] == other
    assert (await cli.run("use-org", "org_nowhere")).code == 1


async def test_whoami_tells_server_credential_user_and_organisation(api: Api, ada: Account, cli: CommandLine) -> None:
    found = (await cli.done("whoami", "--json")).json
    assert (found["server"], found["user"]["email"], found["org_id"]) == (api.url, ada.email, ada.org_id)
    assert found["credential"] == "session of ada@example.com"
    operator = cli.with_(TOLLGATE_TOKEN=await api.operator_token())
    assert (await operator.done("whoami", "--json")).json["credential"] == "TOLLGATE_TOKEN"
    assert (await operator.done("nodes", "list")).err == "Nothing there.\n"


async def test_log_out_ends_the_session_there_and_here(cli: CommandLine) -> None:
    kept = cli.state_file.read_bytes()
    await cli.done("logout")
    assert b"access_token" not in cli.state_file.read_bytes()
    assert (await cli.run("keys", "list")).code == 4
    # One that is over is over until somebody logs in or out: nothing is done as somebody else meanwhile.
    cli.state_file.write_bytes(kept)
    for _ in range(2):
        refused = await cli.run("keys", "list")
        assert (refused.code, "`tollgate logout` forgets it" in refused.err) == (4, True)
    await cli.done("logout")
    assert b"access_token" not in cli.state_file.read_bytes()


async def test_a_wrong_password_and_no_server_have_exit_codes_of_their_own(nobody: CommandLine, ada: Account) -> None:
    wrong = await nobody.run("login", "--email", ada.email, stdin="wrong\n")
    assert wrong.code == 4
    assert wrong.err == "Error: E-mail address or password is wrong.\n"
    assert not nobody.state_file.exists()
    assert (await nobody.run("keys", "list")).code == 4
    unreachable = await nobody.run("keys", "list", "--server", "http://127.0.0.1:1")
    assert unreachable.code == 3
    assert "cannot be reached" in unreachable.err
    nowhere = await CommandLine(nobody.directory).run("keys", "list")
    assert nowhere.code == 3
    assert "tollgate up" in nowhere.err


async def test_processes_that_find_an_old_access_token_at_once_exchange_the_refresh_token_once(
    api: Api, cli: CommandLine
) -> None:
    kept = json.loads(cli.state_file.read_text())
    kept["sessions"][api.url]["expires_at"] = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    cli.state_file.write_text(json.dumps(kept))

    outcomes = await asyncio.gather(*(cli.run("me", "get", "--json") for _ in range(4)))

    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 0], outcomes
    renewed = json.loads(cli.state_file.read_text())["sessions"][api.url]
    assert renewed["refresh_token"] != kept["sessions"][api.url]["refresh_token"]
    assert (await cli.run("me", "get")).code == 0


async def test_an_access_token_that_is_refused_before_its_time_is_exchanged(api: Api, cli: CommandLine) -> None:
    kept = json.loads(cli.state_file.read_text())
    kept["sessions"][api.url]["access_token"] = "not.a.token"
    cli.state_file.write_text(json.dumps(kept))
    assert (await cli.run("me", "get")).code == 0


async def test_a_damaged_session_file_is_said_to_be_damaged(cli: CommandLine) -> None:
    cli.state_file.write_text("{}")
    damaged = await cli.run("keys", "list")
    assert damaged.code == 1
    assert "log in again" in damaged.err


async def test_a_stack_in_the_working_directory_is_meant_with_its_operator_token_until_somebody_logs_in(
    api: Api, ada: Account, tmp_path: Path
) -> None:
    cli = CommandLine(tmp_path)
    directory = DataDirectory.at(tmp_path / ".tollgate")
    directory.create()
    endpoints = {"control_plane_urls": [api.url], "operator_token": await api.operator_token()}
    directory.endpoints.write_text(json.dumps(endpoints))
    assert (await cli.run("platform-tokens", "list")).code == 3
    with directory.locked():
        assert "test" in (await cli.done("platform-tokens", "list")).out
        assert (await cli.done("whoami", "--json")).json["credential"] == "token of the local operator"
        elsewhere = CommandLine(tmp_path / "state")
        elsewhere.directory.mkdir()
        assert "test" in (await elsewhere.done("platform-tokens", "list", "--data-dir", str(directory.path))).out
        of_the_shell = elsewhere.with_(TOLLGATE_DATA_DIR=str(directory.path), TOLLGATE_SERVER=api.url)
        assert "test" in (await of_the_shell.done("platform-tokens", "list")).out
        assert (
            "test" in (await elsewhere.with_(TOLLGATE_DATA_DIR=str(directory.path)).done("platform-tokens", "list")).out
        )
        for _ in ("the first time", "again"):
            logged_in = await cli.done("login", "--email", ada.email, stdin=f"{PASSWORD}\n")
            assert "not the local operator's until `tollgate logout`" in logged_in.err
        refused = await cli.run("platform-tokens", "list")
        assert refused.code == 1
        assert f"Asked with the session of {ada.email}; after `tollgate logout`" in refused.err
        assert (await cli.done("whoami", "--json")).json["user"]["email"] == ada.email
        await cli.done("logout")
        assert "test" in (await cli.done("platform-tokens", "list")).out


async def test_another_control_plane_of_the_stack_is_asked_when_the_first_cannot_be_reached(
    api: Api, ada: Account, tmp_path: Path
) -> None:
    directory = DataDirectory.at(tmp_path / ".tollgate")
    directory.create()
    first = f"http://127.0.0.1:{free_port()}"
    endpoints = {"control_plane_urls": [first, api.url], "operator_token": await api.operator_token()}
    directory.endpoints.write_text(json.dumps(endpoints))
    cli = CommandLine(tmp_path)
    with directory.locked():
        assert "test" in (await cli.done("platform-tokens", "list")).out
        await cli.done("login", "--email", ada.email, stdin=f"{PASSWORD}\n")
        kept = json.loads(cli.state_file.read_text())
        kept["sessions"][first]["expires_at"] = datetime.now(UTC).isoformat()
        cli.state_file.write_text(json.dumps(kept))
        assert (await cli.done("whoami", "--json")).json["user"]["email"] == ada.email


async def test_a_file_goes_where_it_is_wanted_and_nothing_binary_to_a_terminal(ada: Account, cli: CommandLine) -> None:
    period = ("--since", "2026-01-01", "--until", "2026-01-31")
    printed = await cli.done("usage", "download", *period)
    kept = await cli.done("usage", "download", *period, "--out", "usage.csv")
    assert (kept.out, kept.err) == ("", "")
    assert (cli.directory / "usage.csv").read_bytes() == printed.out.encode() != b""
    unwritable = await cli.run("usage", "download", *period, "--out", "missing/usage.csv")
    assert (unwritable.code, unwritable.err) == (
        2,
        "Error: cannot write missing/usage.csv: No such file or directory\n",
    )
    controller, terminal = pty.openpty()
    try:
        refused = await cli.run("invoices", "download-pdf", "inv_1", "--org", ada.org_id, stdout=terminal)
    finally:
        os.close(controller)
        os.close(terminal)
    assert (refused.code, refused.err) == (2, "Error: application/pdf is not for a terminal; name a file with --out\n")


async def test_a_key_does_not_begin_after_its_end(cli: CommandLine) -> None:
    refused = await cli.run("keys", "create", "--name", "late", "--expires-at", "2020-01-01")
    assert (refused.code, refused.err) == (1, "Error: Some fields are not valid.\n  --expires-at: is past\n")


async def test_names_that_look_like_markup_or_move_the_cursor_are_shown_as_text(ada: Account, cli: CommandLine) -> None:
    await ada.api.post(f"{ada.org}/projects", {"name": "[red]x[/red] :smile:"})
    assert "[red]x[/red] :smile:" in (await cli.done("projects", "list")).out


@pytest.mark.parametrize(
    ("shell", "words", "variables"),
    [
        ("bash", "tollgate invitations create --role ", {"COMP_CWORD": "4"}),
        ("zsh", "tollgate invitations create --role ", {}),
        ("fish", "tollgate invitations create --role ", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
async def test_shells_complete_commands_options_and_values(
    nobody: CommandLine, shell: str, words: str, variables: dict[str, str]
) -> None:
    script = await nobody.done("completion", shell)
    assert "_TOLLGATE_COMPLETE" in script.out
    asking = {"_TOLLGATE_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "_TYPER_COMPLETE_ARGS": words}
    completed = await nobody.with_(**asking, **variables).run()
    assert "developer" in completed.out


@pytest.mark.parametrize(
    ("words", "cword", "expected"),
    [
        ("tollgate ", 1, {"keys", "orgs", "login", "up"}),
        ("tollgate keys ", 2, {"list", "create", "rotate"}),
        ("tollgate keys list --", 3, {"--all", "--limit", "--json", "--org"}),
        ("tollgate keys change key_1 --no-exp", 4, {"--no-expires-at"}),
        ("tollgate catalog ", 2, {"export", "diff", "apply", "check", "import"}),
        ("tollgate catalog import ", 3, {"litellm", "openrouter"}),
        ("tollgate catalog apply file --", 4, {"--prune", "--yes", "--no-wait"}),
        ("tollgate demo ", 2, {"traffic"}),
        ("tollgate demo traffic --", 3, {"--seconds", "--rate", "--seed", "--data-dir"}),
    ],
)
async def test_bash_completes(nobody: CommandLine, words: str, cword: int, expected: set[str]) -> None:
    asking = nobody.with_(_TOLLGATE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(cword))
    completed = await asking.run()
    assert expected <= set(completed.out.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["keys", "--help"],
        ["keys", "create", "--help"],
        ["catalog", "apply", "--help"],
        ["demo", "traffic", "--help"],
    ],
)
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    program = f"""
import sys
from tollgate.api.document import Document
from tollgate.root import root
root(Document.packaged()).main({arguments!r}, "tollgate", standalone_mode=False)
print(sorted(sys.modules.keys() & {{"aiohttp", "asyncio", "http.client", "rich", "yaml"}}), file=sys.stderr)
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert ended.stderr == "[]\n"
