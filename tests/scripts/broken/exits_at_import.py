import sys

sys.exit("no mode was chosen")
