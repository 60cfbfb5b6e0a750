"""``python -m train``: what launchers of many processes start."""

from train.cli import main

main()
