"""Pure decisions and values: no await, no clock, no I/O."""
