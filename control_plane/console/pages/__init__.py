"""One module for each kind of page: what it asks the API, and which template shows it."""
