"""The command line: the dispatcher and what every command group shares."""
