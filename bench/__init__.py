"""The benchmark: what a request costs, side by side, on this machine."""
