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
_POST: Final = """
const post = async (path, body, bearer) => {
  const headers = {"content-type": "application/json", ...(bearer && {authorization: `Bearer ${bearer}`})};
  const answer = await fetch(path, {method: "POST", headers, body: JSON.stringify(body)});
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const faults = (said.errors || []).map((each) => `${each.pointer}: ${each.detail}`);
  at("why").textContent = [said.detail || answer.statusText, ...faults].join(" ");
  show("refused");
};
const end = (text) => { at("said").textContent = text; show("done"); };
const token = found.get("token");
show(token ? "ask" : "nothing");
"""
# Without a slash: below whatever path this server is reached at.
_API: Final = PREFIX.removeprefix("/")

VERIFY_EMAIL: Final = StaticPage(
    "/verify-email",
    "verify your address",
    "<div id=ask hidden><h1>Verify your e-mail address</h1><button id=go>This address is mine</button></div>" + _ENDS,
    f"""{_POST}
at("go").onclick = async () => {{
  if (await post("{_API}/auth/verify-email", {{token}})) end("Your address is verified. You can close this page.");
}};
""",
)
RESET_PASSWORD: Final = StaticPage(
    "/reset-password",
    "new password",
    "<div id=ask hidden><h1>Set a new password</h1><p><input id=password type=password minlength=8 maxlength=200 "
    "autocomplete=new-password aria-label='New password' placeholder='8 to 200 characters'> <button id=go>Set it</button></div>"
    + _ENDS,
    f"""{_POST}
at("go").onclick = async () => {{
  const body = {{token, password: at("password").value}};
  if (await post("{_API}/auth/password-resets", body)) end("Your password is set, and every session has ended. Log in again.");
}};
""",
)
ACCEPT_INVITATION: Final = StaticPage(
    "/accept-invitation",
    "invitation",
    "<div id=ask hidden><h1>You are invited</h1><p>Log in as the invited address to accept."
    "<p><input id=email type=email autocomplete=username aria-label=E-mail placeholder=E-mail> "
    "<input id=password type=password maxlength=200 autocomplete=current-password aria-label=Password placeholder=Password> "
    "<button id=go>Log in and accept</button>"
    "<p><label><input id=new type=checkbox> I have no account yet: make one with this password (8 to 200 characters), and an "
    "organisation of my own beside this one, named <input id=organization aria-label='Name of the organisation' "
    "value=Personal></label>"
    "<p>On a command line, after <code>tollgate login</code>: <code>tollgate invitations accept --token ...</code> with"
    "<pre id=shown></pre></div>" + _ENDS,
    f"""{_POST}
at("shown").textContent = token || "";
at("go").onclick = async () => {{
  const who = {{email: at("email").value, password: at("password").value}};
  if (at("new").checked && !await post("{_API}/auth/register", {{...who, organization: at("organization").value}})) return;
  const session = await post("{_API}/auth/login", who);
  const member = session && await post("{_API}/invitations/accept", {{token}}, session.access_token);
  if (member) end(`You are a member now, as ${{member.role}}. Log in wherever you work: tollgate login.`);
}};
""",
)
PAGES: Final = (VERIFY_EMAIL, RESET_PASSWORD, ACCEPT_INVITATION)


def link(public_url: str, page: StaticPage, token: str) -> str:
    """The link to a page that a mail has."""
    return f"{public_url}{page.path}#token={quote(token)}"
