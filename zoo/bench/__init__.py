"""What models cost, beside what was published of them."""
