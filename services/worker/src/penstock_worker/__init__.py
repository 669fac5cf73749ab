"""The worker: runs models, streams what they generate, writes the terminal fact."""
