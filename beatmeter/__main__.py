"""python -m beatmeter"""

from beatmeter.cli import main

main()
