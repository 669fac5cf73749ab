"""What the services of Penstock share: contracts that cross a border, and the runtime."""
