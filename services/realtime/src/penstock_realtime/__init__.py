"""Penstock's edge: OpenAI's Responses API in front, NATS behind."""
