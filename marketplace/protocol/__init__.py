"""The words of the market: resources, ids, records, messages, events, codes. Pure."""
