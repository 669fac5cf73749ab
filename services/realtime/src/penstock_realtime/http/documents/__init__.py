"""What the edge says of itself: OpenAPI 3.1 and AsyncAPI 3, made from the code that it runs."""
