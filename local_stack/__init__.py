"""The embedded stack: real servers as child processes of one supervisor, without Docker and without root."""
