"""What is raised when a peer cannot be measured; it ends that peer's part of a run and no other."""


class PeerFailed(Exception):
    """The message is the reason that the results give."""
