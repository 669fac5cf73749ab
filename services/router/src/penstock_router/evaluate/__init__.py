"""Training and judging, offline: no part of serving."""
