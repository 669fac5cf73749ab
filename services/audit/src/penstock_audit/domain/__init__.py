"""The log as mathematics and formats: no files, no network."""
