"""``python -m clearfuse.train``: what launchers of many processes start."""

import clearfuse

clearfuse.leave_users_folder()

from clearfuse.train.cli import main  # noqa: E402

main()
