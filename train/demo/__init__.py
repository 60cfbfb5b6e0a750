"""``train demo``: a local web page that degrades a pair, fuses it and says what came of it."""
