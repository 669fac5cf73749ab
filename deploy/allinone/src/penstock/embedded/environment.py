"""The little that the embedded servers see of the operator's environment."""

from collections.abc import Mapping

_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep what programs need to load; keys and passwords of other software stay outside."""
    kept = {name: environ[name] for name in _KEPT if name in environ}
    return {**kept, "LANG": "C.UTF-8", "TZ": "UTC"}
