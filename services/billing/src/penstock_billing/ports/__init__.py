"""What billing needs of the world, as roles; and the records that pass between them."""
