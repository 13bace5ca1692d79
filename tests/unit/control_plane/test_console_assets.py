"""What browsers get: from where it says, and nothing that the policy of the console would refuse."""

import re
from hashlib import sha256
from pathlib import Path

import pytest

from control_plane.console.guard import HEADERS

CONSOLE = Path(__file__).parents[3] / "control_plane" / "console"
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))


def test_the_library_is_the_one_that_the_readme_names() -> None:
    digest = sha256((CONSOLE / "static" / "htmx.min.js").read_bytes()).hexdigest()
    assert f"`{digest}`" in (CONSOLE / "static" / "README.md").read_text()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_page_has_scripts_or_styles_in_itself_or_from_elsewhere(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|\|\s*safe|autoescape", text)
    assert not re.search(r"<script(?![^>]*\ssrc=\"/console/static/)", text)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_form_that_changes_something_says_where_it_goes_and_is_done_once(template: Path) -> None:
    for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", template.read_text(), re.DOTALL):
        found = re.match(r'[^>]*action="/console/([^"]*)"', form)
        assert found, form
        is_about_who_looks = found[1].startswith(("sign-", "register"))
        assert ("{{ parts.once(form_id) }}" in form) is not is_about_who_looks, form


def test_the_policy_admits_files_of_ours_alone() -> None:
    policy = dict(each.strip().split(" ", 1) for each in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy.pop("frame-ancestors") == policy.pop("base-uri") == policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'"}
