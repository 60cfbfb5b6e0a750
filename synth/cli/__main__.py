"""``python -m clearfuse.synth.cli``."""

import clearfuse

clearfuse.leave_users_folder()

from clearfuse.synth.cli import main  # noqa: E402

main()
