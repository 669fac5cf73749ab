"""From a delivered job to its terminal fact."""
