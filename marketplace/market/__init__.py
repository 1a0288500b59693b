"""The law of the market, plugged into the ledger as a module. Pure."""
