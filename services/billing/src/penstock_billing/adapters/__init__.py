"""One file per technology and role."""
