"""What a line tells of something kept: whose it is and where, and nothing that the front filter would not have said."""

from datetime import UTC, datetime

import pytest

from billing_sink.access_log import InvalidLineError, parse_line
from billing_sink.kept import Forgotten, Kept, kept_by
from gateway_core.mode import Mode
from tests.support.spool_lines import GRANT, Json, line, refused, render

FILE = '{"id":"file-1","object":"file","expires_at":1800000000,"filename":"a"}'
UPLOAD = {"endpoint": "file_upload", "mode": "live"}
DELETION = {"endpoint": "file_delete", "mode": "live", "named": "file/file-1"}
RESPONSE = {"endpoint": "stored_responses", "mode": "live", "model": "m", "keeps": True}


def told(**fields: object) -> Kept | Forgotten | None:
    return kept_by(parse_line(render(line("r", usage_first=None, **fields))))


def test_a_file_is_told_of_as_its_provider_described_it() -> None:
    kept = told(request=UPLOAD, kept=FILE)
    assert isinstance(kept, Kept)
    assert (str(kept.name), kept.mode, kept.org_id, kept.key_id, kept.provider) == (
        "file/file-1",
        Mode.LIVE,
        "org_demo",
        "key_demo",
        "openai",
    )
    assert (kept.about, kept.expires_at) == (FILE, datetime(2027, 1, 15, 8, tzinfo=UTC))


def test_of_a_response_the_id_is_told_also_where_the_client_was_answered_an_error() -> None:
    kept = told(request=RESPONSE, kept='{"id":"resp_1"}', status=503)
    assert isinstance(kept, Kept)
    assert (str(kept.name), kept.about, kept.expires_at) == ("response/resp_1", None, None)


def test_what_a_test_key_made_is_the_simulators() -> None:
    kept = told(request=UPLOAD, kept=FILE, cluster="simulator", grant={**GRANT, "mode": "test"})
    assert isinstance(kept, Kept)
    assert (kept.mode, kept.provider) == (Mode.TEST, None)


def test_what_is_deleted_is_told_by_the_path_and_only_once_the_provider_has_said_so() -> None:
    gone = told(request=DELETION)
    assert isinstance(gone, Forgotten)
    assert (str(gone.name), gone.org_id) == ("file/file-1", "org_demo")
    assert told(request=DELETION, status=404) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"request": UPLOAD, "kept": None},
        {"request": UPLOAD, "kept": "{}"},
        {"request": UPLOAD, "kept": "[1]"},
        {"request": UPLOAD, "kept": '{"id":7}'},
        {"request": UPLOAD, "kept": '{"id":"../x"}'},
        {"request": UPLOAD, "kept": "nonsense"},
        {"request": UPLOAD, "kept": FILE, "cluster": "simulator"},
        {"request": UPLOAD, "kept": FILE, "cluster": None},
        {"request": UPLOAD, "kept": FILE, "grant": {**GRANT, "mode": "test"}},
        {"request": UPLOAD, "kept": FILE, "type": "DownstreamPeriodic"},
        {"request": {**UPLOAD, "endpoint": "chat"}, "kept": FILE},
        {"request": {"endpoint": "file", "named": "file/file-1"}},
    ],
)
def test_a_line_that_tells_of_nothing_kept_changes_nothing(fields: Json) -> None:
    assert told(**fields) is None


def test_a_request_that_was_refused_has_nothing_kept() -> None:
    assert kept_by(parse_line(render(refused("r", code="not_found")))) is None


def test_a_name_that_no_front_filter_writes_makes_the_line_one_for_a_person() -> None:
    with pytest.raises(InvalidLineError):
        told(request={**DELETION, "named": "file/../x"})


def test_more_names_than_one_are_no_path_and_no_fault() -> None:
    assert told(request={**RESPONSE, "named": "response/resp_1,file/file-1"}) is None
