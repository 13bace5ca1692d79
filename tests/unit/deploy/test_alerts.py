"""The alerts of deploy/prometheus, against the metrics that the code has. No Prometheus runs here."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import prometheus_client
import pytest
import yaml
from prometheus_client import CollectorRegistry

from gateway_core.contract import Service
from tests.support.envoy_statistics import OF_ENVOY
from tests.unit.deploy.test_compose import compose, read_yaml

ROOT = Path(__file__).parents[3]
PACKAGES = (*Service, "translator", "response_cache", "gateway_core")
KINDS = {
    kind.__name__: kind for kind in (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)
}
OF_PROMETHEUS: Final = {"up": {"job", "instance"}}
OF_EVERY_TARGET: Final = {"job", "instance"}
RULES: list[dict[str, Any]] = [
    rule for group in read_yaml("deploy/prometheus/alerts.yml")["groups"] for rule in group["rules"]
]

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def declared(tree: ast.AST) -> Iterator[tuple[str, str, list[str]]]:
    """The metrics that a module makes: kind, name, labels."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=kind), args=[name, _, *more]) if kind in KINDS:
                labels = (
                    [ast.literal_eval(item) for item in more[0].elts] if more and isinstance(more[0], ast.List) else []
                )
                match name:
                    case ast.Constant(value=str() as text):
                        yield kind, text, labels
                    case ast.JoinedStr(values=parts):
                        for service in Service:
                            shown = (part.value if isinstance(part, ast.Constant) else service for part in parts)
                            yield kind, "".join(map(str, shown)), labels
                    case _:
                        raise AssertionError(f"the name of a metric is not to be read: {ast.unparse(name)}")


@cache
def exposed() -> Mapping[str, set[str]]:
    """The labels of every series, by its name as Prometheus reads it."""
    registry = CollectorRegistry()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for kind, name, labels in declared(ast.parse(path.read_text(encoding="utf-8"))):
                metric = KINDS[kind](name, name, labels, registry=registry)
                if labels:
                    metric.labels(*labels)
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    ours = {sample.name: set(sample.labels) | OF_EVERY_TARGET for sample in samples}
    return ours | OF_PROMETHEUS | {name: labels | OF_EVERY_TARGET for name, labels in OF_ENVOY.items()}


def metrics_of(expression: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}|\b(?:by|on) \([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:tollgate_\w+|envoy_\w+|up)\b", without_labels))


def test_metrics_are_found_in_the_code_as_they_are_exposed() -> None:
    assert exposed()["tollgate_control_plane_stripe_events_total"] == {"outcome", *OF_EVERY_TARGET}
    assert {"tollgate_ext_authz_listening", "tollgate_ext_authz_seconds_bucket"} <= exposed().keys()


@each_rule
def test_every_metric_of_an_alert_is_one_of_ours_with_the_labels_it_is_asked_for(rule: dict[str, Any]) -> None:
    metrics = metrics_of(rule["expr"])
    assert metrics
    assert metrics <= exposed().keys()
    for name, selector in re.findall(r"\b(\w+)\{([^}]*)\}", rule["expr"]):
        assert set(re.findall(r"(\w+)=", selector)) <= exposed()[name]
    labels = set.union(*(exposed()[name] for name in metrics))
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels


@each_rule
def test_every_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    summary = rule["annotations"]["summary"]
    assert re.search(r"\b[Ll]ook\b|`tollgate ", summary), "it names nothing to look at"
    assert "\n" not in summary


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "RUNBOOKS.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    assert [rule["annotations"]["runbook"] for rule in RULES] == [
        f"docs/RUNBOOKS.md#{name.lower()}" for name in headings
    ]


@each_rule
def test_what_an_alert_tells_to_look_for_in_a_log_is_logged(rule: dict[str, Any]) -> None:
    events = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", rule["annotations"]["summary"]))
    source = "\n".join(
        path.read_text(encoding="utf-8") for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    )
    assert [event for event in events if f'"{event}"' not in source] == []


def test_prometheus_keeps_what_is_asked_of_envoy() -> None:
    (job,) = (
        job for job in read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"] if job["job_name"] == "envoy"
    )
    (kept,) = job["metric_relabel_configs"]
    assert [name for name in OF_ENVOY if not re.fullmatch(kept["regex"], name)] == []


def test_names_of_alerts_are_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_prometheus_reads_the_alerts_where_they_are_mounted() -> None:
    targets = {mount.target: mount.source for mount in compose().services["prometheus"].mounts}
    [file] = read_yaml("deploy/prometheus/prometheus.yml")["rule_files"]
    assert targets[file] == "./deploy/prometheus/alerts.yml"
    assert yaml.safe_load((ROOT / targets[file]).read_text(encoding="utf-8"))["groups"]
