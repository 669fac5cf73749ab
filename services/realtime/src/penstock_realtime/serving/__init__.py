"""The edge's use cases, over ports: admit a request, follow it to its end, look one up."""
