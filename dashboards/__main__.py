"""`python -m dashboards`: writes the files that Grafana reads."""

from pathlib import Path
from typing import Final

from dashboards.all_boards import files

DIRECTORY: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"

if __name__ == "__main__":
    for name, text in files().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")
        print(name)
