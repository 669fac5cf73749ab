"""The router: decides which model serves a request, and makes the decision durable."""
