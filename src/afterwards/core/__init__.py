"""What is decided without waiting, without a clock and without I/O."""
