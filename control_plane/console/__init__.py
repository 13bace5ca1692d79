"""The web page of the gateway: a client of the API that runs in its process. README.md says how."""
