"""The catalogue under version control: exported, edited, compared, applied, and the new model serves."""

import secrets
from pathlib import Path

import aiohttp
import yaml

from tests.support.command_line import CommandLine
from tests.support.stack import Stack


async def test_a_model_added_to_the_exported_file_serves_once_it_is_applied(stack: Stack, tmp_path: Path) -> None:
    variables = {
        "TOLLGATE_SERVER": stack.endpoints["control_plane_url"],
        "TOLLGATE_TOKEN": stack.endpoints["operator_token"],
        "FILE_PROVIDER_KEY": "sk-file-provider",
    }
    operator = CommandLine(tmp_path, variables)
    name = f"file-{secrets.token_hex(4)}"
    await operator.done("catalog", "export", "catalog.yaml")
    file = tmp_path / "catalog.yaml"
    document = yaml.safe_load(file.read_text())
    price = {"unit": "1M tokens", "cost": "0.10", "price": "0.20"}
    document["providers"][name] = {
        "kind": "openai",
        "base_url": f"{stack.simulator_url}/v1",
        "credential_from_env": "FILE_PROVIDER_KEY",
    }
    document["models"][name] = {"owned_by": "test", "context_tokens": 100_000, "max_output_tokens": 100}
    document["deployments"][name] = {name: {"upstream_model": "upstream"}}
    meters = ("input", "cached_input", "output", "reasoning")
    document["prices"][name] = {name: {"prices": [{"meter": meter, **price} for meter in meters]}}
    document["routes"][name] = {"match": name, "groups": [[{"provider": name}]]}
    file.write_text(yaml.safe_dump(document))

    compared = await operator.run("catalog", "diff", "catalog.yaml")
    assert compared.code == 1, compared
    assert f"+ model {name}\n" in compared.out
    assert compared.out.endswith("\n5 to create, 0 to change, 0 to remove.\n")
    await operator.done("catalog", "check", "catalog.yaml")
    applied = await operator.done("catalog", "apply", "catalog.yaml", "--yes", "--json")
    assert (applied.json["state"], applied.json["nodes"]) == ("applied", 1)

    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
    async with (
        aiohttp.ClientSession(headers=stack.headers) as session,
        session.post(f"{stack.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200, await response.text()
        row = await stack.request_row(response.headers["x-request-id"])
    assert (row["model"], row["outcome"]) == (name, "settled")
    again = await operator.done("catalog", "apply", "catalog.yaml", "--yes")
    assert again.err == "Nothing to do: the catalogue is as the file says.\n"
