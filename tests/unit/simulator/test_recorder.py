from datetime import UTC, datetime

from aiohttp.test_utils import make_mocked_request

from simulator.recorder import Recorder


def test_only_the_last_requests_and_the_start_of_their_bodies_are_kept() -> None:
    recorder = Recorder(2, lambda: datetime(2025, 1, 15, tzinfo=UTC))
    for number in range(3):
        recorder.record(make_mocked_request("POST", f"/v1/messages?n={number}", {"X-One": "1"}), b"x" * 5000)

    received = recorder.requests()

    assert [request.path for request in received] == ["/v1/messages?n=1", "/v1/messages?n=2"]
    assert received[0].headers == {"x-one": "1"}
    assert (received[0].body_bytes, len(received[0].body_start)) == (5000, 4096)
    assert received[0].received_at == "2025-01-15T00:00:00+00:00"


def test_cleared_recorder_is_empty() -> None:
    recorder = Recorder(2, lambda: datetime(2025, 1, 15, tzinfo=UTC))
    recorder.record(make_mocked_request("GET", "/v1/models"), b"\xff")

    recorder.clear()

    assert recorder.requests() == []
