"""Pages: a template, what is in it, and what is around it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from control_plane.api.context import SERVICES
from control_plane.api.problems import INTERNAL, problem_of
from control_plane.console import figures
from control_plane.console.visitor import VISITOR
from control_plane.errors import RefusedError
from gateway_core.ids import new_id

_FOLDER: Final = Path(__file__).parent

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(
    usd=figures.usd,
    count=figures.count,
    moment=figures.moment,
    words=figures.words,
    part=lambda text: quote(text, safe=""),
)


class Written(dict[str, str]):
    """What was written into a form, for it to be shown again; nothing, where nothing was."""

    def __missing__(self, name: str) -> str:
        return ""


def page(
    request: web.Request, template: str, *, status: int = 200, form: Mapping[str, str] | None = None, **shown: object
) -> web.Response:
    """A page, or a part of one, as HTML.

    Args:
        request: what it answers.
        template: the file.
        status: of the answer.
        form: what was written into its form.
        shown: what the template shows. `org` of those, an organisation as the API has it, brings its menu.
    """
    around: Mapping[str, Any] = {
        "visitor": request[VISITOR],
        "path": request.path,
        "org": None,
        "refused": None,
        "form": Written(form or {}),
        "form_id": new_id("form", request.app[SERVICES].random_bytes),
    }
    text = _TEMPLATES.get_template(template).render({**around, **shown})
    return web.Response(status=status, text=text, content_type="text/html")


def refusal(request: web.Request, error: Exception) -> web.Response:
    """A refusal as a page of its own."""
    problem = problem_of(error) or INTERNAL
    return page(request, "refused.html", status=problem.status, problem=problem, refused=refused_of(error))


def refused_of(error: Exception) -> RefusedError | None:
    """What a refusal may say to whoever is refused."""
    return error if isinstance(error, RefusedError) else None


def status_of(error: RefusedError) -> int:
    """The status of a refusal, by the table of the API."""
    return (problem_of(error) or INTERNAL).status
