"""Where the links in mails lead. Opening one changes nothing, since programs that look for malice open links too; a button does."""

from typing import Final
from urllib.parse import quote

from control_plane.api.operation import PREFIX
from control_plane.api.static_page import StaticPage

_ENDS: Final = (
    "<div id=done hidden><h1>Done</h1><p id=said></div>"
    "<div id=refused hidden><h1>That did not work</h1><p id=why></div>"
    "<div id=nothing hidden><h1>Nothing to see</h1><p>Open the link in the mail as it is.</div>"
)
_SEND: Final = """
const send = async (path, body, said) => {
  const answer = await fetch(path, {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body),
  });
  if (answer.ok) { at("said").textContent = said; show("done"); return; }
  const problem = await answer.json().catch(() => ({}));
  const faults = (problem.errors || []).map((each) => `${each.pointer}: ${each.detail}`);
  at("why").textContent = [problem.detail || answer.statusText, ...faults].join(" ");
  show("refused");
};
const token = found.get("token");
show(token ? "ask" : "nothing");
"""

VERIFY_EMAIL: Final = StaticPage(
    "/verify-email",
    "verify your address",
    "<div id=ask hidden><h1>Verify your e-mail address</h1><button id=go>This address is mine</button></div>" + _ENDS,
    f"""{_SEND}
at("go").onclick = () => send("{PREFIX}/auth/verify-email", {{token}}, "Your address is verified. You can close this page.");
""",
)
RESET_PASSWORD: Final = StaticPage(
    "/reset-password",
    "new password",
    "<div id=ask hidden><h1>Set a new password</h1><p><input id=password type=password minlength=8 maxlength=200 "
    "autocomplete=new-password aria-label='New password' placeholder='8 to 200 characters'> <button id=go>Set it</button></div>"
    + _ENDS,
    f"""{_SEND}
at("go").onclick = () => send("{PREFIX}/auth/password-resets", {{token, password: at("password").value}},
  "Your password is set, and every session has ended. Log in again.");
""",
)
ACCEPT_INVITATION: Final = StaticPage(
    "/accept-invitation",
    "invitation",
    "<div id=ask hidden><h1>You are invited</h1><p>Log in as the invited address (<code>tollgate login</code>), then accept "
    "with <code>tollgate invitations accept</code> and this token:<pre id=shown></pre></div>" + _ENDS,
    f"""{_SEND}
at("shown").textContent = token || "";
""",
)
PAGES: Final = (VERIFY_EMAIL, RESET_PASSWORD, ACCEPT_INVITATION)


def link(public_url: str, page: StaticPage, token: str) -> str:
    """The link to a page that a mail has."""
    return f"{public_url}{page.path}#token={quote(token)}"
