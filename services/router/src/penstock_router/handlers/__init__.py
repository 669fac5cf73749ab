"""One method per consumed message: call the domain, publish."""
