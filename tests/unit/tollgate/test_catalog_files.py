"""Files of the catalogue's commands: places of faults, credentials from variables, lists of models and prices."""

import json
from pathlib import Path

import pytest

from tollgate.catalog import document_file, price_list_file
from tollgate.catalog.document_file import DocumentFile, as_yaml
from tollgate.errors import CommandError, UsageError

PROVIDERS = """\
providers:
  one:
    kind: openai
    credential_from_env: ONE_KEY
  two:
    kind: openai
prices:
  gpt-4.1:
    one:
      prices:
      - {meter: input, unit: 1M tokens, cost: 1}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("catalog.yaml")


def read(file: Path, text: str, **environment: str) -> DocumentFile:
    file.write_text(text)
    return document_file.read(file, environment)


@pytest.mark.parametrize(
    ("pointer", "place"),
    [
        ("/providers/two/kind", "catalog.yaml:6: providers.two.kind"),
        ("/providers/two/base_url", "catalog.yaml:5: providers.two.base_url"),
        ("/prices/gpt-4.1/one/prices/0/cost", 'catalog.yaml:11: prices."gpt-4.1".one.prices[0].cost'),
        ("/prices/a~1b", 'catalog.yaml:7: prices."a/b"'),
        ("/providers/one/credential", "catalog.yaml:4: providers.one.credential"),
        ("", "catalog.yaml:1"),
        ("?prune", "?prune"),
    ],
)
def test_a_fault_is_told_where_it_stands_in_the_file(file: Path, pointer: str, place: str) -> None:
    assert read(file, PROVIDERS, ONE_KEY="sk-1").place(pointer) == place


def test_a_credential_comes_from_the_variable_that_the_provider_names_and_is_in_no_representation(file: Path) -> None:
    document = read(file, PROVIDERS, ONE_KEY="sk-1")
    assert document.content["providers"]["one"] == {"kind": "openai", "credential": "sk-1"}
    assert document.warnings == ()
    assert "sk-1" not in repr(document)


def test_every_variable_that_is_missing_is_named_with_its_provider(file: Path) -> None:
    text = PROVIDERS + "routes: {}\n"
    text = text.replace("  two:\n", "  two:\n    credential_from_env: TWO_KEY\n")
    with pytest.raises(UsageError) as caught:
        read(file, text, ONE_KEY="")
    assert str(caught.value).splitlines()[1:] == [
        "  catalog.yaml:4: providers.one.credential_from_env: the environment variable ONE_KEY of the provider one is not set",
        "  catalog.yaml:6: providers.two.credential_from_env: the environment variable TWO_KEY of the provider two is not set",
    ]


@pytest.mark.parametrize("value", ["sk live!", "1", "[A]", "null"])
def test_what_is_no_name_of_a_variable_is_not_repeated(file: Path, value: str) -> None:
    with pytest.raises(UsageError, match="not the name of an environment variable") as caught:
        read(file, PROVIDERS.replace("ONE_KEY", value), ONE_KEY="sk-1")
    assert "sk" not in str(caught.value)


def test_a_credential_in_the_clear_is_taken_with_a_warning_and_not_beside_a_variable(file: Path) -> None:
    document = read(file, PROVIDERS.replace("credential_from_env: ONE_KEY", "credential: sk-2"))
    assert document.content["providers"]["one"]["credential"] == "sk-2"
    [warning] = document.warnings
    assert warning.startswith("catalog.yaml:4: providers.one.credential is in the clear")
    assert "sk-2" not in warning
    assert read(file, PROVIDERS.replace("credential_from_env: ONE_KEY", "credential: null")).warnings == ()
    with pytest.raises(UsageError, match="not together"):
        read(file, PROVIDERS.replace("    credential_from", "    credential: x\n    credential_from"), ONE_KEY="x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no catalogue"),
        ("- a\n", "holds no catalogue"),
        ("a: 1\na: 2\n", "catalog.yaml:2: the key 'a' a second time"),
    ],
)
def test_what_is_no_document_is_not_sent(file: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(file, text)


def test_a_file_that_is_too_large_or_not_text_or_not_there_is_not_read(file: Path) -> None:
    with pytest.raises(UsageError, match=r"catalog\.yaml cannot be read: No such file"):
        document_file.read(file, {})
    file.write_bytes(b"a: \xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        document_file.read(file, {})
    file.write_bytes(b"#" * (16 * 1024**2 + 1))
    with pytest.raises(UsageError, match="larger than 16 MiB"):
        document_file.read(file, {})


def test_an_export_keeps_the_order_of_the_sections_and_sorts_all_else() -> None:
    document = {"providers": {"b": {"kind": "openai", "base_url": "x"}, "a": {}}, "models": {"on": {"owned_by": "1.5"}}}
    assert as_yaml(document) == (
        "providers:\n  a: {}\n  b:\n    base_url: x\n    kind: openai\nmodels:\n  'on':\n    owned_by: '1.5'\n"
    )


def test_a_file_that_is_there_is_overwritten_only_if_that_is_said(file: Path) -> None:
    document_file.write("a\n", file, force=False)
    with pytest.raises(CommandError, match="--force"):
        document_file.write("b\n", file, force=False)
    assert file.read_text() == "a\n"
    document_file.write("b\n", file, force=True)
    assert file.read_text() == "b\n"


def test_a_list_is_sent_as_it_stands_in_the_file(file: Path) -> None:
    file.write_text('{"m":  {"cost": 1.50000000000000000001e-7}}\n')
    listed = price_list_file.read(file)
    body = listed.body("litellm", ["m*"], [], {"one": "https://example.com"})
    assert b'"content": {"m":  {"cost": 1.50000000000000000001e-7}}' in body
    assert json.loads(body) == {
        "format": "litellm",
        "models": ["m*"],
        "providers": [],
        "provider_base_urls": {"one": "https://example.com"},
        "content": {"m": {"cost": 1.5e-7}},
    }


def test_a_place_in_a_list_is_named_by_the_items_id_and_one_in_the_choice_by_its_option(file: Path) -> None:
    file.write_text(json.dumps({"data": [{"id": "maker/x", "pricing": {"a": 1}}], "openai/m": {"y": 1}}))
    listed = price_list_file.read(file)
    assert listed.entry("/data/0/pricing/a") == '"maker/x".pricing.a'
    assert listed.entry("/data/7") == "data[7]"
    assert listed.place("/content/openai~1m/y") == 'catalog.yaml: "openai/m".y'
    assert listed.place("/content") == "catalog.yaml"
    assert listed.place("/models/1") == "--model (number 2)"


@pytest.mark.parametrize(("text", "words"), [("{\n\n]", ":3: not JSON"), ("[1]", "JSON object"), ("[" * 10**6, "JSON")])
def test_what_is_no_list_is_not_sent(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        price_list_file.read(file)
