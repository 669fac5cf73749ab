"""Pure rules of the edge: what a request means, what its events look like, which text is next."""
