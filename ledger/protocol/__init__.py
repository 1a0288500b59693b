"""What all must agree on byte for byte. Pure: no clock, no chance, no I/O."""
