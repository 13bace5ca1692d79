"""Commands made from the document of the API, and from a small one that has every kind of field."""

from typing import Any

import pytest
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from tests.support.openapi import catalogue
from tollgate import books_commands, catalog_commands
from tollgate.api.changes import require_applied
from tollgate.api.commands import groups
from tollgate.api.document import Document, Kind, Outline
from tollgate.api.names import NameTakenError, commands
from tollgate.api.options import RESERVED, flag
from tollgate.errors import NotAppliedError
from tollgate.output import COLUMNS
from tollgate.root import API, LOCAL_STACK, OWN, OWN_VERBS, Root, root

PACKAGED = Document.packaged()


def made(document: Document) -> dict[str, TyperCommand]:
    """Every command, by what one types."""
    found = {}
    for group in groups(document):
        for verb in group.list_commands(None):
            command = group.get_command(None, verb)
            assert command is not None
            found[f"{group.name} {verb}"] = command
    return found


def flags(command: TyperCommand) -> set[str]:
    return {name for param in command.params if isinstance(param, TyperOption) for name in param.opts}


def outline(operation_id: str, method: str, path: str) -> Outline:
    return Outline(operation_id, method, f"/api/v1{path}", "")


def test_every_operation_has_one_command() -> None:
    named = [each for verbs in commands(PACKAGED.outlines).values() for each in verbs.values()]
    assert sorted(each.operation_id for each in named) == sorted(each.operation_id for each in PACKAGED.outlines)
    assert len(made(PACKAGED)) == len(PACKAGED.outlines)


def test_every_parameter_and_every_field_is_an_argument_or_an_option() -> None:
    for verbs in commands(PACKAGED.outlines).values():
        for each in verbs.values():
            operation = PACKAGED.operation(each)
            [command] = [made for name, made in made_by_id().items() if name == each.operation_id]
            wanted = {flag(field) for field in (*operation.query, *(operation.body or ()))}
            wanted |= {f"--{name.lower()}" for name in operation.headers}
            assert wanted <= flags(command), each.operation_id
            arguments = {param.metavar for param in command.params if isinstance(param, TyperArgument)}
            assert {name.upper() for name in operation.path_parameters} - {"ORG_ID"} <= arguments, each.operation_id
            assert ("--org" in flags(command)) == ("org_id" in operation.path_parameters), each.operation_id


def made_by_id() -> dict[str, TyperCommand]:
    commands_made = made(PACKAGED)
    return {
        each.operation_id: commands_made[f"{noun} {verb}"]
        for noun, verbs in commands(PACKAGED.outlines).items()
        for verb, each in verbs.items()
    }


def test_no_command_has_an_option_twice() -> None:
    for document in (PACKAGED, Document(catalogue())):
        for name, command in made(document).items():
            options = [
                each
                for param in command.params
                if isinstance(param, TyperOption)
                for each in (*param.opts, *param.secondary_opts)
            ]
            assert len(options) == len(set(options)), name


def test_nothing_of_the_api_hides_a_command_of_another_kind() -> None:
    tree = root(PACKAGED)
    api = {group.name for group in groups(PACKAGED)}
    assert all(isinstance(tree.commands[str(name)], TyperGroup) for name in api)
    assert {
        "up",
        "status",
        "down",
        "logs",
        "psql",
        "clickhouse",
        "login",
        "logout",
        "whoami",
        "demo",
    } <= tree.commands.keys() - api
    assert isinstance(tree, Root)
    assert "demo" in tree.sections()[LOCAL_STACK]
    assert "demo" not in tree.sections()[API]


def test_the_catalogue_has_commands_of_its_own_for_all_that_the_api_has_there() -> None:
    there = commands(PACKAGED.outlines)[catalog_commands.NOUN]
    assert {each.operation_id for each in there.values()} == catalog_commands.OPERATIONS
    group = root(PACKAGED).commands[catalog_commands.NOUN]
    assert isinstance(group, TyperGroup)
    assert list(group.commands) == ["export", "diff", "apply", "check", "import", "starter"]
    schemas = PACKAGED._content["components"]["schemas"]
    assert [each.value for each in catalog_commands.ListFormat] == schemas["ImportFormat"]["enum"]


def test_the_command_that_reconciles_stands_in_the_place_of_its_operations_own() -> None:
    there = commands(PACKAGED.outlines)[books_commands.NOUN]
    assert {verb: there[verb].operation_id for verb in books_commands.OPERATIONS} == books_commands.OPERATIONS
    group = root(PACKAGED).commands[books_commands.NOUN]
    assert isinstance(group, TyperGroup)
    command = group.get_command(None, "reconcile")  # type: ignore[arg-type] # its context is not looked at
    assert isinstance(command, TyperCommand)
    assert "--threshold" in flags(command)
    schemas = PACKAGED._content["components"]["schemas"]
    assert [each.value for each in books_commands.FileFormat] == schemas["ExportFormat"]["enum"]
    assert [each.value for each in books_commands.Period] == schemas["Period"]["enum"]


def test_nouns_with_commands_of_their_own_are_those_of_the_api() -> None:
    assert commands(PACKAGED.outlines).keys() >= OWN.keys() | OWN_VERBS.keys()


