"""The catalogue as a file: `tollgate catalog` against the real API on a real Postgres, with the real Envoy as judge."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.api import Api, running_api
from tests.support.catalog_api import MODEL, PROVIDER, put
from tests.support.catalog_documents import DOCUMENT
from tests.support.command_line import CommandLine

SECRET = "sk-provider-secret-93"
LISTS = Path(__file__).parents[1] / "golden" / "imports"

PART = """\
providers:
  one:
    kind: openai
    base_url: https://api.example.com/v1
models:
  m:
    owned_by: example
    context_tokens: 1000
    max_output_tokens: 100
"""


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        yield running.as_(await running.operator_token())


@pytest.fixture
def cli(api: Api, tmp_path: Path) -> CommandLine:
    assert api.token is not None
    return CommandLine(tmp_path, {"TOLLGATE_SERVER": api.url, "TOLLGATE_TOKEN": api.token})


async def apply(api: Api, document: object) -> None:
    applied = await api.post("/catalog/apply", document, headers={"If-Match": "*"})
    assert applied.status == 202, applied.text


def write(cli: CommandLine, text: str, name: str = "catalog.yaml") -> str:
    (cli.directory / name).write_text(text)
    return name


async def test_an_export_is_the_same_text_every_time_and_applying_it_changes_nothing(
    api: Api, cli: CommandLine
) -> None:
    await apply(api, DOCUMENT)
    exported = await cli.done("catalog", "export")
    assert exported.out.startswith("providers:\n  one:\n    base_url: https://api.example.com/v1\n    kind: openai\n")
    assert (await cli.done("catalog", "export", "-")).out == exported.out
    await cli.done("catalog", "export", "catalog.yaml")
    assert (cli.directory / "catalog.yaml").read_text() == exported.out
    assert (await cli.done("catalog", "export", "--json")).json == (await api.get("/catalog")).document

    same = await cli.done("catalog", "diff", "catalog.yaml", "--prune")
    assert (same.out, same.err) == ("No changes.\n", "")
    again = await cli.done("catalog", "apply", "catalog.yaml", "--prune", "--yes")
    assert (again.out, again.err) == ("", "Nothing to do: the catalogue is as the file says.\n")
    assert (await cli.done("catalog", "apply", "-", "--yes", "--json", stdin=exported.out)).json is None
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.operations") == 1

    refused = await cli.run("catalog", "export", "catalog.yaml")
    assert (refused.code, "--force" in refused.err) == (1, True)
    await cli.done("catalog", "export", "catalog.yaml", "--force", "--json")
    assert (await cli.done("catalog", "diff", "catalog.yaml", "--prune")).out == "No changes.\n"


async def test_a_diff_is_readable_and_its_exit_code_tells_whether_there_is_one(api: Api, cli: CommandLine) -> None:
    await apply(api, {"providers": {"one": PROVIDER, "old": PROVIDER}, "models": {"m": MODEL}})
    text = (
        PART.replace("1000", "2000")
        + "  'n/1':\n    owned_by: example\n    context_tokens: 5\n    max_output_tokens: 5\n"
    )

    found = await cli.run("catalog", "diff", "-", "--prune", stdin=text)

    assert (found.code, found.err) == (1, "")
    assert found.out.splitlines() == [
        "~ model m: context_tokens: 1000 -> 2000",
        "+ model n/1",
        "    owned_by: example",
        "    context_tokens: 5",
        "    max_output_tokens: 5",
        "- provider old",
        "1 to create, 1 to change, 1 to remove.",
    ]
    as_json = await cli.run("catalog", "diff", "-", "--json", stdin=text)
    assert as_json.code == 1
    assert [change["change"] for change in as_json.json["changes"]] == ["replace", "create"]
    assert set((await api.get("/catalog"))["providers"]) == {"one", "old"}


async def test_what_cannot_be_compared_is_no_difference(cli: CommandLine) -> None:
    refused = await cli.run("catalog", "diff", "-", stdin="models: {m: {owned_by: x}}\n")
    assert refused.code == 2
    assert "  standard input:1: models.m.context_tokens: " in refused.err
    assert (await cli.run("catalog", "diff", "nowhere.yaml")).code == 2
    assert (await cli.run("catalog", "diff", "-", "--server", "http://127.0.0.1:1", stdin="{}")).code == 3
    assert (await cli.with_(TOLLGATE_TOKEN="sk-tg-op-x").run("catalog", "diff", "-", stdin="{}")).code == 4


async def test_an_apply_without_a_terminal_needs_yes_and_shows_what_it_does(api: Api, cli: CommandLine) -> None:
    file = write(cli, PART)
    refused = await cli.run("catalog", "apply", file)
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert (await api.get("/catalog")).document == {}

    applied = await cli.done("catalog", "apply", file, "--yes", "--no-wait", "--json")

    assert (applied.json["action"], applied.json["target"]) == ("catalog.apply", "2 created, 0 replaced, 0 deleted")
    assert [line for line in applied.err.splitlines() if not line.startswith(" ")] == [
        "+ provider one",
        "+ model m",
        "2 to create, 0 to change, 0 to remove.",
    ]
    assert set((await api.get("/catalog"))["models"]) == {"m"}


async def test_an_answer_at_the_terminal_applies_what_was_shown(api: Api, cli: CommandLine) -> None:
    async def nothing() -> None:
        """Only the answer."""

    file = write(cli, PART)
    applied = await cli.asked(
        "catalog", "apply", file, "--no-wait", question=f"Apply this to {api.url}?", meanwhile=nothing
    )
    assert applied.code == 0, applied
    assert "+ model m\n" in applied.err
    assert set((await api.get("/catalog"))["models"]) == {"m"}


async def test_a_change_between_the_diff_and_the_answer_is_not_overwritten(api: Api, cli: CommandLine) -> None:
    async def other_operator() -> None:
        assert (await put(api, "/models/m", MODEL | {"context_tokens": 7})).status == 202

    file = write(cli, PART)
    late = await cli.asked("catalog", "apply", file, question="Apply this", meanwhile=other_operator)
    assert late.code == 1
    assert "was changed after this comparison, so nothing was applied" in late.err
    assert (await api.get("/catalog"))["models"]["m"]["context_tokens"] == 7


async def test_every_fault_is_told_with_its_line_in_the_file(api: Api, cli: CommandLine) -> None:
    broken = PART.replace("https://", "ftp://").replace("1000", "many").replace("  m:", '  "m 1":')
    refused = await cli.run("catalog", "apply", write(cli, broken), "--yes")
    assert refused.code == 1
    assert "  catalog.yaml:8: models." in refused.err
    refused = await cli.run("catalog", "apply", write(cli, PART.replace("https://", "ftp://")), "--yes")
    assert "  catalog.yaml:4: providers.one.base_url: " in refused.err
    twice = await cli.run("catalog", "apply", write(cli, PART + "  m: {}\n"), "--yes")
    assert (twice.code, twice.err) == (2, "Error: catalog.yaml:10: the key 'm' a second time\n")
    assert (await api.get("/catalog")).document == {}


async def test_a_credential_comes_from_the_environment_and_is_never_shown(api: Api, cli: CommandLine) -> None:
    file = write(cli, PART.replace("    kind", "    credential_from_env: ONE_KEY\n    kind"))
    missing = await cli.run("catalog", "apply", file, "--yes")
    assert missing.code == 2
    assert "catalog.yaml:3: providers.one.credential_from_env" in missing.err
    assert "the environment variable ONE_KEY of the provider one is not set" in missing.err

    with_key = cli.with_(ONE_KEY=SECRET)
    applied = await with_key.done("catalog", "apply", file, "--yes", "--no-wait")
    assert (await api.get("/providers/one"))["has_credential"] is True
    assert "Nothing to do" in (await with_key.done("catalog", "apply", file, "--yes")).err
    rotated = await cli.with_(ONE_KEY=f"{SECRET}-2").run("catalog", "diff", file)
    assert "~ provider one: credential: hidden -> hidden\n" in rotated.out
    odd = await cli.with_(ONE_KEY=f"{SECRET} 3").run("catalog", "diff", file)
    assert "  catalog.yaml:3: providers.one.credential: " in odd.err
    clear = await cli.run("catalog", "diff", "-", stdin=PART.replace("    kind", f"    credential: {SECRET}\n    kind"))
    assert (clear.code, clear.out) == (0, "No changes.\n")
    assert clear.err.startswith("Warning: standard input:3: providers.one.credential is in the clear")
    for outcome in (missing, applied, rotated, odd, clear, await cli.done("catalog", "export")):
        assert SECRET not in outcome.out + outcome.err


async def test_envoys_verdict_is_the_exit_code(api: Api, cli: CommandLine) -> None:
    accepted = await cli.done("catalog", "check", write(cli, PART))
    assert accepted.out == "Envoy accepts it.\n"
    await apply(api, DOCUMENT)
    assert (await cli.done("catalog", "check", "--json")).json["ok"] is True
    await api.pool.execute("UPDATE catalog.providers SET headers = $1", json.dumps({"not a header\n": "x"}))
    refused = await cli.run("catalog", "check")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("Error: Envoy refuses it: ")
    as_json = await cli.run("catalog", "check", "--json")
    assert (as_json.code, as_json.json["ok"]) == (1, False)


async def test_a_list_of_models_becomes_a_file_that_can_be_applied(api: Api, cli: CommandLine) -> None:
    content = json.loads((LISTS / "litellm.json").read_text())["content"]
    write(cli, json.dumps(content), "prices.json")
    chosen = ("--model", "tiny-*", "--model", "poet-*")

    made = await cli.done("catalog", "import", "litellm", "prices.json", *chosen, "--out", "catalog.yaml")

    assert made.out == ""
    assert "+ model tiny-1\n" in made.err
    assert "skipped poet-2.deprecation_date: not a date as YYYY-MM-DD\n" in made.err
    printed = await cli.done("catalog", "import", "litellm", "prices.json", *chosen)
    assert printed.out == (cli.directory / "catalog.yaml").read_text()
    assert (await api.get("/catalog")).document == {}
    assert (await cli.run("catalog", "diff", "catalog.yaml")).code == 1
    await cli.done("catalog", "apply", "catalog.yaml", "--yes", "--no-wait")
    assert "tiny-1" in (await api.get("/catalog"))["models"]
    assert (await cli.run("catalog", "import", "litellm", "prices.json", "--out", "catalog.yaml")).code == 1


async def test_a_provider_of_a_list_is_where_one_says(cli: CommandLine) -> None:
    entry = {"litellm_provider": "elsewhere", "mode": "chat", "max_tokens": 9, "input_cost_per_token": 1e-06}
    listed = json.dumps({"elsewhere/m-1": entry | {"output_cost_per_token": 1e-06}})
    unknown = await cli.done("catalog", "import", "litellm", "-", stdin=listed)
    assert 'skipped "elsewhere/m-1"' in unknown.err
    named = ("--provider-base-url", "elsewhere=https://elsewhere.example.com/v1", "--json")
    known = await cli.done("catalog", "import", "litellm", "-", *named, stdin=listed)
    assert [each["base_url"] for each in known.json["document"]["providers"].values()] == [
        "https://elsewhere.example.com/v1"
    ]
    odd = await cli.run("catalog", "import", "litellm", "-", "--provider-base-url", "elsewhere", stdin=listed)
    assert (odd.code, "NAME=URL" in odd.err) == (2, True)
    pattern = await cli.run("catalog", "import", "litellm", "-", "--model", "a b", stdin=listed)
    assert (pattern.code, "  --model (number 1): " in pattern.err) == (1, True)


async def test_an_entry_of_openrouters_list_is_named_by_its_id(cli: CommandLine) -> None:
    content = json.loads((LISTS / "openrouter.json").read_text())["content"]
    made = await cli.done("catalog", "import", "openrouter", "-", stdin=json.dumps(content))
    assert "+ model maker/writer-1\n" in made.err
    assert 'skipped "openrouter/auto"' in made.err
    assert "models:\n" in made.out


async def test_the_starter_catalogue_is_a_file_that_can_be_applied(api: Api, cli: CommandLine) -> None:
    made = await cli.done("catalog", "starter", "--provider", "anthropic", "--out", "new.yaml")
    assert "routes are drafts" in made.err
    assert "claude-opus-5" in (cli.directory / "new.yaml").read_text()
    await cli.done("catalog", "apply", "new.yaml", "--yes", "--no-wait")
    assert [each["name"] for each in (await api.get("/providers"))["data"]] == ["anthropic"]
    again = await cli.done("catalog", "starter", "--provider", "anthropic", "--json")
    assert json.loads(again.out)["document"] == {}
    refused = await cli.run("catalog", "starter", "--provider", "nobody")
    assert refused.code == 1
    assert "--provider" in refused.err
