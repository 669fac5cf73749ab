"""OpenAI's API over HTTP, server-sent events and WebSocket."""