@pytest.mark.parametrize(
    ("operation_id", "method", "path", "name"),
    [
        ("list_keys", "GET", "/orgs/{org_id}/keys", "keys list"),
        ("get_key", "GET", "/orgs/{org_id}/keys/{key_id}", "keys get"),
        ("rotate_key", "POST", "/orgs/{org_id}/keys/{key_id}/rotate", "keys rotate"),
        ("get_key_propagation", "GET", "/orgs/{org_id}/keys/{key_id}/propagation", "keys get-propagation"),
        ("revoke_key", "DELETE", "/orgs/{org_id}/keys/{key_id}", "keys revoke"),
        ("invite", "POST", "/orgs/{org_id}/invitations", "invitations create"),
        ("accept_invitation", "POST", "/invitations/accept", "invitations accept"),
        ("leave_org", "DELETE", "/orgs/{org_id}/membership", "orgs leave"),
        ("change_org", "PATCH", "/orgs/{org_id}", "orgs change"),
        ("change_password", "POST", "/me/password", "me change-password"),
        ("get_me", "GET", "/me", "me get"),
        ("verify_email", "POST", "/auth/verify-email", "auth verify-email"),
        ("put_provider", "PUT", "/providers/{provider}", "providers put"),
        ("delete_price_policy", "DELETE", "/price-policies/{id}", "price-policies delete"),
        ("save", "PUT", "/routes/{route}", "routes put"),
        ("everything", "GET", "/routes", "routes list"),
    ],
)
def test_a_command_is_named_after_path_and_operation(operation_id: str, method: str, path: str, name: str) -> None:
    [(noun, verbs)] = commands([outline(operation_id, method, path)]).items()
    assert [f"{noun} {verb}" for verb in verbs] == [name]


def test_a_noun_in_and_beside_organisations_is_the_organisations() -> None:
    named = commands(
        [outline("list_tokens", "GET", "/tokens"), outline("list_tokens_of_org", "GET", "/orgs/{org_id}/tokens")]
    )
    assert {noun: [each.operation_id for each in verbs.values()] for noun, verbs in named.items()} == {
        "platform-tokens": ["list_tokens"],
        "tokens": ["list_tokens_of_org"],
    }


def test_two_operations_of_one_name_are_an_error() -> None:
    with pytest.raises(NameTakenError, match="both `keys list`"):
        commands([outline("list_keys", "GET", "/keys"), outline("keys_list", "GET", "/keys/all")])


def test_a_price_is_waited_for_like_any_other_change_and_a_later_one_is_not() -> None:
    [add] = [each for each in PACKAGED.outlines if each.operation_id == "add_price"]
    assert PACKAGED.operation(add).goes_on
    require_applied({"state": "scheduled"})
    with pytest.raises(NotAppliedError, match="rolled back: no"):
        require_applied({"state": "rolled_back", "error": "no"})


def test_fields_are_understood() -> None:
    document = Document(catalogue())
    [put] = [each for each in document.outlines if each.operation_id == "put_provider"]
    operation = document.operation(put)
    assert operation.goes_on
    fields = {field.name: field for field in operation.body or ()}
    kinds = {name: (field.kind, field.is_list) for name, field in fields.items()}
    assert kinds == {
        "kind": (Kind.CHOICE, False),
        "base_url": (Kind.TEXT, False),
        "api_key": (Kind.SECRET, False),
        "weight": (Kind.NUMBER, False),
        "timeout_ms": (Kind.INTEGER, False),
        "headers": (Kind.JSON, False),
        "regions": (Kind.CHOICE, True),
        "rules": (Kind.JSON, False),
        "is_free": (Kind.BOOLEAN, False),
        "json": (Kind.TEXT, False),
    }
    assert (fields["timeout_ms"].minimum, fields["timeout_ms"].maximum) == (1, 600000)
    assert (fields["weight"].is_nullable, fields["api_key"].is_required) == (True, True)
    assert flag(fields["api_key"]) == "--api-key-file"
    assert flag(fields["json"]) == "--field-json"
    assert "json" in RESERVED


def test_a_secret_of_the_api_is_never_a_value_on_the_command_line() -> None:
    secret = {"password", "current_password", "new_password", "refresh_token", "api_key", "client_secret", "secret"}
    for each in PACKAGED.outlines:
        for field in PACKAGED.operation(each).body or ():
            assert field.name not in secret or field.kind is Kind.SECRET, f"{each.operation_id}: {field.name}"


def test_the_columns_of_tables_are_fields_of_what_they_show() -> None:
    schemas: dict[str, Any] = PACKAGED._content["components"]["schemas"]
    for name, columns in COLUMNS.items():
        assert set(columns) <= schemas[name]["properties"].keys(), name


def test_help_of_an_option_says_how_its_field_becomes_null_where_null_says_something() -> None:
    said = {
        name: {each.opts[0]: each.help for each in command.params if isinstance(each, TyperOption)}
        for name, command in made(PACKAGED).items()
    }
    assert said["keys change"]["--expires-at"] == "[null: --no-expires-at]"
    assert said["keys change"]["--models-allowed"] == (
        "Models it may ask for, * for any characters; none means all. [may be repeated; none: --no-models-allowed]"
    )
    assert "no limit but the balance. [null: leave it out]" in str(said["keys create"]["--budget-per-day-usd"])
    assert "null: --no-credential]" in str(said["providers put"]["--credential-file"])


def test_help_of_a_command_says_what_it_calls_and_what_it_needs() -> None:
    command = made(PACKAGED)["keys create"]
    assert command.help is not None
    assert "POST /api/v1/orgs/{org_id}/keys" in command.help
    assert "keys:write" in command.help
