"""What tests share: running stacks, and ways to ask them."""
