"""Who orders transactions: the embedded engine on SQLite or PostgreSQL. Effects live here."""
