"""The transition function: store, accounts, escrow, modules. Pure: no clock, no chance, no I/O."""
