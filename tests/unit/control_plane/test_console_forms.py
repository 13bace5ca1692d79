"""From forms to bodies of the API, and whose forms are read at all."""

import pytest

from control_plane.console import forms
from control_plane.console.guard import comes_from_us
from control_plane.console.pages.sign_in import after_sign_in
from control_plane.console.route_form import NEW, rows_of, spec_of
from control_plane.errors import InvalidFieldsError, MalformedBodyError


def test_fields_become_what_the_api_reads() -> None:
    form = forms.parse_form(b"name=+a+&empty=&many=1%2C+2%0A3&number=12&word=twelve&tick=on&at=2026-03-01T10%3A20")
    assert (forms.text(form, "name"), forms.text(form, "empty"), forms.text(form, "absent")) == ("a", None, None)
    assert forms.words(form, "many") == ["1", "2", "3"]
    assert (forms.whole(form, "number"), forms.whole(form, "word"), forms.whole(form, "empty")) == (12, "twelve", None)
    assert (forms.ticked(form, "tick"), forms.ticked(form, "absent")) == (True, False)
    assert forms.moment(form, "at") == "2026-03-01T10:20:00Z"


@pytest.mark.parametrize("group", ["", "first", "1.5", "9" * 5000])
def test_a_provider_whose_place_cannot_be_read_is_not_put_somewhere(group: str) -> None:
    with pytest.raises(InvalidFieldsError) as refused:
        spec_of({"match": "m", "provider_0": "a", "group_0": "1", "provider_1": "b", "group_1": group})
    assert [field.pointer for field in refused.value.fields] == ["/group_1"]


@pytest.mark.parametrize("raw", [b"a=%ff", b"\xff=1", b"&".join(b"a=1" for _ in range(1000))])
def test_what_is_no_form_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        forms.parse_form(raw)


def test_rows_become_groups_in_the_order_of_their_numbers() -> None:
    form = {
        "match": "m",
        "strategy": "weighted",
        "group_0": "2",
        "provider_0": "last",
        "weight_0": "1",
        "group_1": "1",
        "provider_1": "first",
        "weight_1": "3",
        "group_2": "1",
        "provider_2": "beside",
        "weight_2": "",
        "group_3": "3",
        "provider_3": "",
        "weight_3": "1",
        "retry_statuses": "408, 429",
    }
    spec = spec_of(form)
    assert spec["groups"] == [
        [{"provider": "first", "weight": 3}, {"provider": "beside", "weight": 1}],
        [{"provider": "last", "weight": 1}],
    ]
    assert (spec["retry_statuses"], spec["published"], spec["attempts_max"]) == ([408, 429], False, None)
    assert spec.keys() == NEW.keys()


def test_a_route_that_is_written_into_its_form_comes_out_of_it_the_same() -> None:
    spec = {
        **NEW,
        "match": "m-*",
        "groups": [[{"provider": "a", "weight": 3}, {"provider": "b", "weight": 1}], [{"provider": "c", "weight": 2}]],
    }
    rows = rows_of(spec)
    form = {"match": "m-*", "published": "on", "strategy": "weighted"}
    for number, row in enumerate(rows):
        form |= {
            f"group_{number}": str(row.group),
            f"provider_{number}": row.provider,
            f"weight_{number}": str(row.weight),
        }
    assert spec_of(form) == spec
    assert [row.provider for row in rows].count("") == 3


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://console.test"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "https://console.test"}, True),
        ({"Origin": "https://console.test.evil.test"}, False),
        ({"Origin": "https://console.test:444"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_change_comes_from_a_page_of_this_server(headers: dict[str, str], *, is_ours: bool) -> None:
    assert comes_from_us(headers, "console.test") is is_ours


@pytest.mark.parametrize(
    ("path", "goes_to"),
    [
        ("/console/orgs/org_1/?a=b", "/console/orgs/org_1/?a=b"),
        ("https://evil.test/console/", "/console/"),
        ("//evil.test/console/", "/console/"),
        ("/console//evil.test", "/console/"),
        ("/console/\\evil.test", "/console/"),
        ("/console/\r\nSet-Cookie: a=b", "/console/"),
        ("/api/v1/docs", "/console/"),
        ("/console/sign-in", "/console/"),
        ("", "/console/"),
    ],
)
def test_signing_in_leads_to_a_page_of_the_console(path: str, goes_to: str) -> None:
    assert after_sign_in(path) == goes_to
