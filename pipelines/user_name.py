"""A name for the user of this process: PyTorch asks for one, and a container can run as a user that has none."""

import getpass
import os


def ensure_user_name() -> None:
    """Set USER if the user has no name, neither in the environment nor in the table of users."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid-{os.getuid()}"
