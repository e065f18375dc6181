"""What a synthetic error says: the account finds by it what was mixed up."""


def words_of(identity: str, project_id: str) -> str:
    """The message of the error `identity`."""
    return f"synthetic error {identity} of project {project_id}"
