"""How the engine fails: each error says what happened and what to do."""


class EngineBusy(Exception):
    """The queue is full: nothing was taken in; send the same bytes again."""

    retry = True


class Indeterminate(Exception):
    """The engine ended before it knew whether this was committed: ask by id, or send the same bytes again."""

    retry = True


class LedgerLocked(Exception):
    """Another process writes this ledger."""

    exit_code = 5

    def __init__(self, where: str, owner: str) -> None:
        super().__init__(f"{where} is in use by {owner}")
        self.fix = "stop the other node first, or give this one another GPUBID_HOME or --database"


class LedgerMissing(Exception):
    """There is no chain at this place and no genesis was given."""

    exit_code = 3

    def __init__(self, where: str) -> None:
        super().__init__(f"there is no chain in {where}")
        self.fix = "start one: gpubid node start --dev"


class LedgerDamaged(Exception):
    """What is stored is not what was committed."""

    exit_code = 1

    def __init__(self, height: int, what: str) -> None:
        super().__init__(f"the ledger is damaged at height {height}: {what}")
        self.height = height
        self.fix = "restore the database from a backup or from another node's export; nothing was changed"


class LedgerNotEmpty(Exception):
    """A log is to begin where there is a chain already."""

    exit_code = 5

    def __init__(self, where: str) -> None:
        super().__init__(f"{where} has a chain already")
        self.fix = "give another GPUBID_HOME or --database"


class LedgerPruned(Exception):
    """Older blocks are asked for than there are: the log began with a snapshot."""

    exit_code = 3

    def __init__(self, first: int) -> None:
        super().__init__(f"the blocks before height {first} are not here: this log began with a snapshot")
        self.fix = "ask a node that has the whole chain"


class LedgerUnavailable(Exception):
    """The database is there, perhaps, but cannot be used now: away, full, or not ours to write."""

    exit_code = 7
    retry = True

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} cannot be used: {what}")
        self.fix = "see that the database runs, that its disk has room, and that this user may write there"


class WrongChain(Exception):
    """The database holds another chain than the genesis that was given."""

    exit_code = 5

    def __init__(self, where: str, found: str, given: str) -> None:
        super().__init__(f"{where} holds chain {found}, not {given}")
        self.fix = "give another GPUBID_HOME or --database"
