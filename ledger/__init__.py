"""What is true: keys, canonical bytes, signed transactions, accounts, escrow, blocks and proofs."""
