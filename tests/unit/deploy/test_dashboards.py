"""The dashboards as Grafana reads them, against what makes them, the sources that are provisioned, and the metrics of the code."""

import re

import pytest

from dashboards.all_boards import files
from dashboards.panels import CONSOLE_URL
from tests.support.grafana import DASHBOARDS, boards, panels, read, targets
from tests.unit.deploy.test_alerts import exposed, metrics_of
from tests.unit.deploy.test_compose import compose, read_yaml

each_board = pytest.mark.parametrize("board", boards())

OF_MONEY = {"requests", "requests_by_minute", "requests_by_hour", "requests_by_day"}
"""Tables that have a mode."""


def test_files_are_what_python_makes_of_them() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS.iterdir()}
    assert there == files(), "make dashboards"


@each_board
def test_every_row_is_read_once_and_of_one_mode(board: str) -> None:
    for target in targets(board):
        if target.sql is None:
            continue
        tables = re.findall(r"\bFROM ([a-z_]+)\b(?! \()( FINAL)?", target.sql)
        named = {table for table, _ in tables} - {"chosen", "sums"}
        assert named, target
        # Without FINAL a row that was inserted twice counts twice.
        assert all(final for table, final in tables if table in named), target
        if target.kind != "variable":
            # Play money is in no sum of real money.
            assert not named & OF_MONEY or "mode = ${mode:singlequote}" in target.sql, target


@each_board
def test_every_metric_is_one_of_ours_with_the_labels_it_is_asked_for(board: str) -> None:
    for target in targets(board):
        if target.expression is None:
            continue
        metrics = metrics_of(target.expression)
        assert metrics, target
        assert metrics <= exposed().keys(), target
        labels = set.union(*(exposed()[name] for name in metrics))
        for clause in re.findall(r"\b(?:by|on) \(([^)]*)\)", target.expression):
            assert set(re.findall(r"\w+", clause)) <= labels, target


@each_board
def test_every_source_is_provisioned(board: str) -> None:
    provisioned = {
        (source["uid"], source["type"])
        for source in read_yaml("deploy/grafana/provisioning/datasources/tollgate.yaml")["datasources"]
    }
    named = {
        (source["uid"], source["type"])
        for panel in panels(board)
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"]))
    }
    assert named
    assert named <= provisioned


@each_board
def test_titles_and_numbers_of_panels_are_their_own_and_no_two_lie_upon_each_other(board: str) -> None:
    found = list(panels(board))
    numbers = [panel["id"] for panel in read(board)["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


def test_dashboards_lead_to_each_other_and_to_pages_that_are_there() -> None:
    uids = {read(board)["uid"] for board in boards()}
    assert len(uids) == len(boards())
    for board in boards():
        assert [link["tags"] for link in read(board)["links"]] == [read(board)["tags"]]
        for panel in panels(board):
            for override in panel["fieldConfig"]["overrides"]:
                for each in override["properties"]:
                    for link in each["value"] if each["id"] == "links" else []:
                        address = re.match(r"/d/([a-z-]+)\?", link["url"])
                        assert address is None or address[1] in uids
                        assert address is not None or link["url"].startswith(f"{CONSOLE_URL}/requests?id=")


@each_board
def test_a_table_with_ids_of_requests_leads_to_their_pages(board: str) -> None:
    for panel in panels(board):
        selected = panel["targets"][0].get("rawSql", "").partition("FROM")[0]
        if panel["type"] == "table" and re.search(r"\brequest_id\b", selected):
            names = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
            assert "request_id" in names, panel["title"]


def test_the_console_is_where_it_is_served() -> None:
    [port] = compose().services["control_plane"].ports
    assert f"http://{port.rpartition(':')[0]}/console" == CONSOLE_URL
