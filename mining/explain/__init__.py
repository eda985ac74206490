"""What a curve is called, and why it looks as it does."""
