"""The documents say what the code does: settings, files, links."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

import billing_sink.settings
import control_plane.settings
import ext_authz.settings
import response_cache.settings
import translator.settings
from control_plane.catalog.price_specs import UNITS_BY_METER
from gateway_core.endpoints import SOLD
from gateway_core.providers import PATHS_BY_KIND

ROOT = Path(__file__).parents[2]

SETTINGS: dict[str, type[BaseSettings]] = {
    "control_plane": control_plane.settings.Settings,
    "ext_authz": ext_authz.settings.Settings,
    "billing_sink": billing_sink.settings.Settings,
    "translator": translator.settings.Settings,
    "response_cache": response_cache.settings.Settings,
}


def documented(service: str) -> set[str]:
    """The settings in the first column of the tables of a service's README."""
    text = (ROOT / service / "README.md").read_text()
    cells = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `TOLLGATE_"))
    return {name for cell in cells for name in re.findall(r"TOLLGATE_[A-Z_]+", cell)}


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_is_in_the_readme_of_its_service_and_nothing_else_is(service: str) -> None:
    assert documented(service) == {f"TOLLGATE_{name.upper()}" for name in SETTINGS[service].model_fields}


@pytest.mark.parametrize("service", SETTINGS)
def test_the_defaults_in_the_readme_are_those_of_the_code(service: str) -> None:
    text = (ROOT / service / "README.md").read_text()
    for name, field in SETTINGS[service].model_fields.items():
        if isinstance(field.default, int):
            [row] = [
                line for line in text.splitlines() if f"`TOLLGATE_{name.upper()}`" in line and line.startswith("|")
            ]
            assert re.search(rf"\b{field.default}\b", row), f"{name}: {field.default} is not in {row!r}"


@pytest.mark.parametrize(
    "path",
    [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("*/README.md"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", path.read_text()):
        if target.startswith("http"):
            continue
        found = path.parent / target if target else path
        assert found.exists(), f"{path.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, anchor


def test_every_file_the_architecture_names_exists() -> None:
    """A bare file name in a row of a hop table stands in the folder of the file named before it."""
    rows = [
        line
        for line in (ROOT / "docs" / "ARCHITECTURE.md").read_text().splitlines()
        if re.match(r"\| \d+[a-z]? \|", line)
    ]
    assert len(rows) == 20 + 18 + 7 + 4 + 3
    for row in rows:
        folder = ROOT
        for name in re.findall(r"`([a-z_/0-9]+\.(?:py|lua|sql|yaml))`", row):
            candidates = [ROOT / name, folder / name]
            found = next((candidate for candidate in candidates if candidate.exists()), None)
            assert found, f"{name} in {row[:40]}"
            folder = found.parent


def test_every_package_has_a_readme() -> None:
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "wire"]
    assert not [package.name for package in packages if not (package / "README.md").exists()]


def test_the_readme_of_the_tests_names_every_folder_and_every_file_of_support() -> None:
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/.]+)`", text))
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").glob("*/*.py")}
    assert {f"{folder}/" for folder in folders} <= named
    assert {path.name for path in (ROOT / "tests" / "support").glob("*.py")} <= named


def rows_of(path: str, first: str) -> list[list[str]]:
    """The rows of the table whose heading begins so, each cell as the names in it."""
    table = (ROOT / path).read_text(encoding="utf-8").partition(f"| {first} |")[2].partition("\n\n")[0]
    return [
        [",".join(re.findall(r"`([^`]+)`", cell)) for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]
    ]


def test_what_each_kind_of_provider_serves_is_in_its_row() -> None:
    assert {row[0]: row[3] for row in rows_of("docs/PROVIDERS.md", "kind")} == {
        str(kind): ",".join(each for each in SOLD if each in paths) for kind, paths in PATHS_BY_KIND.items()
    }


def test_every_meter_is_in_the_table_of_units_with_its_own() -> None:
    assert {
        meter: units for row in rows_of("docs/PRICES.md", "meters") for meter in row[0].split(",") for units in row[1:]
    } == {str(meter): ",".join(units) for meter, units in UNITS_BY_METER.items()}
