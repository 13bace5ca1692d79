"""The catalogue as a file: read and written as YAML, compared, applied."""
