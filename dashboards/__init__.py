"""What Grafana shows, in Python. `python -m dashboards` writes the files that Grafana reads."""
