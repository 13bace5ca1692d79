"""What is killed under load, and whether every request is still accounted for. Not imported by anything that serves."""
