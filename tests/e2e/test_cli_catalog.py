"""An operator's day with `tollgate`: a provider, a model and a route, each live when the command ends."""

import secrets
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.stack import Stack


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> CommandLine:
    """Beside the stack, with its operator token."""
    variables = {
        "TOLLGATE_SERVER": stack.endpoints["control_plane_url"],
        "TOLLGATE_TOKEN": stack.endpoints["operator_token"],
    }
    return CommandLine(tmp_path, variables)


async def test_an_operator_edits_the_catalogue_and_every_command_ends_when_its_change_is_live(
    stack: Stack, operator: CommandLine
) -> None:
    name = f"cli-{secrets.token_hex(4)}"
    model = f"maker/{name}"
    (operator.directory / "credential").write_text("sk-x\n")
    provider = ("providers", "put", name, "--kind", "openai", "--base-url", f"{stack.simulator_url}/v1")

    created = (await operator.done(*provider, "--credential-file", "credential", "--json")).json
    assert (created["state"], created["action"], created["nodes"]) == ("applied", "provider.put", 1)
    replaced = await operator.done(*provider, "--headers", '{"x-team": "blue"}')
    assert "applied" in replaced.out
    shown = (await operator.done("providers", "get", name, "--json")).json
    assert (shown["headers"], shown["has_credential"]) == ({"x-team": "blue"}, True)
    late = await operator.run(*provider, "--if-match", f'"{shown["revision"] - 1}"')
    assert (late.code, "changed" in late.err) == (1, True)
    await operator.done(*provider, "--no-credential")
    assert not (await operator.done("providers", "get", name, "--json")).json["has_credential"]

    sizes = ("--owned-by", "maker", "--context-tokens", "1000", "--max-output-tokens", "100")
    await operator.done("models", "put", model, *sizes, "--aliases", f"{name}-alias")
    await operator.done("deployments", "put", model, name, "--upstream-model", "up")
    async with stack.database() as database:
        await database.execute("INSERT INTO catalog.prices VALUES ($1, $2, 0, 'input', 1, 1)", model, name)
    route = f"match: {model}\ngroups:\n- - provider: {name}\n"
    tried = await operator.done("routes", "put", name, "--body", "-", "--dry-run", stdin=route)
    assert tried.err == "Nothing was changed: this was a dry run.\n"
    assert (await operator.run("routes", "get", name)).code == 1
    await operator.done("routes", "put", name, "--body", "-", stdin=route)
    assert model in (await operator.done("models", "list", "--all")).out

    refused = await operator.run("providers", "delete", name)
    assert (refused.code, "still used" in refused.err) == (1, True)
    for gone in (("routes", name), ("deployments", model, name), ("models", model), ("providers", name)):
        await operator.done(gone[0], "delete", *gone[1:])
    assert name not in (await operator.done("providers", "list", "--all")).out
    assert "provider.delete" in (await operator.done("operations", "list", "--limit", "3")).out
    assert "local-1" in (await operator.done("nodes", "list")).out


async def test_a_field_that_does_not_fit_is_named_as_one_types_it(operator: CommandLine) -> None:
    refused = await operator.run("providers", "put", "odd", "--kind", "openai", "--base-url", "ftp://example.com")
    assert refused.code == 1
    assert "  --base-url: " in refused.err
    named = await operator.run("providers", "put", "NOT_GOOD", "--kind", "openai", "--base-url", "https://example.com")
    assert named.code == 1
    assert "  PROVIDER: " in named.err
