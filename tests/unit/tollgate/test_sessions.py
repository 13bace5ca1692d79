"""The file of sessions: private, and a refresh token used by one at a time."""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tollgate.errors import CommandError, NotLoggedInError
from tollgate.sessions import Session, Sessions
from tollgate.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER = "https://gateway.test"


def session(number: int, *, lives_s: int = 900, email: str = "ada@example.com") -> Session:
    return Session(email, f"access-{number}", f"refresh-{number}", (NOW + timedelta(seconds=lives_s)).isoformat())


def logged_in(directory: Path, lives_s: int = 900) -> Sessions:
    sessions = Sessions(directory, lambda: NOW)
    sessions.update(lambda state: state.with_session(SERVER, session(0, lives_s=lives_s)).at(SERVER))
    return sessions


def never(_session: Session) -> Session:
    raise AssertionError("a token that is good was exchanged")


def test_a_token_that_lives_is_used_as_it_is(tmp_path: Path) -> None:
    assert logged_in(tmp_path).access_token(SERVER, never) == "access-0"


@pytest.mark.parametrize("lives_s", [-10, 0, 29])
def test_a_token_near_its_end_is_exchanged_and_kept(tmp_path: Path, lives_s: int) -> None:
    sessions = logged_in(tmp_path, lives_s)
    assert sessions.access_token(SERVER, lambda old: session(int(old.refresh_token[-1]) + 1)) == "access-1"
    assert sessions.access_token(SERVER, never) == "access-1"


def test_of_many_at_once_one_exchanges_and_all_get_the_new_token(tmp_path: Path) -> None:
    logged_in(tmp_path, lives_s=0)
    used: list[str] = []
    got: list[str] = []

    def renew(old: Session) -> Session:
        used.append(old.refresh_token)
        time.sleep(0.02)
        return session(len(used))

    threads = [
        threading.Thread(target=lambda: got.append(Sessions(tmp_path, lambda: NOW).access_token(SERVER, renew)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used == ["refresh-0"]
    assert got == ["access-1"] * 8


def test_a_session_that_is_over_is_over_until_somebody_logs_in_or_out(tmp_path: Path) -> None:
    sessions = logged_in(tmp_path, lives_s=0)

    def over(_session: Session) -> Session:
        raise NotLoggedInError("over")

    before = sessions.read()
    for _ in range(2):
        with pytest.raises(NotLoggedInError):
            sessions.access_token(SERVER, over)
    assert sessions.read() == before


def test_a_lost_answer_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    sessions = logged_in(tmp_path, lives_s=0)
    before = sessions.read()

    def lost(_session: Session) -> Session:
        raise CommandError("lost")

    with pytest.raises(CommandError):
        sessions.access_token(SERVER, lost)
    assert sessions.read() == before


def test_everybody_has_remembered_organisations_of_their_own_and_finds_them_again(tmp_path: Path) -> None:
    sessions = logged_in(tmp_path)
    sessions.update(lambda state: state.with_org(SERVER, "org_of_ada"))
    sessions.update(lambda state: state.with_session(SERVER, session(1)))
    assert sessions.read().org(SERVER) == "org_of_ada"
    sessions.update(lambda state: state.with_session(SERVER, session(2, email="bob@example.com")))
    assert sessions.read().org(SERVER) is None
    sessions.update(lambda state: state.with_session(SERVER, None))
    assert sessions.read().org(SERVER) is None
    sessions.update(lambda state: state.with_org(SERVER, "org_of_the_operator"))
    sessions.update(lambda state: state.with_session(SERVER, session(3)))
    assert sessions.read().org(SERVER) == "org_of_ada"
    sessions.update(lambda state: state.with_session(SERVER, None))
    assert sessions.read().org(SERVER) == "org_of_the_operator"


def test_tokens_are_in_no_repr(tmp_path: Path) -> None:
    text = repr(logged_in(tmp_path).read())
    assert "access-0" not in text
    assert "refresh-0" not in text
    assert "secret" not in repr(Settings.of({"TOLLGATE_TOKEN": "secret", "HOME": "/"}))


def test_the_place_of_the_file_follows_xdg_and_ignores_a_relative_path() -> None:
    assert Settings.of({"XDG_STATE_HOME": "/s"}).state_directory == Path("/s/tollgate")
    assert Settings.of({"XDG_STATE_HOME": "s"}).state_directory == Path.home() / ".local" / "state" / "tollgate"
