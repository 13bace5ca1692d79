"""The command line. Thin: what it does is in `local_stack` and behind the control plane's API."""
