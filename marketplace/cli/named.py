"""What a person's word can name, told by its form alone."""


def is_lease_id(text: str) -> bool:
    """True where a text has the form `owner/dseq/gseq/oseq/provider`; whether there is such a lease is not asked."""
    import msgspec

    from marketplace.protocol.ids import LeaseId

    try:
        msgspec.convert(text, LeaseId)
    except msgspec.ValidationError:
        return False
    return True
